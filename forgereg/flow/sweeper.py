"""
Let go of images that nobody pulls, while the registry serves.

What to let go of is chosen in `forgereg.flow.retention`. An image that is let go of is
forgotten: its digests are unknown until one of its tags is pulled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from math import inf
from pathlib import Path

import attrs
from attrs import define, field

from forgereg.blobs.store import BlobStore, Stored
from forgereg.flow.once import Once
from forgereg.flow.pulls import PullLog
from forgereg.flow.report import SweepReport, SweptImage
from forgereg.flow.retention import Budget, Busy, Going, Ledger, Unit, plan
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.metrics import Metrics
from forgereg.nix.roots import Roots
from forgereg.nix.store import Store
from forgereg.oci.errors import ArchiveInvalid, DiskFull
from forgereg.oci.reference import Digest, Name
from forgereg.records.kept import Forgotten, KeptImage, KeptImages

_log = logger(__name__)

#: How long a file is left alone that no image has, in seconds: it may be about to be.
_ORPHAN_SECONDS = 86400.0
#: How many files are deleted before other work has its turn.
_FILES_PER_STEP = 100


@define
class Sweeper:
    """
    Carries plans out while the registry serves, one image at a time.

    A pull keeps its image, unless the manifest is answered in the very moment in which
    the records forget it: then its blobs are unknown until the tag is pulled again.

    :ivar budget: gives what is to be kept, as it is set now.
    :ivar busy: gives what is in use now.
    :ivar forgotten: told, in the reactor's thread, of each image that the records know
        no more, so that memory forgets its manifests.
    :ivar now: gives seconds since the epoch.
    :ivar last: when something was let go of last, and what; None since the start.
    """

    _images: KeptImages
    _pull_log: PullLog
    _blobs: BlobStore
    _store: Store
    _roots: Roots
    _budget: Callable[[], Budget]
    _busy: Callable[[], Busy]
    _forgotten: Callable[[KeptImage], object]
    _now: Callable[[], float]
    _in_thread: InThread
    _metrics: Metrics = field(factory=Metrics)
    last: tuple[float, SweepReport] | None = field(init=False, default=None)
    _sweeps: Once[bool, SweepReport] = field(init=False, factory=Once)

    async def sweep(self, dry_run: bool) -> SweepReport:
        """
        Let go of what is over the budget, and of files that no image has.

        Who asks during a sweep is told of that one; leaving does not end it.

        :param dry_run: whether to say only what would be done.
        :raises DiskFull: there is not even room to forget.
        """
        return await self._sweeps.do(dry_run, lambda: self._sweep(dry_run))

    async def _sweep(self, dry_run: bool) -> SweepReport:
        now = self._now()
        images, stored, sizes = await self._in_thread(self._survey, now)
        unwritten = self._pull_log.unwritten()
        images = [_pulled(image, unwritten) for image in images]
        busy = self._busy()
        chosen = plan(images, sizes, self._budget(), busy, now)
        had = frozenset(busy.blobs).union(*(image.blobs for image in images))
        a_day_ago = now - _ORPHAN_SECONDS
        orphans = [
            each.digest
            for each in stored
            if each.digest not in had and each.written_at < a_day_ago
        ]
        if dry_run:
            orphan_bytes = sum(sizes[each] for each in orphans)
            return SweepReport(
                tuple(_swept(going, going.bytes) for going in chosen.images),
                len(orphans) + len(chosen.blobs & sizes.keys()),
                orphan_bytes + sum(going.bytes for going in chosen.images),
                chosen.kept_bytes,
                dry_run,
            )
        known = {image.source.derivation for image in images} | busy.derivations
        links = await self._in_thread(self._roots.delete_others, known, a_day_ago)
        files = freed = 0
        for begin in range(0, len(orphans), _FILES_PER_STEP):
            step = orphans[begin : begin + _FILES_PER_STEP]
            count, bytes = await self._in_thread(self._delete, step, a_day_ago)
            files, freed = files + count, freed + bytes
        if files or links:
            _log.info(
                "deleted {files} blobs and {links} GC roots of no image",
                files=files,
                links=links,
            )
        ledger = Ledger.of(images, sizes)
        swept = []
        for going in chosen.images:
            deleted = await self._let_go(going.image, chosen.blobs)
            if deleted is not None:
                swept.append(_swept(going, ledger.drop(going.image)))
                files += deleted
        freed += sum(image.bytes for image in swept)
        self._metrics.sweeps.inc()
        self._metrics.swept_images.inc(len(swept))
        self._metrics.swept_bytes.inc(freed)
        self._metrics.sweep_time.set(self._now())
        report = SweepReport(tuple(swept), files, freed, ledger.bytes, dry_run)
        self.last = self._now(), report
        return report

    async def _let_go(self, image: KeptImage, free: Set[Digest]) -> int | None:
        """Give how many files were deleted; None where the image has to stay."""
        unwritten = self._pull_log.unwritten().keys()
        if self._busy().has(image) or not unwritten.isdisjoint(image.manifests):
            return None
        gone = await self._forget(image, free)
        if gone is None:
            return None
        self._forgotten(image)
        derivation, busy = image.source.derivation, self._busy()
        if gone.derivation and derivation not in busy.derivations:
            await self._in_thread(self._roots.delete, derivation)
        count, _ = await self._in_thread(self._delete, gone.blobs - busy.blobs)
        names = " ".join(image.names)
        _log.info("let go of {names} ({drv})", names=names, drv=derivation)
        return count

    async def _forget(self, image: KeptImage, free: Set[Digest]) -> Forgotten | None:
        what = image.source, image.pulled_at
        try:
            return await self._in_thread(self._images.forget, *what)
        except DiskFull:
            # Blobs may be deleted at any time, and without them there may be room.
            await self._in_thread(self._delete, image.blobs & free)
            return await self._in_thread(self._images.forget, *what)

    def _survey(
        self, now: float
    ) -> tuple[list[KeptImage], list[Stored], dict[Unit, int]]:
        """Look at what is there. Blocking."""
        # Files first: whatever is kept meanwhile, the records know what is listed.
        stored = list(self._blobs.all())
        images = self._images.all(now)
        sizes: dict[Unit, int] = {each.digest: each.size for each in stored}
        for archive in {image.source.archive for image in images}:
            with suppress(ArchiveInvalid, OSError):
                sizes[archive] = _size(self._store.locate(archive)[1])
        return images, stored, sizes

    def _delete(
        self, blobs: Iterable[Digest], written_before: float = inf
    ) -> tuple[int, int]:
        """Delete files; give how many and how many bytes. Blocking."""
        deleted = (self._blobs.delete(blob, written_before) for blob in blobs)
        sizes = [size for size in deleted if size is not None]
        return len(sizes), sum(sizes)


def _size(archive: Path) -> int:
    """Add up what an archive, or a directory, takes. Blocking."""
    files = [path for path in archive.rglob("*") if path.is_file()] or [archive]
    return sum(file.stat().st_size for file in files)


def _pulled(
    image: KeptImage, unwritten: Mapping[tuple[Name, Digest], float]
) -> KeptImage:
    """Bring an image up to date with pulls that the records do not know yet."""
    times = [unwritten[each] for each in image.manifests if each in unwritten]
    times += [image.pulled_at] if image.pulled_at is not None else []
    return attrs.evolve(image, pulled_at=max(times, default=None))


def _swept(going: Going, bytes: int) -> SweptImage:
    image = going.image
    return SweptImage(image.names, bytes, image.pulled_at, going.reason)
