"""
Unpack what was compressed, from its beginning. Blocking: for threads.

One table for all: what a file is, tells `sniff`; what it unpacks to is read from what is
opened here.
"""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from backports import zstd
from isal import igzip, isal_zlib

from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.oci.descriptor import Compression

#: How a member of this kind is packed, as far as clients know of it.
COMPRESSIONS = {Kind.GZIP: Compression.GZIP, Kind.ZSTD: Compression.ZSTD}

#: What reading raises for bytes that are not the packer's, or that end too soon.
BROKEN: tuple[type[Exception], ...] = (
    EOFError,
    isal_zlib.error,  # type: ignore[assignment]  # its stub lacks a type
    zstd.ZstdError,
    igzip.BadGzipFile,
    lzma.LZMAError,
)

#: How much memory unpacking may take, in bytes: twice what ``xz -9`` asks for. That
#: of zstd is bounded likewise by its library.
_MAX_MEMORY = 2**27
_CHUNK = 2**16


class _XzFile(io.RawIOBase):
    """What an xz file unpacks to; unlike `lzma.LZMAFile`, in bounded memory."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._stream: lzma.LZMADecompressor | None = None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._packed.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            data = self._rest
            if not data and (self._stream is None or self._stream.needs_input):
                data = self._packed.read(_CHUNK)
                if not data:
                    if self._stream is not None:
                        raise EOFError("compressed file ended too early")
                    return 0
            self._rest = b""
            if self._stream is None:
                data = data.lstrip(b"\0")  # between streams, and after the last one
                if not data:
                    continue
                self._stream = lzma.LZMADecompressor(
                    lzma.FORMAT_XZ, memlimit=_MAX_MEMORY
                )
            unpacked = self._stream.decompress(data, len(buffer))
            if self._stream.eof:
                self._rest, self._stream = self._stream.unused_data, None
            if unpacked:
                buffer[: len(unpacked)] = unpacked
                return len(unpacked)


def _open_xz(packed: BinaryIO | Path) -> BinaryIO:
    file = packed.open("rb") if isinstance(packed, Path) else packed
    return cast(BinaryIO, io.BufferedReader(_XzFile(file), _CHUNK))


#: Each gives what a file unpacks to.
OPENERS: dict[Kind, Callable[[BinaryIO | Path], BinaryIO]] = {
    Kind.GZIP: lambda packed: cast(BinaryIO, igzip.open(packed, "rb")),
    Kind.ZSTD: lambda packed: cast(BinaryIO, zstd.open(packed, "rb")),
    Kind.XZ: _open_xz,
}


def open_unpacked(real: Path) -> BinaryIO:
    """
    Open what a file unpacks to, or the file itself where it is not packed.

    :returns: at its beginning; the caller closes it. Reading it raises one of `BROKEN`
        where the file is damaged.
    :raises FileNotFoundError: it is gone.
    """
    with real.open("rb") as file:
        kind = sniff(file.read(HEAD_BYTES))
    return OPENERS[kind](real) if kind in OPENERS else real.open("rb")
