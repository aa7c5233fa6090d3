"""Write members of tar archives by hand, that say what no honest writer says. Pure."""

from __future__ import annotations

import tarfile


def header(
    name: str, type: bytes, size: int | bytes, data: bytes = b"", tail: bytes = b""
) -> bytes:
    """
    Write a member.

    :param size: as the header has it, whatever the data's; or the field's 12 bytes.
    :param tail: what the header has from byte 386 on, where GNU keeps sparse maps.
    """
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[156:157] = type
    if isinstance(size, int):  # GNU's way for what octal digits cannot say
        size = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(
            11, "big", signed=True
        )
    block[124:136] = size
    block[386 : 386 + len(tail)] = tail
    return checked(block) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def checked(block: bytearray) -> bytes:
    """Write the right checksum into a header."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(key: bytes, value: bytes) -> bytes:
    """Write one record of an extended header."""
    rest = len(key) + len(value) + 3
    size = next(n for n in range(rest, rest + 20) if n == rest + len(str(n)))
    return b"%d %s=%s\n" % (size, key, value)


def extended(data: bytes, type: bytes = tarfile.XHDTYPE) -> bytes:
    """Write an extended header of these bytes, and a member that it belongs to."""
    return header("pax", type, len(data), data) + FILLER


FILLER = header("filler", tarfile.REGTYPE, 0)


def sparse(more: int) -> bytes:
    """Write GNU's old header of a sparse file, perhaps with more blocks to come."""
    tail = b"00000000000\0" * 8 + bytes([more]) + b"%011o\0" % 10**9
    return header("sparse", tarfile.GNUTYPE_SPARSE, 0, b"", tail)
