"""
From what nix built to the images in it, and their blobs.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable
from errno import ENOENT
from pathlib import Path
from stat import S_ISREG
from threading import Lock
from typing import BinaryIO

from attrs import define, field, frozen

from forgereg.archive.members import CHUNK
from forgereg.archive.nix2container import MAX_TEXT, open_blob, read_nix2container
from forgereg.archive.reading import Reading
from forgereg.archive.scan import scan, scan_stream
from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.archive.unpack import BROKEN, open_unpacked
from forgereg.blobs.store import BlobStore
from forgereg.flow.cutting import Opened
from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.families import Wanted, images_in
from forgereg.flow.once import Once
from forgereg.flow.report import State
from forgereg.flow.slots import Slots
from forgereg.flow.threads import InThread, or_drop
from forgereg.logs import logger
from forgereg.nix.outlet import Outlet
from forgereg.nix.store import Store
from forgereg.nix.stream import Scripts
from forgereg.oci.descriptor import Place
from forgereg.oci.errors import ArchiveInvalid, DiskFull, NameUnknown, ShuttingDown
from forgereg.oci.reference import Digest
from forgereg.records.records import KnownBlob, Source

_log = logger(__name__)

#: How many names a message lists.
_NAMES_SHOWN = 20
_SCRIPTS = (Kind.SCRIPT, Kind.PROGRAM)


@frozen
class Read:
    """
    What an archive held when it was read.

    :ivar stamp: tells it from another one at its path.
    """

    reading: Reading
    stamp: str


@frozen
class _Found:
    """
    What lies at a path of the store.

    :ivar kind: by its first bytes; None for a directory.
    """

    path: str
    real: Path
    kind: Kind | None
    status: os.stat_result

    @property
    def is_script(self) -> bool:
        return self.kind in _SCRIPTS and bool(self.status.st_mode & 0o111)


@define
class Archives:
    """
    The archives in the Nix store; each is read once for all who wait for it.

    :ivar platform: what is served to clients that cannot choose, as ``linux/amd64``.
    :ivar max_bytes: of an archive when it is unpacked.
    :ivar clock: gives seconds that only ever go forwards.
    :ivar in_reader: where archives are read: as many at a time as there are cores.
    """

    _store: Store
    _blobs: BlobStore
    _scripts: Scripts
    _slots: Slots
    _failures: Failures
    _platform: str
    _max_bytes: int
    _clock: Callable[[], float]
    _in_thread: InThread
    _in_reader: InThread
    _stopping: bool = field(init=False, default=False)
    _scans: Once[str, Read] = field(init=False, factory=Once)

    def stop(self) -> None:
        """Give up what is being read."""
        self._stopping = True

    def is_stopping(self) -> bool:
        """Whether what is being read is to be given up."""
        return self._stopping

    async def find(self, errand: Errand, output: str, wanted: Wanted) -> str:
        """
        Say where in what was built the archive lies.

        :returns: its store path.
        :raises NameUnknown: the application has no such image.
        :raises ArchiveInvalid: what was built cannot be served.
        """
        try:
            return await self._in_thread(self._find, output, wanted)
        except ArchiveInvalid as e:
            _log.warn("{image}: {error}", image=errand.image, error=e)
            raise
        except FileNotFoundError as e:
            raise _nothing_there(errand, e) from e

    def _find(self, output: str, wanted: Wanted) -> str:
        """Blocking."""
        path, real = self._store.locate(output)
        if wanted.member is None:
            return path
        if not real.is_dir():
            raise ArchiveInvalid(
                f"{wanted.attribute}.{wanted.output} is not a directory of archives"
            )
        entries = images_in(os.listdir(real))
        if wanted.member not in entries:
            raise NameUnknown(_no_member(wanted, entries))
        return self._store.locate(f"{path}/{entries[wanted.member]}")[0]

    async def read(self, errand: Errand, archive: str) -> Read:
        """
        Read an archive, and keep those of its blobs that have to be unpacked.

        :raises ArchiveInvalid: it cannot be served.
        :raises FileNotFoundError: it is not there.
        :raises RegistryError: it is a script, and failed.
        """
        errand.enter(State.READING)

        async def read() -> Read:
            start = self._clock()
            found = await self._in_thread(self._look, archive)
            if found.is_script:
                reading = await self._listen(errand, found)
            else:
                reading = await self._in_reader(self._scan, found)
            _log.info(
                "{image}: {archive} read in {seconds:.1f} s",
                image=errand.image,
                archive=archive,
                seconds=self._clock() - start,
            )
            return Read(reading, _stamp(found.status))

        try:
            return await errand.share(
                lambda: self._scans.do(
                    archive, lambda: self._failures.mind(archive, read)
                )
            )
        except (ArchiveInvalid, DiskFull) as e:
            _log.warn("{image}: {error}", image=errand.image, error=e)
            raise

    def _look(self, archive: str) -> _Found:
        """Say what an archive is. Blocking."""
        path, real = self._store.locate(archive)
        status = real.stat()
        kind = None
        if S_ISREG(status.st_mode):
            with real.open("rb") as file:
                kind = sniff(file.read(HEAD_BYTES))
        return _Found(path, real, kind, status)

    def _scan(self, found: _Found) -> Reading:
        """Blocking."""
        if found.kind is Kind.JSON:
            return self._read_description(found)
        with self._blobs.stage() as stage:
            return scan(
                found.real,
                stage,
                self._max_bytes,
                self._platform,
                self.is_stopping,
                lambda name: self._store.locate(f"{found.path}/{name}")[1].open("rb"),
            )

    def _read_description(self, found: _Found) -> Reading:
        """Read what says how to make an image, and check what it says. Blocking."""
        reading = read_nix2container(_text(found), self._store.real)
        for digest, place in reading.places.items():
            if place.is_plain:
                self._check(digest, place.path)
        return reading

    def _check(self, digest: Digest, path: str) -> None:
        hashed = hashlib.new(digest.algorithm)
        with self._store.real(path).open("rb", buffering=0) as file:
            while data := file.read(CHUNK):
                hashed.update(data)
                if self._stopping:
                    raise ShuttingDown("the registry is shutting down; pull again")
        if hashed.hexdigest() != digest.encoded:
            raise ArchiveInvalid(f"{path} is not {digest}, as the image's JSON has it")

    async def _listen(self, errand: Errand, found: _Found) -> Reading:
        """Read what a script writes."""
        async with self._slots.turn(errand, State.READING):
            return await self._scripts.read(errand, found.path, self._scan_stream)

    def _scan_stream(self, file: Outlet) -> Reading:
        """Blocking."""
        with self._blobs.stage() as stage:
            return scan_stream(
                file,
                stage,
                self._max_bytes,
                self._platform,
                self.is_stopping,
                file.abandon,
            )

    async def read_built(self, errand: Errand, archive: str) -> Read:
        """
        Read an archive that was built just now.

        :raises RegistryError: as `read`, or it is not where it should be.
        """
        try:
            return await self.read(errand, archive)
        except FileNotFoundError as e:
            raise _nothing_there(errand, e) from e

    def open_plain(self, source: Source, place: Place) -> BinaryIO | None:
        """
        Open the file that has a blob's bytes as they are. Blocking.

        :returns: None where the archive is not what was read.
        """
        path = posixpath.join(source.archive, place.path)
        try:
            if _stamp(self._store.locate(source.archive)[1].stat()) != source.stamp:
                return None
            return self._store.locate(path)[1].open("rb", buffering=0)
        except (OSError, ArchiveInvalid):
            return None

    async def open(self, errand: Errand, blob: KnownBlob) -> Opened:
        """
        Open what has a blob at its place, when it is unpacked.

        A script takes no build's place: it waits for whoever reads.

        :raises FileNotFoundError: it is gone, and maybe another one is there.
        :raises RegistryError: it cannot be opened.
        """
        source = blob.source
        found = await self._in_thread(self._look, source.archive)
        if source.stamp not in ("", _stamp(found.status)):
            raise FileNotFoundError(ENOENT, "another one is there", source.archive)
        if found.is_script:
            stream = await self._scripts.open(errand, found.path)
            return _Opened(stream.file, self._in_thread, stream.close)
        opening = self._in_thread(self._unpacked, found, blob.digest)
        file = await or_drop(opening, lambda each: each.close())
        return _Opened(file, self._in_thread)

    def _unpacked(self, found: _Found, digest: Digest) -> BinaryIO:
        """Blocking."""
        if found.kind is Kind.JSON:
            return open_blob(_text(found), digest, self._store.real)
        return open_unpacked(found.real)


def _text(found: _Found) -> bytes:
    """Read a file that should be nix2container's JSON. Blocking."""
    with found.real.open("rb") as file:
        return file.read(MAX_TEXT + 1)  # more than that is refused


