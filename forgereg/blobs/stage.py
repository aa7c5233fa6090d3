"""
Files that are being written, and become entries of a store when they are whole.

There is no error for a lack of room: a file is lost then, and who writes it goes on.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from attrs import define, field

from forgereg.oci.reference import Digest

if TYPE_CHECKING:
    from forgereg.blobs.store import BlobStore

#: What says that there is no room; EFBIG by a limit on how large files may be.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Opened(io.FileIO):
    """A file that says when it is closed."""

    def __init__(
        self, path: Path, released: Callable[[], object], is_use: bool = True
    ) -> None:
        """:param is_use: whether reading it may change the time of its last access."""
        super().__init__(path, "rb", opener=_open if is_use else _open_unnoticed)
        self._released = released
        if not S_ISREG(os.fstat(self.fileno()).st_mode):
            super().close()
            raise FileNotFoundError(errno.ENOENT, "it is no file", str(path))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._released()


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # else a named pipe waits for ever


def _open_unnoticed(path: str, flags: int) -> int:
    try:
        return _open(path, flags | os.O_NOATIME)
    except PermissionError:  # it belongs to somebody else
        return _open(path, flags)


@define(eq=False)
class Stage:
    """
    One pass that writes files, for as long as it likes.

    What it has written so far, and what others have used since it began, does not make
    room for what it still writes. Leaving it drops what was not kept.
    """

    _store: BlobStore
    _began: int
    _partials: set[Partial] = field(init=False, factory=set)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def partial(self, expected_bytes: int | None = None) -> Partial:
        """
        Begin a file.

        :param expected_bytes: how large it will be; if there can be no room for that,
            it is lost from the begin, and nothing is let go of in vain.
        """
        partial = Partial(
            self._store,
            self._began,
            self._store.new_partial(),
            self._partials.discard,
        )
        self._partials.add(partial)
        partial.begin(expected_bytes)
        return partial

    def close(self) -> None:
        """Drop every file that was not kept; doing so again does no harm."""
        for partial in list(self._partials):
            partial.drop()


@define(eq=False)
class Partial:
    """
    A file that is being written.

    One thread at a time writes, keeps and drops; `reader` is for any.

    :ivar size: how much was written, in bytes.
    :ivar is_lost: whether there is no room for it: nothing of it is left, and writing
        and keeping it do nothing.
    """

    _store: BlobStore
    _began: int
    _path: Path
    _ended: Callable[[Partial], object]
    size: int = field(init=False, default=0)
    is_lost: bool = field(init=False, default=False)
    _file: io.FileIO | None = field(init=False, default=None)
    _is_over: bool = field(init=False, default=False)
    _readers: int = field(init=False, default=0)
    _kept_as: str | None = field(init=False, default=None)

    @property
    def is_open(self) -> bool:
        """Whether it was neither kept nor dropped so far, nor is lost."""
        return not self._is_over

    def begin(self, expected_bytes: int | None) -> None:
        """Make the file; `Stage.partial` does so."""
        if not self._store.has_room(expected_bytes or 0, self._began):
            return self._lose()
        try:
            self._file = self._create()
        except OSError as e:
            self._fail(e)

    def _create(self) -> io.FileIO:
        while True:
            try:
                return io.FileIO(self._path, "xb")
            except FileNotFoundError:  # somebody may have tidied up
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                if e.errno not in _NO_ROOM or not self._store.give_way(1, self._began):
                    raise

    def write(self, data: bytes | memoryview) -> None:
        """Write more; where there is no room, it is lost."""
        if self._file is None:
            return
        rest = memoryview(data).cast("B")
        if not self._store.reserve(len(rest), self._began):
            return self._lose()
        self.size += len(rest)
        while rest:
            try:
                rest = rest[self._file.write(rest) or 0 :]
            except OSError as e:
                full = e.errno in _NO_ROOM
                if not full or not self._store.give_way(len(rest), self._began):
                    return self._fail(e)

    def close(self) -> None:
        """Write no more; it can still be kept. Spares a file descriptor."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as e:  # a network's disk tells only now
                self._fail(e)
            self._file = None

    def keep(self, digest: Digest, coding: str = "") -> None:
        """
        Make it the blob of this digest, or an encoded form of it, whole and at once.

        :param digest: of what was written, decoded: the caller has computed it while
            it wrote. Here only the length is compared with what the disk has.
        """
        self.close()
        if self.is_lost or self._is_over:
            return
        try:
            if self._path.stat().st_size != self.size:
                raise OSError(errno.EIO, "the disk has not kept all that was written")
            with self._store.lock:
                name = self._store.adopt(self._path, self.size, digest, coding)
                self._store.pin(name, self._readers)
                self._kept_as = name
        except OSError as e:
            return self._fail(e)
        self._end()

    def drop(self) -> None:
        """Let go of it, unless it was kept."""
        if not self._is_over:
            self._end()
            self._store.give_back(self._path, self.size)
            if self._file is not None:
                self._file.close()
                self._file = None

    def reader(self) -> BinaryIO | None:
        """
        Open what was written so far, and what will be.

        :returns: unbuffered; it ends where the writer is, and stays readable when the
            file is kept or dropped. None once it is: then the store has it, or nobody.
        """
        with self._store.lock:
            if self._is_over:
                return None
            try:
                file = Opened(self._path, self._left)
            except FileNotFoundError:
                return None
            self._readers += 1
            return cast(BinaryIO, file)

    def _left(self) -> None:
        with self._store.lock:
            self._readers -= 1
            if self._kept_as is not None:
                self._store.unpin(self._kept_as)

    def _end(self) -> None:
        self._is_over = True
        self._ended(self)

    def _fail(self, error: OSError) -> None:
        if error.errno not in _NO_ROOM:
            self._store.tell(error)
        self._lose()

    def _lose(self) -> None:
        self.is_lost = True
        self.drop()
