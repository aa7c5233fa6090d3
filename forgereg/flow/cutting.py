"""
Cut blobs out of an archive, by the places at which they lie in what it unpacks to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from attrs import define, field, frozen

from forgereg.blobs.stage import Partial, Stage
from forgereg.blobs.store import BlobStore
from forgereg.flow.growing import Growing
from forgereg.flow.source import FileSource
from forgereg.flow.threads import InThread
from forgereg.oci.errors import ArchiveInvalid, DiskFull, RegistryError, ShuttingDown
from forgereg.records.records import KnownBlob

#: How much is unpacked before other work has its turn, in bytes.
STEP = 4 * 2**20


class Opened(Protocol):
    """
    What an archive unpacks to.

    :ivar in_reader: where it is read.
    """

    @property
    def in_reader(self) -> InThread: ...

    def read(self, size: int) -> bytes:
        """
        Give the next bytes: so many, or fewer at the end, or once it is closed.

        Blocking.

        :raises RegistryError: they cannot be had.
        """

    def close(self) -> None:
        """Let go of it at once, also while a thread reads; does not block."""


#: Opens what an archive unpacks to.
Open = Callable[[], Coroutine[Any, Any, Opened]]


@frozen
class Piece:
    """A blob that is to be cut out."""

    blob: KnownBlob
    growing: Growing


@define(eq=False)
class Cutting:
    """
    One pass over an archive.

    :ivar pieces: in the order in which they lie there.
    :ivar stopping: whether to give up.
    """

    pieces: Sequence[Piece]
    _open: Open
    _blobs: BlobStore
    _in_thread: InThread
    _stopping: Callable[[], bool]
    _opened: Opened | None = field(init=False, default=None)
    _position: int = field(init=False, default=0)

    async def run(self) -> None:
        """
        Write every blob for which there is room, and tell those who follow.

        :raises RegistryError: not all of it could be had, or it was something else.
        :raises OSError: the archive cannot be read.
        """
        error: RegistryError = ArchiveInvalid("the archive cannot be read")
        stack = ExitStack()
        try:
            stage = await self._in_thread(stack.enter_context, self._blobs.stage())
            for piece in self.pieces:
                await self._cut(stage, piece)
        except RegistryError as e:
            error = e
            raise
        finally:
            if self._opened is not None:
                self._opened.close()
            for piece in self.pieces:
                piece.growing.finish(error)
            await self._in_thread(stack.close)

    async def _cut(self, stage: Stage, piece: Piece) -> None:
        blob, growing = piece.blob, piece.growing
        no_room = DiskFull(f"there is no room for {blob.digest}")
        partial = await self._in_thread(stage.partial, blob.size)
        reader = await self._in_thread(partial.reader)
        if reader is None:
            return growing.finish(no_room)
        growing.begin(FileSource(reader, blob.size, self._in_thread))
        if self._opened is None:
            self._opened = await self._open()
        opened = self._opened
        await self._skip(opened, blob.place.offset - self._position)
        hashed = hashlib.new(blob.digest.algorithm)
        written = 0
        while written < blob.size:
            # What comes last waits until it is known that all is right.
            growing.advance(written)
            self._go_on()
            size = min(STEP, blob.size - written)
            count = await opened.in_reader(_copy, opened, size, hashed, partial)
            _check_whole(blob, count, size)
            written += count
            self._position += count
            if partial.is_lost:
                return growing.finish(no_room)
        _check_digest(blob, hashed.hexdigest())
        await self._in_thread(partial.keep, blob.digest)
        growing.advance(written)
        growing.finish()

    async def _skip(self, opened: Opened, size: int) -> None:
        while size > 0:
            self._go_on()
            count = await opened.in_reader(_skip, opened, size)
            size -= count
            self._position += count

    def _go_on(self) -> None:
        if self._stopping():
            raise ShuttingDown("the registry is shutting down; pull again")


@define(eq=False)
class Straight:
    """
    A blob that is read out of its archive while it is sent; nothing is kept.

    Who wants a stretch behind one that was read already has the archive opened again.

    :ivar failed: is told why it cannot be read.
    """

    _blob: KnownBlob
    _open: Open
    _failed: Callable[[Exception], object]
    _opened: Opened | None = field(init=False, default=None)
    #: of the next byte, in what the archive unpacks to
    _at: int = field(init=False, default=0)
    #: of what went by since the blob's begin
    _hashed: Any = field(init=False, default=None)
    _closed: bool = field(init=False, default=False)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._blob.size

    @property
    def extent(self) -> None:
        """Nowhere."""

    def peek(self, position: int, size: int) -> bytes:
        """Give nothing: unpacking takes its time."""
        return b""

    async def begin(self) -> Opened:
        """
        Open the archive.

        :raises RegistryError: it cannot be opened.
        :raises FileNotFoundError: it is gone.
        """
        self._let_go()
        opened = await self._open()
        if self._closed:
            opened.close()
        self._opened, self._at = opened, 0
        self._hashed = hashlib.new(self._blob.digest.algorithm)
        return opened

    async def read(self, position: int, size: int) -> bytes:
        """
        Give at least one byte; none at the end.

        :raises RegistryError: it cannot be had, or was read to its end, and is not
            what it was.
        """
        size = min(size, self._blob.size - position)
        if size <= 0:
            return b""
        try:
            return await self._read(self._blob.place.offset + position, size)
        except (RegistryError, OSError) as e:
            if self._closed:
                return b""
            self._failed(e)
            if isinstance(e, OSError):
                archive = self._blob.source.archive
                raise ArchiveInvalid(f"{archive} cannot be read") from e
            raise

    async def _read(self, wanted: int, size: int) -> bytes:
        opened = self._opened
        if opened is None or wanted < self._at:
            opened = await self.begin()
        start = self._blob.place.offset
        while self._at < wanted:
            goal = start if self._at < start else wanted
            await self._take(opened, min(STEP, goal - self._at))
        return await self._take(opened, size)

    async def _take(self, opened: Opened, size: int) -> bytes:
        blob = self._blob
        hashed = self._hashed if self._at >= blob.place.offset else None
        data = await opened.in_reader(_read, opened, size, hashed)
        _check_whole(blob, len(data), size)
        self._at += len(data)
        if self._at == blob.place.offset + blob.size:
            _check_digest(blob, self._hashed.hexdigest())
        return data

    def close(self) -> None:
        """Let go of the archive; once more does no harm."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._opened is not None:
            self._opened.close()


def _copy(opened: Opened, size: int, hashed: Any, partial: Partial) -> int:
    """Write the next bytes to a file; give how many. Blocking."""
    data = opened.read(size)
    hashed.update(data)
    partial.write(data)
    return len(data)


def _read(opened: Opened, size: int, hashed: Any) -> bytes:
    """Blocking."""
    data = opened.read(size)
    if hashed is not None:
        hashed.update(data)
    return data


def _skip(opened: Opened, size: int) -> int:
    """Let some bytes go by; give how many. Blocking."""
    data = opened.read(min(STEP, size))
    if not data:
        raise ArchiveInvalid("the archive is shorter than it was")
    return len(data)


def _check_whole(blob: KnownBlob, count: int, size: int) -> None:
    if count < size:
        raise ArchiveInvalid(f"{blob.source.archive} ends within {blob.digest}")


def _check_digest(blob: KnownBlob, found: str) -> None:
    if found != blob.digest.encoded:
        archive, digest = blob.source.archive, blob.digest
        if not blob.place.offset:
            raise ArchiveInvalid(
                f"{archive} says how to make {digest}, and that makes something else:"
                " build the image anew"
            )
        raise ArchiveInvalid(f"{archive} no longer holds {digest} where it was")
