"""
Bytes that are being written while clients receive them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from forgereg.flow.source import FileSource, Source
from forgereg.oci.errors import DiskFull, RegistryError


@define(eq=False)
class Growing:
    """
    A blob, or an encoded form of it, on its way to a file.

    :ivar size: how many bytes there will be; None where nobody can know yet.
    :ivar written: how many may be given out.
    :ivar error: why there will be no more; `DiskFull` where only the file is lost.
    """

    size: int | None = None
    written: int = field(init=False, default=0)
    error: RegistryError | None = field(init=False, default=None)
    is_over: bool = field(init=False, default=False)
    _file: FileSource | None = field(init=False, default=None)
    #: the writer, and who follows
    _users: int = field(init=False, default=1)
    _waiting: dict[Deferred[None], None] = field(init=False, factory=dict)

    def begin(self, file: FileSource) -> None:
        """Tell where the bytes will be."""
        self._file = file

    def advance(self, written: int) -> None:
        """Tell how many bytes may be given out."""
        self.written = written
        self._wake()

    def finish(self, error: RegistryError | None = None) -> None:
        """Tell that no more will come; a second time does nothing."""
        if not self.is_over:
            self.is_over, self.error = True, error
            self._wake()
            self.release()

    async def until(self, position: int) -> None:
        """Wait until there is more than that many bytes, or it is over."""
        while self.written <= position and not self.is_over:
            waiting: Deferred[None] = Deferred(lambda d: self._waiting.pop(d, None))
            self._waiting[waiting] = None
            await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # one who is told may make another leave
                each.callback(None)

    @property
    def extent(self) -> tuple[int, int] | None:
        """Where all bytes are, once they are there."""
        is_whole = self.is_over and self.error is None
        return self._file.extent if is_whole and self._file is not None else None

    def peek(self, position: int, size: int) -> bytes:
        """Give what can be given without waiting."""
        size = min(size, self.written - position)
        return (
            b"" if self._file is None or size <= 0 else self._file.peek(position, size)
        )

    async def read(self, position: int, size: int) -> bytes:
        """Give what is there; none where nothing is yet, or at the end."""
        size = min(size, self.written - position)
        if self._file is None or size <= 0:
            return b""
        return await self._file.read(position, size)

    def hold(self) -> None:
        """Have the file stay open until `release`."""
        self._users += 1

    def release(self) -> None:
        """Let the file be closed, as far as this user is concerned."""
        self._users -= 1
        if not self._users and self._file is not None:
            self._file.close()


@define(eq=False)
class Followed:
    """
    What one client receives of what is being written.

    :ivar instead: opens the same bytes elsewhere, should the file be lost.
    """

    _growing: Growing
    _instead: Callable[[], Coroutine[Any, Any, Source]] | None = None
    _other: Source | None = field(init=False, default=None)
    _closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._growing.hold()

    @property
    def size(self) -> int | None:
        """In bytes; None while nobody can know."""
        if self._growing.is_over and self._growing.error is None:
            return self._growing.written
        return self._growing.size

    @property
    def extent(self) -> tuple[int, int] | None:
        """Where all bytes are, once they are there."""
        return None if self._other is not None else self._growing.extent

    async def begun(self) -> RegistryError | None:
        """Wait for the first byte; give what went wrong, and let go of it, if none."""
        try:
            await self._growing.until(0)
        except CancelledError:
            self.close()
            raise
        if not self._growing.written and self._growing.error is not None:
            self.close()
            return self._growing.error
        return None

    def peek(self, position: int, size: int) -> bytes:
        """Give what can be given without waiting."""
        return (self._other or self._growing).peek(position, size)

    async def read(self, position: int, size: int) -> bytes:
        """Give at least one byte, as soon as it is written; none at the end."""
        if self._other is None:
            await self._growing.until(position)
            data = await self._growing.read(position, size)
            if data or self._growing.error is None:
                return data
            if self._instead is None or not isinstance(self._growing.error, DiskFull):
                raise self._growing.error
            other = await self._instead()
            if self._closed:
                other.close()
                return b""
            self._other = other
        return await self._other.read(position, size)

    def close(self) -> None:
        """Follow no more; once more does no harm."""
        if not self._closed:
            self._closed = True
            self._growing.release()
            if self._other is not None:
                self._other.close()
