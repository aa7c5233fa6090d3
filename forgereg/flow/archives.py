"""
From what nix built to the images in it, and their blobs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from attrs import define, field, frozen

from forgereg.archive.members import CHUNK
from forgereg.archive.nix2container import read_nix2container
from forgereg.archive.reading import Reading
from forgereg.archive.scan import scan, scan_stream
from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.archive.unpack import OPENERS
from forgereg.blobs.store import BlobStore
from forgereg.flow.contents import Contents, Found
from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.families import Wanted, images_in
from forgereg.flow.once import Once
from forgereg.flow.report import State
from forgereg.flow.slots import Slots
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.metrics import Metrics, timed
from forgereg.nix.outlet import Outlet
from forgereg.oci.errors import ArchiveInvalid, DiskFull, NameUnknown, ShuttingDown
from forgereg.oci.reference import Digest

_log = logger(__name__)

#: How many names a message lists.
_NAMES_SHOWN = 20


@frozen
class Read:
    """
    What an archive held when it was read.

    :ivar stamp: tells it from another one at its path.
    """

    reading: Reading
    stamp: str


@define
class Archives:
    """
    The archives in the Nix store; each is read once for all who wait for it.

    :ivar platform: what is served to clients that cannot choose, as ``linux/amd64``.
    :ivar max_bytes: of an archive when it is unpacked.
    :ivar clock: gives seconds that only ever go forwards.
    :ivar in_reader: where archives are read: as many at a time as there are cores.
    """

    _contents: Contents
    _blobs: BlobStore
    _slots: Slots
    _failures: Failures
    _platform: str
    _max_bytes: int
    _clock: Callable[[], float]
    _in_thread: InThread
    _in_reader: InThread
    _metrics: Metrics = field(factory=Metrics)
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
        path, real = self._contents.store.locate(output)
        if wanted.member is None:
            return path
        if not real.is_dir():
            raise ArchiveInvalid(
                f"{wanted.attribute}.{wanted.output} is not a directory of archives"
            )
        entries = images_in(os.listdir(real))
        if wanted.member not in entries:
            raise NameUnknown(_no_member(wanted, entries))
        return self._contents.store.locate(f"{path}/{entries[wanted.member]}")[0]

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
            with timed(self._metrics.reading_seconds, self._clock):
                found = await self._in_thread(self._contents.look, archive)
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
            return Read(reading, found.stamp)

        try:
            return await errand.share(
                lambda: self._scans.do(
                    archive, lambda: self._failures.mind(archive, read, errand.build_id)
                )
            )
        except (ArchiveInvalid, DiskFull) as e:
            _log.warn("{image}: {error}", image=errand.image, error=e)
            raise

    def _scan(self, found: Found) -> Reading:
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
                lambda name: self._contents.store.locate(f"{found.path}/{name}")[
                    1
                ].open("rb"),
            )

    def _read_description(self, found: Found) -> Reading:
        """Read what says how to make an image, and check what it says. Blocking."""
        reading = read_nix2container(found.text(), self._contents.store.real)
        for digest, place in reading.places.items():
            if place.is_plain:
                self._check(digest, place.path)
        return reading

    def _check(self, digest: Digest, path: str) -> None:
        hashed = hashlib.new(digest.algorithm)
        with self._contents.store.real(path).open("rb", buffering=0) as file:
            while data := file.read(CHUNK):
                hashed.update(data)
                if self._stopping:
                    raise ShuttingDown("the registry is shutting down; pull again")
        if hashed.hexdigest() != digest.encoded:
            raise ArchiveInvalid(f"{path} is not {digest}, as the image's JSON has it")

    async def _listen(self, errand: Errand, found: Found) -> Reading:
        """Read what a script writes."""
        async with self._slots.turn(errand, State.READING):
            return await self._contents.scripts.read(
                errand, found.path, self._scan_stream
            )

    def _scan_stream(self, file: Outlet) -> Reading:
        """Blocking."""
        kind = sniff(file.peek(HEAD_BYTES)[:HEAD_BYTES])
        if kind in OPENERS:
            raise ArchiveInvalid(f"the script writes {kind.value}: let it write tar")
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
