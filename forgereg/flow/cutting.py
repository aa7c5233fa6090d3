"""
Cut blobs out of an archive, by the places at which they lie in what it unpacks to.
"""

from __future__ import annotations

import errno
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

_NO_ROOM = "there is no room for the unpacked layer"
#: How much is unpacked before other work has its turn, in bytes.
STEP = 4 * 2**20


class Opened(Protocol):
    """What an archive unpacks to."""

    def read(self, size: int) -> bytes:
        """
        Give the next bytes, at most so many; none at the end, or once it is closed.

        Blocking.
        """

    def close(self) -> None:
        """Let go of it at once, also while a thread reads; does not block."""


#: What the system says where there is no room for a file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

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
    _in_reader: InThread
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
        except OSError as e:
            if e.errno in NO_ROOM:
                error = DiskFull(_NO_ROOM)
            raise
        finally:
            if self._opened is not None:
                self._opened.close()
            for piece in self.pieces:
                piece.growing.finish(error)
            await self._in_thread(stack.close)

    async def _cut(self, stage: Stage, piece: Piece) -> None:
        blob, growing = piece.blob, piece.growing
        partial = await self._in_thread(stage.partial, blob.size)
        reader = await self._in_thread(partial.reader)
        if reader is None:
            growing.finish(DiskFull(_NO_ROOM))
            return
        growing.begin(FileSource(reader, blob.size, self._in_thread))
        if self._opened is None:
            self._opened = await self._open()
        opened = self._opened
        await self._skip(opened, blob.place.offset - self._position)
        hashed = hashlib.sha256()
        written = 0
        while written < blob.size and not partial.is_lost:
            self._go_on()
            size = min(STEP, blob.size - written)
            data = await self._in_reader(opened.read, size)
            _check_some(blob, data)
            await self._in_reader(_write, data, hashed, partial)
            written += len(data)
            self._position += len(data)
            # The last byte waits until it is known that all are right.
            growing.advance(min(written, blob.size - 1))
        if partial.is_lost:
            growing.finish(DiskFull(_NO_ROOM))
            return
        _check_digest(blob, hashed.hexdigest())
        await self._in_thread(partial.keep, blob.digest)
        growing.advance(written)
        growing.finish()

    async def _skip(self, opened: Opened, size: int) -> None:
        while size > 0:
            self._go_on()
            count = await self._in_reader(_skip, opened, size)
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
    """

    _blob: KnownBlob
    _open: Open
    _in_reader: InThread
    _opened: Opened | None = field(init=False, default=None)
    #: of the next byte, in what the archive unpacks to
    _at: int = field(init=False, default=0)
    #: of what went by since the blob's begin; None where that was skipped
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
        self._opened, self._at, self._hashed = opened, 0, None
        return opened

    async def read(self, position: int, size: int) -> bytes:
        """
        Give at least one byte; none at the end.

        :raises ArchiveInvalid: it was read from the begin, and is not what it was.
        """
        size = min(size, self._blob.size - position)
        if size <= 0:
            return b""
        wanted = self._blob.place.offset + position
        opened = self._opened
        if opened is None or wanted < self._at:
            opened = await self.begin()
        while self._at < wanted:
            self._hashed = None
            size_to_go = wanted - self._at
            self._at += await self._in_reader(_skip, opened, size_to_go)
        if not position:
            self._hashed = hashlib.sha256()
        data = await self._in_reader(_read, opened, size, self._hashed)
        if self._closed:
            return b""
        _check_some(self._blob, data)
        self._at += len(data)
        if position + len(data) == self._blob.size and self._hashed is not None:
            _check_digest(self._blob, self._hashed.hexdigest())
        return data

    def close(self) -> None:
        """Let go of the archive; once more does no harm."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._opened is not None:
            self._opened.close()


def _write(data: bytes, hashed: Any, partial: Partial) -> None:
    """Blocking."""
    hashed.update(data)
    partial.write(data)


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


def _check_some(blob: KnownBlob, data: bytes) -> None:
    if not data:
        raise ArchiveInvalid(f"{blob.source.archive} ends within {blob.digest}")


def _check_digest(blob: KnownBlob, found: str) -> None:
    if found != blob.digest.encoded:
        raise ArchiveInvalid(
            f"{blob.source.archive} no longer holds {blob.digest} where it was"
        )
