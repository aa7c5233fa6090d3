"""
Tell what a file is by its first bytes, never by its name. Pure.

Source: RFC 1952, section 2.3.1; RFC 8878, section 3.1.1; POSIX pax, "ustar
Interchange Format"; the .xz file format, section 2.1.1.1.
"""

from __future__ import annotations

from enum import Enum

#: How many bytes `sniff` wants to see.
HEAD_BYTES = 512


class Kind(Enum):
    """What a file turned out to be; the value names it for a person."""

    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    TAR = "a tar archive"
    JSON = "JSON"
    SCRIPT = "an executable script"
    PROGRAM = "an executable program"
    EMPTY = "an empty file"
    OTHER = "not of a kind that is known here"


def sniff(head: bytes) -> Kind:
    """
    Tell what begins with these bytes.

    :param head: the first `HEAD_BYTES` bytes, or all there are.
    """
    if not head:
        return Kind.EMPTY
    if head.startswith(b"\x1f\x8b"):
        return Kind.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return Kind.ZSTD
    if head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:
        return Kind.ZSTD  # a skippable frame, as pzstd writes first
    if head.startswith(b"\xfd7zXZ\x00"):
        return Kind.XZ
    if head.startswith(b"#!"):
        return Kind.SCRIPT
    if head.startswith(b"\x7fELF"):
        return Kind.PROGRAM
    if head[257:262] == b"ustar":
        return Kind.TAR
    if head.lstrip(b" \t\r\n")[:1] in (b"{", b"["):
        return Kind.JSON
    return Kind.OTHER
