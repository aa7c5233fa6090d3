"""
Keep blobs as files that are there whole or not at all, in no more bytes than are allowed.
Blocking: for threads, of which several may call at once.

::

    blobs/sha256/ab/abcd…       a blob; may be deleted at any time, it comes back
    blobs/sha256/ab/abcd….gzip  the same blob in an HTTP content-coding
    partial/<n>                 not yet whole, or on its way out; emptied at start
    boot                        which start of the machine the blobs were last checked in

What was pulled longest ago makes room for what is written. The order is in memory, and
as the files' access times on disk, which the kernel keeps as well.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count, groupby
from math import inf
from pathlib import Path
from threading import RLock
from typing import BinaryIO, cast

from attrs import define, field, frozen

from forgereg.blobs.check import CODINGS, is_right
from forgereg.blobs.index import Index
from forgereg.blobs.names import files, name_of, parse
from forgereg.blobs.stage import Opened, Stage
from forgereg.logs import logger
from forgereg.oci.reference import Digest

_log = logger(__name__)

#: How old the access time on disk becomes before it is set anew, in seconds.
_TOUCH_SECONDS = 300.0
#: How long the kernel may take to write a file to the disk, in seconds, and then some.
#: Source: vm.dirty_expire_centisecs, which is 30 s by default.
_UNSAFE_SECONDS = 120.0


@frozen
class Stored:
    """
    A blob's file, and those of its encoded forms.

    :ivar size: of all of them, in bytes.
    :ivar written_at: the last of them, in seconds since the epoch.
    """

    digest: Digest
    size: int
    written_at: float


@define(eq=False)
class BlobStore:
    """
    The blobs below one directory.

    :ivar root: holds ``blobs`` and ``partial``, so that both are on one file system.
    :ivar max_bytes: of all files, those that are being written included; 0 for any. May
        be changed at any time; the next write, or `trim`, goes by it.
    :ivar now: gives seconds since the epoch.
    :ivar is_surveyed: whether all that lies there has been found.
    :ivar lock: held for no longer than it takes to rename a file.
    """

    root: Path
    max_bytes: int = 0
    _now: Callable[[], float] = time.time
    is_surveyed: bool = field(init=False, default=False)
    lock: RLock = field(init=False, factory=RLock)
    _surveying: RLock = field(init=False, factory=RLock)
    _index: Index = field(init=False, factory=Index)
    _partial_bytes: int = field(init=False, default=0)
    _numbers: Iterator[int] = field(init=False, factory=count)
    #: What was written since then, in an earlier run, has to be checked; None for none.
    _unsafe_since: float | None = field(init=False, default=None)
    _boot_id: str = field(init=False, default="")
    #: What was removed during a survey.
    _removed: set[str] | None = field(init=False, default=None)
    _is_told: bool = field(init=False, default=False)

    @property
    def bytes(self) -> int:
        """How much all files take, in bytes, as far as they have been surveyed."""
        return self._index.bytes + self._partial_bytes

    def prepare(self, boot_id: str = "") -> None:
        """
        Make the directories, and drop what an earlier process left half done. Quick.

        Layers are not forced to the disk, so a power cut may tear those written last.
        They are not given out until `survey` has checked them.

        :param boot_id: another one whenever the machine was started; empty where that
            cannot be known, and then nothing is checked.
        """
        halves, blobs = self.root / "partial", self.root / "blobs"
        if halves.exists():
            shutil.rmtree(halves)
        halves.mkdir(parents=True)
        blobs.mkdir(exist_ok=True)
        try:
            last_id = (self.root / "boot").read_text()
        except (OSError, ValueError):
            last_id = ""
        self._boot_id = boot_id
        if boot_id and last_id != boot_id:
            # Folders change when something is put into them.
            changes = [each.stat().st_mtime for each in blobs.glob("*/??")]
            self._unsafe_since = max(changes, default=0.0) - _UNSAFE_SECONDS

    def survey(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """
        Find out what is there and check what may be torn; then make room. Slow.

        :param stopping: whether to give up; asked often.
        """
        with self._surveying:
            if self._survey(stopping):
                self.trim()

    def _survey(self, stopping: Callable[[], bool]) -> bool:
        self._removed = set()
        unsafe_since = inf if self._unsafe_since is None else self._unsafe_since
        found = []
        for name, stat in files(self.root / "blobs"):
            if stat.st_mtime < unsafe_since or self._is_safe(name, stopping):
                found.append((stat.st_atime, name, stat.st_size))
            if stopping():
                return False
        found.sort()
        sizes = OrderedDict((name, size) for _, name, size in found)
        with self.lock:
            for name in self._removed:
                sizes.pop(name, None)
            self._index.put_before(sizes)
            self._removed = self._unsafe_since = None
        self.is_surveyed = True
        if self._boot_id:
            with suppress(OSError):  # it is checked again, then
                (self.root / "boot").write_text(self._boot_id)
        return True

    def _is_safe(self, name: str, stopping: Callable[[], bool]) -> bool:
        """Check a file that may be torn; drop it where it is."""
        with self.lock:
            if name in self._index:  # written since the start
                return True
        digest, coding = parse(name)
        with suppress(OSError), self._path(name).open("rb", buffering=0) as file:
            # An encoded form is made again faster than it is checked.
            is_whole = not coding and is_right(file, digest, stopping)
            if not is_whole and not stopping():
                self.drop(name, os.fstat(file.fileno()).st_ino)
                _log.warn("dropped after a power cut: {name}", name=name)
                return False
        return True

    def open(
        self, digest: Digest, size: int | None, coding: str = ""
    ) -> BinaryIO | None:
        """
        Open a blob, or an encoded form of it, to be sent.

        :param size: that it must have, in bytes; None for any. What is of another size
            is dropped.
        :returns: unbuffered; it is in use until the caller closes it. None where there
            is none.
        """
        name = name_of(digest, coding)
        file = self._open(name, True)
        if file is None:
            return None
        found = os.fstat(file.fileno())
        wrong = size is not None and found.st_size != size
        with self.lock:
            unsafe = self._unsafe_since
            torn = unsafe is not None and found.st_mtime >= unsafe
            if wrong or (torn and name not in self._index):
                file.close()
                if wrong:
                    self.drop(name, found.st_ino)
                return None
            if name in self._index or self._is_there(name, found.st_ino):
                self._index.put(name, found.st_size)
        if abs(self._now() - found.st_atime) > _TOUCH_SECONDS:
            with suppress(OSError):  # a read-only disk
                now = int(self._now() * 1e9)
                os.utime(file.fileno(), ns=(now, found.st_mtime_ns))
        return file

    def inspect(self, digest: Digest, coding: str = "") -> BinaryIO | None:
        """Open as `open` does, of any size, without counting that as a pull."""
        return self._open(name_of(digest, coding), False)

    def _open(self, name: str, is_use: bool) -> BinaryIO | None:
        self.pin(name)
        try:
            file = Opened(self._path(name), partial(self.unpin, name), is_use)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            with self.lock:
                self.unpin(name)
                if not self._path(name).exists():
                    self._index.remove(name)
            return None
        except OSError:
            self.unpin(name)
            raise
        return cast(BinaryIO, file)

    def stage(self) -> Stage:
        """Give a place for new blobs; what was not kept is gone when it is left."""
        with self.lock:
            return Stage(self, self._index.moment())

    def trim(self) -> None:
        """Let go of what is over the budget, but for what is in use."""
        while self.max_bytes:
            with self.lock:  # others have their turn after each file
                is_over = self.bytes > self.max_bytes
                names, _ = self._index.choose(int(is_over))
                gone = [self._set_aside(name) for name in names]
            if not gone:
                break
            _unlink(gone)

    def all(self) -> Iterator[Stored]:
        """List the blobs, in no order; what else lies between them is passed over."""
        for digest, forms in groupby(
            files(self.root / "blobs"), lambda each: parse(each[0])[0]
        ):
            stats = [stat for _, stat in forms]
            size = sum(stat.st_size for stat in stats)
            yield Stored(digest, size, max(stat.st_mtime for stat in stats))

    def delete(self, digest: Digest, written_before: float = inf) -> int | None:
        """
        Delete a blob and its encoded forms; who has them open reads on.

        :param written_before: what is as young as this stays, in seconds since the
            epoch.
        :returns: their size in bytes; None where it stays or is not there.
        """
        sizes: list[int] = []
        gone: list[Path] = []
        with self.lock:
            for coding in CODINGS:
                name = name_of(digest, coding)
                with suppress(FileNotFoundError):
                    found = self._path(name).lstat()
                    if found.st_mtime < written_before:
                        sizes.append(found.st_size)
                        gone.append(self._set_aside(name))
        _unlink(gone)
        return sum(sizes) if sizes else None

    def drop(self, name: str, inode: int) -> None:
        """Delete an entry that is damaged, unless it was replaced meanwhile."""
        with self.lock:
            gone = [self._set_aside(name)] if self._is_there(name, inode) else []
        _unlink(gone)

    def path(self, digest: Digest) -> Path:
        """Say where the blob of this digest lies, if it is there."""
        return self._path(name_of(digest, ""))

    def _path(self, name: str) -> Path:
        return self.root / "blobs" / name

    def _is_there(self, name: str, inode: int) -> bool:
        with suppress(OSError):
            return self._path(name).lstat().st_ino == inode
        return False

    def _set_aside(self, name: str) -> Path:
        """Have an entry no more; give what to unlink without the lock, which may take."""
        self._index.remove(name)
        if self._removed is not None:
            self._removed.add(name)
        path, aside = self._path(name), self.new_partial()
        try:
            path.rename(aside)
        except OSError:  # a full disk, which may have no room for a name
            _unlink([path])
        return aside

    # What follows is for `forgereg.blobs.stage`.

    def new_partial(self) -> Path:
        """Give a path that nobody else has."""
        return self.root / "partial" / str(next(self._numbers))

    def has_room(self, size: int, before: int) -> bool:
        """Whether there could be room for a file, or is for all that is known."""
        with suppress(OSError):
            disk = os.statvfs(self.root)
            missing = size - disk.f_bavail * disk.f_frsize
            with self.lock:
                if self._index.choose(missing, before)[1] < missing:
                    return False
        with self.lock:
            missing = self.bytes + size - self.max_bytes
            return (
                not self.max_bytes or self._index.choose(missing, before)[1] >= missing
            )

    def reserve(self, size: int, before: int) -> bool:
        """Make room for bytes that are about to be written; False where there is none."""
        with self.lock:
            gone: list[Path] = []
            missing = self.bytes + size - self.max_bytes
            if self.max_bytes and missing > 0:
                names, found = self._index.choose(missing, before)
                if found < missing:
                    return False
                gone = [self._set_aside(name) for name in names]
            self._partial_bytes += size
        _unlink(gone)
        return True

    def give_way(self, size: int, before: int) -> bool:
        """Let go of something because the disk is full; False where there is nothing."""
        with self.lock:
            names, found = self._index.choose(size, before)
            gone = [self._set_aside(name) for name in names]
        _unlink(gone)
        return found > 0

    def give_back(self, path: Path, size: int) -> None:
        """Delete a file that is not kept."""
        _unlink([path])
        with self.lock:
            self._partial_bytes -= size

    def adopt(self, path: Path, size: int, digest: Digest, coding: str) -> str:
        """Make a written file an entry; give its name. The lock is held."""
        name = name_of(digest, coding)
        target = self._path(name)
        try:
            path.rename(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        self._partial_bytes -= size
        self._index.put(name, size)
        self._is_told = False
        return name

    def pin(self, name: str, count: int = 1) -> None:
        """Let an entry be in use."""
        with self.lock:
            self._index.pin(name, count)

    def unpin(self, name: str) -> None:
        """Undo `pin` once."""
        with self.lock:
            self._index.unpin(name)

    def tell(self, error: OSError) -> None:
        """Warn the operator of a disk that fails, once until it works again."""
        if not self._is_told:
            self._is_told = True
            _log.warn("layers cannot be kept: {error}", error=error)


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()
