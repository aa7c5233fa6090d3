"""
Write headers of a tar archive, byte for byte as Go's ``archive/tar`` does. Pure.

A header is USTAR where that can say everything, else PAX, else GNU.

Source: Go, package archive/tar: Header.allowedFormats, Writer.WriteHeader (the same in
1.19 and later).
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from enum import Enum

from attrs import frozen

from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.reference import shown

BLOCK = 512
#: What ends an archive.
END = bytes(2 * BLOCK)

_NAME, _PREFIX, _OWNER = 100, 155, 32
_MODE, _ID, _SIZE = 8, 8, 12
_USTAR, _GNU = b"ustar\x0000", b"ustar  \x00"
#: When everything in a Nix store was last changed, in seconds since 1970.
_MODIFIED = 1
_MAX_RECORDS = 2**20

_Number = Callable[[int, int], bytes]


class Kind(Enum):
    """What an entry is; the value is its type in the header."""

    FILE = b"0"
    LINK = b"2"
    DIRECTORY = b"5"


@frozen
class Header:
    """
    What is said of an entry.

    :ivar target: what a symbolic link says.
    :ivar size: of a file, in bytes.
    """

    name: bytes
    kind: Kind
    mode: int
    size: int = 0
    target: bytes = b""
    uid: int = 0
    gid: int = 0
    uname: bytes = b"root"
    gname: bytes = b"root"


def padding(size: int) -> bytes:
    """Fill up the last block of a file of ``size`` bytes."""
    return bytes(-size % BLOCK)


def write_header(header: Header) -> bytes:
    """
    Write what stands before an entry's bytes: one or more blocks.

    :raises ArchiveInvalid: no format can say it.
    """
    texts = (header.name, header.target, header.uname, header.gname)
    if any(b"\0" in text for text in texts):
        raise _unwritable(header)
    if header.kind is Kind.FILE and header.name.endswith(b"/"):
        raise _unwritable(header)
    records = _records(header)
    split = _split(header.name)
    if _fits(header.mode, _MODE):
        if records.keys() <= ({b"path"} if split else set()):
            prefix, name = split or (b"", header.name)
            return _block(header, name, _octal, bytes, _USTAR, prefix)
        return _pax(header, records)
    owners_fit = max(len(header.uname), len(header.gname)) <= _OWNER
    numbers = (header.mode, header.uid, header.gid)
    if owners_fit and all(-(2**56) <= number < 2**56 for number in numbers):
        return _gnu(header)
    raise _unwritable(header)


def _records(header: Header) -> dict[bytes, bytes]:
    """Give what has to be said outside of a USTAR header's fields, by PAX keyword."""
    texts = {
        b"path": (header.name, _NAME),
        b"linkpath": (header.target, _NAME),
        b"uname": (header.uname, _OWNER),
        b"gname": (header.gname, _OWNER),
    }
    numbers = {
        b"uid": (header.uid, _ID),
        b"gid": (header.gid, _ID),
        b"size": (header.size, _SIZE),
    }
    return {
        key: text
        for key, (text, width) in texts.items()
        if len(text) > width or not text.isascii()
    } | {
        key: b"%d" % number
        for key, (number, width) in numbers.items()
        if not _fits(number, width)
    }


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Divide a long name into USTAR's prefix and name, if it can be."""
    if len(name) <= _NAME or not name.isascii():
        return None
    at = name.rfind(b"/", 0, _PREFIX + 1 if len(name) > _PREFIX + 1 else len(name) - 1)
    if at <= 0 or not 0 < len(name) - at - 1 <= _NAME:
        return None
    return name[:at], name[at + 1 :]


def _pax(header: Header, records: dict[bytes, bytes]) -> bytes:
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    if len(data) > _MAX_RECORDS:
        raise _unwritable(header)
    at = header.name.rfind(b"/") + 1
    name = clean(posixpath.join(header.name[:at], b"PaxHeaders.0", header.name[at:]))
    extended = _raw(_ascii(name)[:_NAME].rstrip(b"/"), b"x", data, _USTAR)
    return extended + _block(header, header.name, _octal_or_zero, _ascii, _USTAR)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" %b=%b\n" % (key, value)
    size = len(rest) + len(str(len(rest)))
    size = len(rest) + len(str(size))
    return b"%d%b" % (size, rest)


def _gnu(header: Header) -> bytes:
    longs = b"".join(
        _raw(b"././@LongLink", kind, text + b"\0", _GNU)
        for kind, text in ((b"L", header.name), (b"K", header.target))
        if len(text) > _NAME
    )
    return longs + _block(header, header.name, _octal_or_binary, bytes, _GNU)


def _raw(name: bytes, kind: bytes, data: bytes, magic: bytes) -> bytes:
    fields = [
        _text(name, _NAME),
        _octal(0, _MODE),
        _octal(0, _ID),
        _octal(0, _ID),
        _octal(len(data), _SIZE),
        _octal(0, _SIZE),
        b" " * 8,
        kind,
        bytes(_NAME),
        magic,
    ]
    return _summed(fields) + data + padding(len(data))


def _block(
    header: Header,
    name: bytes,
    number: _Number,
    text: Callable[[bytes], bytes],
    magic: bytes,
    prefix: bytes = b"",
) -> bytes:
    fields = [
        _text(text(name), _NAME),
        number(header.mode, _MODE),
        number(header.uid, _ID),
        number(header.gid, _ID),
        number(header.size, _SIZE),
        number(_MODIFIED, _SIZE),
        b" " * 8,
        header.kind.value,
        _text(text(header.target), _NAME),
        magic,
        _text(text(header.uname), _OWNER),
        _text(text(header.gname), _OWNER),
        number(0, 8),
        number(0, 8),
        _text(prefix, _PREFIX),
    ]
    return _summed(fields)


def _summed(fields: list[bytes]) -> bytes:
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def _text(text: bytes, width: int) -> bytes:
    field = text[:width]
    if len(text) > width and field.endswith(b"/"):
        kept = len(field.rstrip(b"/"))
        field = field[:kept] + b"\0" + field[kept + 1 :]
    return field.ljust(width, b"\0")


def _ascii(text: bytes) -> bytes:
    return bytes(byte for byte in text if byte < 0x80)


def _fits(number: int, width: int) -> bool:
    return 0 <= number < 1 << 3 * (width - 1)


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def _octal_or_zero(number: int, width: int) -> bytes:
    return _octal(number if _fits(number, width) else 0, width)


def _octal_or_binary(number: int, width: int) -> bytes:
    if _fits(number, width):
        return _octal(number, width)
    binary = number.to_bytes(width, "big", signed=True)
    return bytes((binary[0] | 0x80,)) + binary[1:]


def clean(path: bytes) -> bytes:
    """Write a path in the shortest way, as Go's ``path.Clean`` does."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith(b"//") else cleaned


def _unwritable(header: Header) -> ArchiveInvalid:
    name = header.name.decode(errors="replace")
    return ArchiveInvalid(f"a layer has {shown(name)}, which no tar archive can hold")
