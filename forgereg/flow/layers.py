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

from collections.abc import Callable

from attrs import define, field
from cachetools import LRUCache
from twisted.internet.defer import Deferred

from forgereg.blobs.store import BlobStore
from forgereg.flow.contents import Contents
from forgereg.flow.cutting import Cutting, Piece, Straight
from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.growing import Followed, Growing
from forgereg.flow.source import FileSource, Source
from forgereg.flow.threads import InThread, or_drop
from forgereg.logs import logger
from forgereg.oci.descriptor import Place
from forgereg.oci.errors import (
    ArchiveInvalid,
    DiskFull,
    RegistryError,
    ShuttingDown,
)
from forgereg.oci.reference import Digest, Name
from forgereg.records.records import KnownBlob, Records

_log = logger(__name__)

#: How long a script may take that is read no faster than a client receives.
_SLOW_SECONDS = 86400.0
#: How many blobs are known to be what their description says.
_MOST_MADE = 100_000


@define(eq=False)
class Layers:
    """
    The bytes of blobs.

    :ivar is_stopping: whether to give up.
    """

    _contents: Contents
    _records: Records
    _blobs: BlobStore
    _failures: Failures
    _in_thread: InThread
    _is_stopping: Callable[[], bool]
    #: archive, or archive and digest → what is being cut out of it
    _cuttings: dict[tuple[object, ...], dict[Digest, Growing]] = field(
        init=False, factory=dict
    )
    #: archive and digest of what was made as its description says: who knows a digest
    #: could else have the blob of another image by claiming it
    _made: LRUCache[tuple[object, ...], bool] = field(
        init=False, factory=lambda: LRUCache(_MOST_MADE)
    )
    #: archives that were not what they should be
    _doubtful: set[str] = field(init=False, factory=set)

    def is_sure(self, known: KnownBlob) -> bool:
        """Whether what its archive says of a blob was found to be true."""
        is_made = (known.source.archive, known.digest) in self._made
        return is_made or not _is_made(known.place)

    def find(self, known: KnownBlob) -> FileSource | None:
        """
        Open a blob that lies somewhere as it is.

        Blocking.

        :returns: None where there is none that can be trusted.
        """
        place = known.place
        if not self.is_sure(known):
            return None
        if place.is_plain:
            file = self._contents.open_plain(known.source, place)
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
        self._failures.check(("blob", archive, known.digest))
        if place.is_plain or place.offset < 0 or archive in self._doubtful:
            return None
        # What is made by a description is made one by one.
        key = (archive,) if place.offset else (archive, known.digest)
        followed = await self._follow(errand, name, known, key)
        if followed is None:
            find = self._in_thread(self.find, known)
            found = await or_drop(find, lambda each: each.close() if each else None)
            if found is not None:
                return found
        else:
            error = await followed.begun()
            if error is None:
                return followed
            if isinstance(error, ShuttingDown):
                raise error
            if not isinstance(error, DiskFull):
                self._failures.check(("blob", archive, known.digest))
                return None
        try:
            return await self._straight(errand, known)
        except OSError:
            return None

    async def _straight(self, errand: Errand, known: KnownBlob) -> Source:
        # A script writes no faster than the client reads.
        slow = errand.beside(max(errand.timeout_seconds, _SLOW_SECONDS))
        straight = Straight(
            known,
            lambda: self._contents.open(slow, known),
            lambda error: self._doubt(known, error),
        )
        await straight.begin()
        return straight

    async def _follow(
        self, errand: Errand, name: Name, known: KnownBlob, key: tuple[object, ...]
    ) -> Followed | None:
        """Receive a blob as it is cut out; None where a pass has it behind it."""

        async def instead() -> Source:
            try:
                return await self._straight(errand, known)
            except OSError as e:
                raise ArchiveInvalid(f"{known.source.archive} is gone") from e

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
            lambda: self._contents.open(errand, known),
            self._blobs,
            self._in_thread,
            self._is_stopping,
        )
        running = Deferred.fromCoroutine(self._run(cutting, known, key))
        running.addErrback(lambda failure: _log.failure("layers were lost", failure))
        return followed

    def _missing(self, name: Name, known: KnownBlob) -> list[KnownBlob]:
        """List what else has to be cut out of an archive. Blocking."""
        missing = {known.digest: known}
        for blob in self._records.blobs_of(name, known.source):
            is_there = blob.place.is_plain or self._blobs.path(blob.digest).exists()
            if blob.place.offset > 0 and not is_there:
                missing.setdefault(blob.digest, blob)
        return list(missing.values())

    async def _run(
        self, cutting: Cutting, known: KnownBlob, key: tuple[object, ...]
    ) -> None:
        try:
            await cutting.run()
            if _is_made(known.place):
                self._made[key] = True
        except FileNotFoundError:
            archive = known.source.archive
            _log.info("{archive} has to be read again", archive=archive)
            self._doubtful.add(archive)
        except (RegistryError, OSError) as e:
            self._doubt(known, e)
        finally:
            del self._cuttings[key]

    def _doubt(self, known: KnownBlob, error: Exception) -> None:
        """Take note that a blob could not be had at its place."""
        if isinstance(error, ShuttingDown):
            return
        archive = known.source.archive
        _log.warn("{archive} was not unpacked: {error}", archive=archive, error=error)
        if known.place.offset or not isinstance(error, ArchiveInvalid):
            self._doubtful.add(archive)
        else:
            self.give_up(known, error)

    def give_up(self, known: KnownBlob, error: RegistryError) -> None:
        """Take note that a blob is not to be looked for again for a while."""
        self._failures.remember(("blob", known.source.archive, known.digest), error)

    def trust(self, archive: str) -> None:
        """Take note that an archive was read again."""
        self._doubtful.discard(archive)


def _is_made(place: Place) -> bool:
    """Whether a blob is made by a description that says its digest."""
    return not place.offset and not place.is_plain
