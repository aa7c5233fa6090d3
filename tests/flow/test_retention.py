"""Tests for `forgereg.flow.retention`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.flow.retention import Budget, Busy, Plan, Unit, plan
from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Digest, Name
from forgereg.records.kept import KeptImage
from forgereg.records.records import Source
from tests.doubles import store_path

DAY = 86400.0
NOW = 1000 * DAY
IDLE = Busy()
BLOBS = [sha256(bytes([n])) for n in range(6)]


def image(
    name: str, *blobs: Digest, days_ago: float | None = 10.0, derivation: str = ""
) -> KeptImage:
    """Give an image that was pulled so long ago, or seen 20 days ago by nobody."""
    drv = store_path(f"{derivation or name}.drv")
    return KeptImage(
        Source("locked", name, drv, store_path(f"{name}.tar.gz")),
        (f"packages/{name}:latest",),
        frozenset({(Name(f"packages/{name}"), sha256(name.encode()))}),
        frozenset(blobs),
        None if days_ago is None else NOW - days_ago * DAY,
        NOW - 20 * DAY,
    )


def sizes_of(images: Sequence[KeptImage], each: int = 10) -> dict[Unit, int]:
    """Say that every blob, and every archive, takes up as many bytes."""
    blobs: dict[Unit, int] = {blob: each for one in images for blob in one.blobs}
    return blobs | {one.source.archive: each for one in images}


def names(chosen: Plan) -> list[str]:
    return [going.image.source.attribute for going in chosen.images]


def choose(
    *images: KeptImage,
    bytes: int = 0,
    days: float = 0.0,
    pins: tuple[str, ...] = (),
    busy: Busy = IDLE,
) -> Plan:
    budget = Budget(bytes, days, pins)
    return plan(images, sizes_of(images), budget, busy, NOW)


OLD, NEW = image("old", BLOBS[0], days_ago=9), image("new", BLOBS[1], days_ago=2)


def test_no_budget() -> None:
    """Without a budget nothing is ever let go of."""
    assert choose(OLD, NEW) == Plan((), frozenset(), 40)


def test_days() -> None:
    """What nobody pulled for so many days goes, and nothing else."""
    chosen = choose(OLD, NEW, days=8)
    assert names(chosen) == ["old"]
    assert (set(chosen.blobs), chosen.kept_bytes) == ({BLOBS[0]}, 20)
    assert "FORGE_SWEEP_DAYS" in chosen.images[0].reason
    assert names(choose(OLD, NEW, days=9)) == [], "to the second"


def test_bytes() -> None:
    """What was pulled longest ago goes until the rest fits."""
    chosen = choose(NEW, OLD, bytes=39)
    assert names(chosen) == ["old"]
    assert chosen.images[0].bytes == 20
    assert "FORGE_SWEEP_BYTES" in chosen.images[0].reason
    assert names(choose(NEW, OLD, bytes=40)) == []
    assert names(choose(NEW, OLD, bytes=1)) == ["old", "new"]


def test_days_go_before_bytes() -> None:
    """What is too old goes even if all would fit, and makes room for the rest."""
    assert names(choose(OLD, NEW, bytes=1000, days=8)) == ["old"]
    assert names(choose(OLD, NEW, bytes=20, days=8)) == ["old"]


def test_image_that_nobody_pulled() -> None:
    """An image that nobody has pulled counts from when it was first seen."""
    unpulled = image("unpulled", days_ago=None)
    assert names(choose(OLD, unpulled, days=19)) == ["unpulled"]
    assert names(choose(OLD, unpulled, days=20)) == []


def test_shared_blobs_count_once() -> None:
    """A layer that two images have takes up its room once, and goes with the last."""
    other = image("other", BLOBS[0], days_ago=5)
    chosen = choose(OLD, other, days=8)
    assert (chosen.images[0].bytes, chosen.kept_bytes) == (10, 20)
    assert chosen.blobs == frozenset()
    chosen = choose(OLD, other, days=1)
    assert [going.bytes for going in chosen.images] == [10, 20]


def test_archives_go_with_their_derivation() -> None:
    """The archives of an application are kept together, by one GC root."""
    web = image("web", days_ago=9, derivation="app")
    db = image("db", days_ago=2, derivation="app")
    assert [going.bytes for going in choose(web, db, days=8).images] == [0]
    assert [going.bytes for going in choose(web, db, days=1).images] == [0, 20]


def test_image_that_would_free_nothing() -> None:
    """An image whose going would free no byte is not let go of for the bytes."""
    web = image("web", days_ago=9, derivation="app")
    db = image("db", days_ago=0, derivation="app")
    assert names(choose(web, db, NEW, bytes=30)) == ["new"]


def test_files_that_are_not_there() -> None:
    """What was deleted by hand takes up nothing."""
    assert plan([OLD], {}, Budget(1, 0), IDLE, NOW) == Plan((), frozenset(), 0)


@pytest.mark.parametrize(
    ("pin", "is_pinned"),
    [
        ("packages/old", True),
        ("packages/old:latest", True),
        ("packages/*", True),
        ("*:lat*", True),
        ("packages/ol", False),
        ("packages/old:2.12", False),
        ("packages/OLD", False),
        ("[", False),
    ],
)
def test_pins(pin: str, is_pinned: bool) -> None:
    """What matches a pattern is kept, whatever it takes."""
    assert bool(names(choose(OLD, bytes=1, days=1, pins=("x", pin)))) != is_pinned


def test_pin_of_an_image_without_tags() -> None:
    """An image that is only known by digest is kept by a pin of its repository."""
    bare = attrs.evolve(OLD, names=("packages/old:",))
    assert names(choose(bare, days=1, pins=("packages/old",))) == []
    assert names(choose(bare, days=1, pins=("packages/old:latest",))) == ["old"]


def test_image_that_is_being_pulled() -> None:
    """An image that was pulled a moment ago stays, for its layers are asked for next."""
    pulled = image("pulled", days_ago=0.5 / 24)
    assert names(choose(pulled, bytes=1, days=0.001)) == []


def test_what_is_busy() -> None:
    """What is being built, read or sent stays."""
    building = Busy(derivations={OLD.source.derivation})
    sending = Busy(blobs={BLOBS[0]})
    for busy in (building, sending):
        assert names(choose(OLD, NEW, bytes=1, busy=busy)) == ["new"]


images_ = st.lists(
    st.builds(
        lambda number, blobs, days: image(f"n{number}", *blobs, days_ago=days),
        st.integers(0, 9),
        st.sets(st.sampled_from(BLOBS), max_size=3),
        st.none() | st.integers(0, 12).map(float),
    ),
    unique_by=lambda one: one.source,
    max_size=8,
)
#: Each pattern, and the names that it keeps.
PINS = {"packages/n1": {"n1"}, "*/n[2-4]:lat*": {"n2", "n3", "n4"}}
budgets = st.builds(
    Budget,
    st.sampled_from([0, 1, 15, 40, 70, 1000]),
    st.sampled_from([0.0, 3.0, 9.0]),
    st.lists(st.sampled_from(sorted(PINS)), unique=True).map(tuple),
)
busies = st.builds(
    Busy,
    st.sets(st.sampled_from([store_path(f"n{n}.drv") for n in range(10)]), max_size=2),
    st.sets(st.sampled_from(BLOBS), max_size=1),
)
unit_sizes = st.fixed_dictionaries(
    {},
    optional={
        unit: st.sampled_from([0, 1, 10, 30])
        for unit in [*BLOBS, *(store_path(f"n{n}.tar.gz") for n in range(10))]
    },
)


def taken(images: Sequence[KeptImage], sizes: Mapping[Unit, int]) -> int:
    """Say how many bytes images take up, when an archive is kept by its own alone."""
    units: set[Unit] = set().union(*(one.blobs for one in images))
    units |= {one.source.archive for one in images}
    return sum(sizes.get(unit, 0) for unit in units)


def all_blobs(images: Sequence[KeptImage]) -> frozenset[Digest]:
    return frozenset[Digest]().union(*(one.blobs for one in images))


@given(images_, unit_sizes, budgets, busies, st.randoms())
def test_every_plan(
    images: list[KeptImage],
    sizes: dict[Unit, int],
    budget: Budget,
    busy: Busy,
    random: Random,
) -> None:
    """A plan spares what is in use, and lets go of no more and no less than is due."""
    chosen = plan(images, sizes, budget, busy, NOW)
    gone = [going.image for going in chosen.images]
    kept = [one for one in images if one not in gone]
    pinned = set[str]().union(*(PINS[pin] for pin in budget.pins))
    spared = [
        one
        for one in images
        if one.source.attribute in pinned
        or one.used_at > NOW - budget.grace_seconds
        or one.source.derivation in busy.derivations
        or one.blobs & busy.blobs
    ]
    assert all(one in kept for one in spared)
    assert chosen.blobs == all_blobs(gone) - all_blobs(kept)

    assert chosen.kept_bytes == taken(kept, sizes)
    freed = sum(going.bytes for going in chosen.images)
    assert freed + chosen.kept_bytes == taken(images, sizes)

    limit = NOW - budget.days * DAY
    is_old = [budget.days > 0 and one.used_at < limit for one in gone]
    for one in images:
        if budget.days and one.used_at < limit:
            assert one in gone or one in spared
    assert [one.used_at for one in gone] == sorted(one.used_at for one in gone)
    if not all(is_old):
        assert taken([*kept, gone[-1]], sizes) > budget.bytes > 0, "more than needed"
    if 0 < budget.bytes < chosen.kept_bytes:
        for one in kept:
            rest = [each for each in kept if each != one]
            assert one in spared or taken(rest, sizes) == chosen.kept_bytes

    shuffled = random.sample(images, len(images))
    assert plan(shuffled, sizes, budget, busy, NOW) == chosen
