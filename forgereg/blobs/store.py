"""
Keep blobs as files that are there whole or not at all. Blocking: for threads.

::

    blobs/sha256/ab/abcd…   a blob; may be deleted at any time, it comes back
    partial/<stage>/<n>     not yet whole; emptied at start
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from math import inf
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from attrs import define, field, frozen

from forgereg.oci.errors import DigestInvalid
from forgereg.oci.reference import Digest, parse_digest


@frozen
class Stored:
    """
    A blob's file.

    :ivar size: in bytes.
    :ivar written_at: in seconds since the epoch.
    """

    digest: Digest
    size: int
    written_at: float


@frozen
class BlobStore:
    """
    The blobs below one directory.

    :ivar root: holds ``blobs`` and ``partial``, so that both are on one file system.
    """

    root: Path

    def prepare(self) -> None:
        """Make the directories, and drop what an earlier process left half done."""
        partial = self.root / "partial"
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        (self.root / "blobs").mkdir(exist_ok=True)

    def open(self, digest: Digest, size: int) -> BinaryIO | None:
        """
        Open a blob for reading.

        :param size: that it must have, in bytes.
        :returns: a file that the caller closes; None where there is none of that size.
        """
        try:
            file = self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            return None
        if file.seek(0, 2) != size:
            file.close()
            return None
        file.seek(0)
        return file

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """Give a place for new blobs; what was not kept is gone when it is left."""
        partial = self.root / "partial"
        partial.mkdir(parents=True, exist_ok=True)  # somebody may have tidied up
        folder = Path(tempfile.mkdtemp(dir=partial))
        stage = Stage(folder, self)
        try:
            yield stage
        finally:
            stage.close()
            shutil.rmtree(folder, ignore_errors=True)

    def all(self) -> Iterator[Stored]:
        """List the blobs, in no order; what else lies between them is passed over."""
        for path in (self.root / "blobs").glob("*/??/*"):
            try:
                digest = parse_digest(f"{path.parts[-3]}:{path.name}")
                found = path.lstat()
            except (DigestInvalid, FileNotFoundError):
                continue
            if S_ISREG(found.st_mode) and path == self.path(digest):
                yield Stored(digest, found.st_size, found.st_mtime)

    def delete(self, digest: Digest, written_before: float = inf) -> int | None:
        """
        Delete a blob; who has it open reads on.

        :param written_before: what is as young as this stays, in seconds since the
            epoch.
        :returns: its size in bytes; None where it stays or is not there.
        """
        path = self.path(digest)
        try:
            found = path.lstat()
            if found.st_mtime >= written_before:
                return None
            path.unlink()
        except FileNotFoundError:
            return None
        return found.st_size

    def path(self, digest: Digest) -> Path:
        """Say where the blob of this digest lies, if it is there."""
        encoded = digest.encoded
        return self.root / "blobs" / digest.algorithm / encoded[:2] / encoded


@define
class Stage:
    """Files that are being written."""

    _folder: Path
    _store: BlobStore
    _partials: list[Partial] = field(init=False, factory=list)
    _numbers: Iterator[int] = field(init=False, factory=count)

    def partial(self) -> Partial:
        """Begin a file."""
        self.close()
        path = self._folder / str(next(self._numbers))
        partial = Partial(path.open("w+b"), path, self._store)
        self._partials.append(partial)
        return partial

    def close(self) -> None:
        """Close every file, whatever its state."""
        for partial in self._partials:
            with suppress(OSError):  # a full disk may refuse the rest of a buffer
                partial.file.close()
        self._partials.clear()


@frozen
class Partial:
    """A file that becomes a blob when it is kept."""

    file: BinaryIO
    _path: Path
    _store: BlobStore

    def write(self, data: memoryview | bytes) -> None:
        """Go on writing."""
        self.file.write(data)

    def keep(self, digest: Digest) -> None:
        """
        Make it the blob of this digest, whole and at once.

        :param digest: of what was written, which the caller has computed; the file
            is closed by then.
        """
        self.file.close()
        target = self._store.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path.rename(target)
