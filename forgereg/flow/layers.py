"""
From what is known of a blob to its bytes, by the shortest way that there is.

::

    as they lie in the Nix store     uncompressed archives, OCI layout directories
    in the blob store                what was unpacked before
    while they are unpacked          into the blob store, for all who follow
    straight out of the archive      where there is no room for that

An archive is opened once for all blobs of it that are missing.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from forgereg.blobs.store import BlobStore
from forgereg.flow.archives import Archives
from forgereg.flow.cutting import Cutting, Piece, Straight
from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.growing import Followed, Growing
from forgereg.flow.source import FileSource, Source
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.oci.errors import (
    ArchiveInvalid,
    DiskFull,
    RegistryError,
    ShuttingDown,
)
from forgereg.oci.reference import Digest, Name
from forgereg.records.records import KnownBlob, Records

_log = logger(__name__)


@define(eq=False)
class Layers:
    """
    The bytes of blobs.

    :ivar in_reader: where archives are unpacked: as many at a time as there are cores.
    """

    _archives: Archives
    _records: Records
    _blobs: BlobStore
    _failures: Failures
    _in_thread: InThread
    _in_reader: InThread
    #: archive, or archive and digest → what is being cut out of it
    _cuttings: dict[tuple[object, ...], dict[Digest, Growing]] = field(
        init=False, factory=dict
    )
    #: archives that were not what they should be
    _doubtful: set[str] = field(init=False, factory=set)

    def find(self, known: KnownBlob) -> FileSource | None:
        """
        Open a blob that lies somewhere as it is.

        Blocking.

        :returns: None where there is none that can be trusted.
        """
        place = known.place
        if place.is_plain:
            file = self._archives.open_plain(known.source, place)
        else:
            file = self._blobs.open(known.digest, known.size)
        if file is None:
            return None
        offset = place.offset if place.is_plain else 0
        return FileSource(file, known.size, self._in_thread, offset)

    async def unpack(
        self, errand: Errand, name: Name, known: KnownBlob
    ) -> Source | None:
        """
        Give a blob while it is cut out of its archive.

        :returns: None where the archive has to be read, or built, again.
        :raises RegistryError: it cannot be had now.
        """
        archive, place = known.source.archive, known.place
        if place.is_plain or archive in self._doubtful:
            return None
        # What is made by a description is made one by one.
        key = (archive,) if place.offset else (archive, known.digest)
        self._failures.check(("blob", *key))
        followed = await self._follow(errand, name, known, key)
        if followed is not None:
            error = await followed.begun()
            if error is None:
                return followed
            if not isinstance(error, DiskFull):
                self._failures.check(("blob", *key))
                return None
        try:
            return await self._straight(errand, known)
        except FileNotFoundError:
            return None

    async def _straight(self, errand: Errand, known: KnownBlob) -> Source:
        straight = Straight(
            known, lambda: self._archives.open(errand, known), self._in_reader
        )
        await straight.begin()
        return straight

    async def _follow(
        self, errand: Errand, name: Name, known: KnownBlob, key: tuple[object, ...]
    ) -> Followed | None:
        """Receive a blob as it is cut out; None where a pass has it behind it."""

        async def instead() -> Source:
            return await self._straight(errand, known)

        blobs = [known]
        if known.place.offset and key not in self._cuttings:
            blobs = await self._in_thread(self._missing, name, known)
        under_way = self._cuttings.get(key)
        if under_way is not None:
            growing = under_way.get(known.digest)
            is_there = growing is not None and not growing.is_over
            return Followed(growing, instead) if growing and is_there else None
        pieces = [
            Piece(blob, Growing(blob.size))
            for blob in sorted(blobs, key=lambda blob: blob.place.offset)
        ]
        under_way = {each.blob.digest: each.growing for each in pieces}
        self._cuttings[key] = under_way
        followed = Followed(under_way[known.digest], instead)
        cutting = Cutting(
            pieces,
            lambda: self._archives.open(errand, known),
            self._blobs,
            self._in_thread,
            self._in_reader,
            self._archives.is_stopping,
        )
        Deferred.fromCoroutine(self._run(cutting, known, key))
        return followed

    def _missing(self, name: Name, known: KnownBlob) -> list[KnownBlob]:
        """List what else has to be cut out of an archive. Blocking."""
        others = [
            blob
            for blob in self._records.blobs_of(name, known.source)
            if blob.place.offset and not self._blobs.path(blob.digest).exists()
        ]
        return others if known in others else [known, *others]

    async def _run(
        self, cutting: Cutting, known: KnownBlob, key: tuple[object, ...]
    ) -> None:
        archive = known.source.archive
        try:
            await cutting.run()
        except ShuttingDown:
            pass
        except (RegistryError, OSError) as e:
            _log.warn("{archive} was not unpacked: {error}", archive=archive, error=e)
            if known.place.offset or isinstance(e, OSError):
                self._doubtful.add(archive)
            elif isinstance(e, ArchiveInvalid):
                self._failures.remember(("blob", *key), e)
        finally:
            del self._cuttings[key]

    def trust(self, archive: str) -> None:
        """Take note that an archive was read again."""
        self._doubtful.discard(archive)