def _ignore() -> None:
    pass


@define(eq=False)
class _Opened:
    """A file that is read in one thread and closed in another."""

    _file: BinaryIO
    _in_thread: InThread
    _on_close: Callable[[], object] = _ignore
    _closed: bool = field(init=False, default=False)
    _lock: Lock = field(init=False, factory=Lock)

    def read(self, size: int) -> bytes:
        with self._lock:
            try:
                return b"" if self._closed else self._file.read(size)
            except BROKEN as e:
                raise ArchiveInvalid(f"the archive is damaged: {e}") from e
            except OSError as e:
                raise ArchiveInvalid(f"the archive cannot be read: {e}") from e

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._on_close()
            self._in_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._file.close()


def _stamp(status: os.stat_result) -> str:
    """
    Tell a file or directory from another one that takes its place.

    Source: whatever is put into the Nix store has the same time of modification.
    """
    return f"{status.st_ino}-{status.st_size}-{status.st_ctime_ns}"


def _nothing_there(errand: Errand, error: FileNotFoundError) -> ArchiveInvalid:
    return ArchiveInvalid(
        f"{errand.image} leads to {error.filename}, and nothing is there;"
        " does FORGE_STORE name the store that nix builds in?"
    )


def _no_member(wanted: Wanted, entries: dict[str, str]) -> str:
    images = ", ".join(sorted(entries)[:_NAMES_SHOWN])
    hint = f"it has: {images}" if images else "it has none at all"
    return (
        f"the application {wanted.attribute!r} has no image {wanted.member!r}; {hint}"
    )
