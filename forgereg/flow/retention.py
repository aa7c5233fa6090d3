"""
Choose which images to let go of. Pure.

An image takes up its blobs and the archives that its GC root keeps; what several have
counts once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from fnmatch import fnmatchcase

from attrs import define, field, frozen

from forgereg.oci.reference import Digest
from forgereg.records.kept import KeptImage

_DAY_SECONDS = 86400.0

_TOO_OLD = "nobody pulled it for longer than FORGE_SWEEP_DAYS"
_TOO_MUCH = "pulled longest ago of what exceeds FORGE_SWEEP_BYTES"

#: What lies on disk: a blob, or an archive by its store path.
Unit = Digest | str


@frozen
class Budget:
    """
    How much is kept, and what is kept whatever that costs.

    :ivar bytes: 0 for any number.
    :ivar days: how long an image is kept that nobody pulls; 0 for ever.
    :ivar pins: patterns of ``repository:tag``, or of repositories with any tag.
    :ivar grace_seconds: how long after its manifest a client may still ask for the rest
        of an image.
    """

    bytes: int
    days: float
    pins: tuple[str, ...] = ()
    grace_seconds: float = 3600.0


@frozen
class Busy:
    """
    What is in use at this moment.

    :ivar derivations: that are being built or read.
    :ivar blobs: that are being sent.
    """

    derivations: Set[str] = frozenset()
    blobs: Set[Digest] = frozenset()

    def has(self, image: KeptImage) -> bool:
        """Whether something of an image is in use."""
        return image.source.derivation in self.derivations or not (
            self.blobs.isdisjoint(image.blobs)
        )


@frozen
class Going:
    """
    An image to let go of.

    :ivar bytes: that are free when it and all before it are gone.
    """

    image: KeptImage
    reason: str
    bytes: int


@frozen
class Plan:
    """
    What to let go of.

    :ivar images: oldest pull first.
    :ivar blobs: that no image has then.
    :ivar kept_bytes: that the other images take up.
    """

    images: tuple[Going, ...]
    blobs: frozenset[Digest]
    kept_bytes: int


@define
class Ledger:
    """
    Which images have what.

    :ivar bytes: that all of it takes up.
    """

    _sizes: Mapping[Unit, int]
    _units: dict[tuple[str, str], Set[Unit]] = field(init=False, factory=dict)
    _holders: Counter[Unit] = field(init=False, factory=Counter)
    bytes: int = field(init=False, default=0)

    @classmethod
    def of(cls, images: Sequence[KeptImage], sizes: Mapping[Unit, int]) -> Ledger:
        """
        Write down what all of them have.

        :param sizes: in bytes, of what lies on disk; what is not there counts nothing.
        """
        ledger = cls(sizes)
        archives: defaultdict[str, set[Unit]] = defaultdict(set)
        for image in images:
            archives[image.source.derivation].add(image.source.archive)
        for image in images:
            units = image.blobs | archives[image.source.derivation]
            ledger._units[_key(image)] = units
            ledger._holders.update(units)
        ledger.bytes = sum(sizes.get(unit, 0) for unit in ledger._holders)
        return ledger

    def drop(self, image: KeptImage) -> int:
        """Let go of an image; give how many bytes that frees."""
        self._holders.subtract(self._units[_key(image)])
        freed = self.gain(image)
        self.bytes -= freed
        return freed

    def gain(self, image: KeptImage) -> int:
        """Give how many bytes nothing but images that were dropped has."""
        units = self._units[_key(image)]
        return sum(self._sizes.get(u, 0) for u in units if not self._holders[u])

    def free(self, image: KeptImage) -> frozenset[Digest]:
        """Give the blobs that nothing but images that were dropped has."""
        return frozenset(blob for blob in image.blobs if not self._holders[blob])


def _key(image: KeptImage) -> tuple[str, str]:
    return image.source.derivation, image.source.archive


def plan(
    images: Sequence[KeptImage],
    sizes: Mapping[Unit, int],
    budget: Budget,
    busy: Busy,
    now: float,
) -> Plan:
    """
    Choose which images to let go of.

    What is pinned, busy or pulled within the grace stays. Of the rest goes what is too
    old; then what was pulled longest ago, until the others fit, but nothing that would
    not free a byte. Whatever the order of the images, the choice is the same.

    :param sizes: in bytes, of what lies on disk; what is not there counts nothing.
    :param now: in seconds since the epoch.
    """
    ledger = Ledger.of(images, sizes)
    idle = [
        image
        for image in sorted(images, key=lambda image: (image.used_at, _key(image)))
        if image.used_at <= now - budget.grace_seconds
        and not busy.has(image)
        and not _is_pinned(image, budget.pins)
    ]
    oldest_kept = now - budget.days * _DAY_SECONDS
    old = [image for image in idle if budget.days and image.used_at < oldest_kept]
    for image in old:
        ledger.drop(image)
    much: list[KeptImage] = []
    for image in idle[len(old) :]:
        if not 0 < budget.bytes < ledger.bytes:
            break
        ledger.drop(image)
        much.append(image)
    much = [image for image in much if ledger.gain(image)]
    gone = [(image, _TOO_OLD) for image in old] + [(image, _TOO_MUCH) for image in much]
    ledger = Ledger.of(images, sizes)
    going = tuple(Going(image, why, ledger.drop(image)) for image, why in gone)
    blobs = frozenset[Digest]().union(*(ledger.free(image) for image, _ in gone))
    return Plan(going, blobs, ledger.bytes)


def _is_pinned(image: KeptImage, pins: Iterable[str]) -> bool:
    patterns = [pin if ":" in pin else f"{pin}:*" for pin in pins]
    return any(fnmatchcase(name, each) for name in image.names for each in patterns)
