"""
Where the bytes of a blob come from while it is being sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, Protocol

from attrs import define, field

from forgereg.flow.threads import InThread


class Source(Protocol):
    """
    The bytes of a blob, by position.

    Whoever has it closes it, also while a `read` is under way.

    :ivar size: in bytes; None while nobody can know.
    """

    @property
    def size(self) -> int | None: ...

    @property
    def extent(self) -> tuple[int, int] | None:
        """
        The file descriptor, and the offset in it, where all bytes lie as they are.

        None where they come from elsewhere; it may become known later.
        """

    def peek(self, position: int, size: int) -> bytes:
        """Give up to ``size`` bytes without waiting; none where that cannot be."""

    async def read(self, position: int, size: int) -> bytes:
        """
        Give at least one byte and at most ``size``.

        :returns: none at the end, which is where the file ends, too soon or not.
        :raises RegistryError: they cannot be had, or are not what they should be.
        """

    def close(self) -> None:
        """Let go of it."""


def _ignore() -> None:
    pass


@define(eq=False)
class FileSource:
    """
    A blob that lies in a file as it is, whole or as a stretch of it.

    :ivar size: in bytes.
    :ivar on_close: is called once, when it is let go of.
    """

    _file: BinaryIO
    size: int
    _in_thread: InThread
    _offset: int = 0
    _on_close: Callable[[], object] = _ignore
    _closed: bool = field(init=False, default=False)

    @property
    def extent(self) -> tuple[int, int]:
        """The file descriptor, and the offset in it."""
        return self._file.fileno(), self._offset

    def peek(self, position: int, size: int) -> bytes:
        """
        Give what can be read without waiting for a disk.

        Source: preadv2(2), RWF_NOWAIT.
        """
        fd, offset = self.extent
        buffer = bytearray(min(size, self.size - position))
        try:
            count = os.preadv(fd, [buffer], offset + position, os.RWF_NOWAIT)
        except OSError:  # not cached, or a file system that cannot tell
            return b""
        return bytes(buffer) if count == len(buffer) else bytes(buffer[:count])

    async def read(self, position: int, size: int) -> bytes:
        """Give at least one byte; none where the file ends."""
        fd, offset = self.extent
        size = min(size, self.size - position)
        return await self._in_thread(os.pread, fd, size, offset + position)

    def close(self) -> None:
        """Close the file; once more does no harm."""
        if not self._closed:
            self._closed = True
            self._file.close()
            self._on_close()
