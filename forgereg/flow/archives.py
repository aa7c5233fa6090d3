"""
From what nix built to the images in it, and their blobs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from attrs import define, field

from forgereg.archive.layout import Packed
from forgereg.archive.scan import scan
from forgereg.blobs.store import BlobStore
from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.families import Wanted, images_in
from forgereg.flow.once import Once
from forgereg.flow.report import State
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.store import Store
from forgereg.oci.errors import ArchiveInvalid, DiskFull, NameUnknown

_log = logger(__name__)

#: How many names a message lists.
_NAMES_SHOWN = 20


@define
class Archives:
    """
    The archives in the Nix store; each is read once for all who wait for it.

    :ivar max_bytes: of an archive when it is unpacked.
    :ivar clock: gives seconds that only ever go forwards.
    :ivar in_reader: where archives are read: as many at a time as there are cores.
    """

    _store: Store
    _blobs: BlobStore
    _failures: Failures
    _max_bytes: int
    _clock: Callable[[], float]
    _in_thread: InThread
    _in_reader: InThread
    _stopping: bool = field(init=False, default=False)
    _scans: Once[str, tuple[Packed, ...]] = field(init=False, factory=Once)

    def stop(self) -> None:
        """Give up what is being read."""
        self._stopping = True

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

    async def read(self, errand: Errand, archive: str) -> tuple[Packed, ...]:
        """
        Read an archive, and keep its blobs.

        :raises ArchiveInvalid: it cannot be served.
        :raises DiskFull: there is no room for the layers.
        :raises FileNotFoundError: it is not there.
        """
        errand.enter(State.READING)

        async def read() -> tuple[Packed, ...]:
            start = self._clock()
            packed = await self._in_reader(self._scan, archive)
            _log.info(
                "{image}: {archive} read in {seconds:.1f} s",
                image=errand.image,
                archive=archive,
                seconds=self._clock() - start,
            )
            return packed

        try:
            return await errand.share(
                lambda: self._scans.do(
                    archive, lambda: self._failures.mind(archive, read)
                )
            )
        except (ArchiveInvalid, DiskFull) as e:
            _log.warn("{image}: {error}", image=errand.image, error=e)
            raise

    def _scan(self, archive: str) -> tuple[Packed, ...]:
        """Read an archive. Blocking."""
        real = self._store.locate(archive)[1]
        try:
            with self._blobs.stage() as stage:
                return scan(real, stage, self._max_bytes, lambda: self._stopping)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("the registry's disk has no room for the layers") from e
            raise

    async def read_built(self, errand: Errand, archive: str) -> tuple[Packed, ...]:
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
