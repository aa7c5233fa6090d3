"""
Say whether a file holds what it should, some bytes at a time. Blocking: for threads.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, cast

from backports import zstd
from isal import igzip, isal_zlib

from forgereg.oci.reference import Digest

#: How much is read at a time, in bytes.
_CHUNK = 2**20

_DECODERS: dict[str, Callable[[BinaryIO], BinaryIO]] = {
    "": lambda file: file,
    "gzip": lambda file: cast(BinaryIO, igzip.IGzipFile(fileobj=file, mode="rb")),
    "zstd": lambda file: cast(BinaryIO, zstd.ZstdFile(file, mode="r")),
}
#: The HTTP content-codings that a blob can be kept in, beside the plain bytes.
CODINGS = tuple(_DECODERS)

#: What reading a damaged file raises; OSError where the disk itself cannot read it.
_BROKEN: tuple[type[Exception], ...] = (
    EOFError,
    OSError,
    ValueError,
    isal_zlib.error,  # type: ignore[assignment]  # its stub lacks a type
    zstd.ZstdError,
)


class Check:
    """
    Hashes a file, decoded, and compares.

    The page cache is left as it was, so that what is pulled stays there.

    :ivar read_bytes: how much of the file was read.
    :ivar is_right: None until it is known.
    """

    def __init__(self, file: BinaryIO, digest: Digest, coding: str = "") -> None:
        """:param file: unbuffered, at its begin; the caller closes it."""
        self._file = _Sparing(file)
        self._decoded = _DECODERS[coding](cast(BinaryIO, self._file))
        self._hash = hashlib.new(digest.algorithm)
        self._wanted = digest.encoded
        self.is_right: bool | None = None

    @property
    def read_bytes(self) -> int:
        """How much of the file was read, in bytes."""
        return self._file.position

    def go_on(self, most: int) -> int:
        """
        Check up to this many bytes.

        :returns: how many it were.
        """
        done = 0
        try:
            while done < most:
                chunk = self._decoded.read(min(_CHUNK, most - done))
                if not chunk:
                    self.is_right = self._hash.hexdigest() == self._wanted
                    break
                self._hash.update(chunk)
                done += len(chunk)
        except _BROKEN:
            self.is_right = False
        return done


def is_right(
    file: BinaryIO, digest: Digest, stopping: Callable[[], bool] = lambda: False
) -> bool | None:
    """Whether the whole file holds what it should; None where it was not found out."""
    check = Check(file, digest)
    while check.is_right is None and not stopping():
        check.go_on(_CHUNK)
    return check.is_right


class _Sparing(io.RawIOBase):
    """Reads on, and forgets the pages that were not cached before."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        # Else the kernel reads ahead, and pages look as if others had wanted them.
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        number, begin = self._file.fileno(), self.position
        try:
            was_cached = os.preadv(number, [bytearray(1)], begin, os.RWF_NOWAIT) == 1
        except OSError:  # not cached, or a file system that cannot tell
            was_cached = False
        count = os.preadv(number, [buffer], begin)
        if count and not was_cached:
            os.posix_fadvise(number, begin, count, os.POSIX_FADV_DONTNEED)
        self.position += count
        return count
