"""Tests for `forgereg.records.kept`."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.oci.descriptor import Descriptor, Image
from forgereg.oci.errors import DiskFull
from forgereg.oci.manifest import Manifest, sha256, write_manifests
from forgereg.oci.reference import Digest, Name, Tag, parse_digest
from forgereg.records.kept import Forgotten, KeptImage, KeptImages
from forgereg.records.pulls import Pull, Pulls
from forgereg.records.records import Records, Source
from tests.doubles import store_path
from tests.records.test_records import found, placed

HELLO, OTHER = Name("packages/hello"), Name("packages/other")
LATEST, VERSION = Tag("latest"), Tag("2.12")


def source(name: str, archive: str = "") -> Source:
    return Source(
        f"locked {name}",
        f"attribute {name}",
        store_path(f"{name}.drv"),
        store_path(f"{archive or name}.tar.gz"),
    )


def image(*texts: str) -> Image:
    return Image(
        Descriptor(sha256(f"config of {texts}".encode()), 6),
        tuple(Descriptor(sha256(text.encode()), len(text)) for text in texts),
    )


OLD, NEW = source("old"), source("new")


@pytest.fixture
def images(records: Records) -> KeptImages:
    return KeptImages(records.engine)


@pytest.fixture
def pulls(records: Records) -> Pulls:
    return Pulls(records.engine)


def remember(
    records: Records, name: Name, source: Source, image: Image, tag: Tag = LATEST
) -> tuple[Manifest, ...]:
    written = write_manifests(image)
    records.remember_image(name, tag, source, written, placed(image))
    return written


def only(images: KeptImages) -> KeptImage:
    (kept,) = images.all(0.0)
    return kept


def test_nothing_is_kept_at_first(pulls: Pulls, images: KeptImages) -> None:
    """A registry that was never asked keeps no image, and nothing was pulled."""
    assert images.all(1.0) == []
    assert pulls.pulled_since(0.0) == []
    assert images.forget(OLD, None) is None


def test_what_is_kept_of_an_image(records: Records, images: KeptImages) -> None:
    """An image is listed with every name, manifest and blob that it has."""
    shown = image("lower", "upper")
    written = remember(records, HELLO, OLD, shown)
    remember(records, HELLO, OLD, shown, VERSION)
    remember(records, OTHER, OLD, shown)
    names = ("packages/hello:2.12", "packages/hello:latest", "packages/other:latest")
    assert only(images) == KeptImage(
        OLD,
        names,
        frozenset((name, m.digest) for name in (HELLO, OTHER) for m in written),
        frozenset(blob.digest for blob in shown.blobs),
        None,
        0.0,
    )


def test_image_that_nobody_pulled(records: Records, images: KeptImages) -> None:
    """An image that nobody has pulled counts from when it was first seen."""
    remember(records, HELLO, OLD, image("x"))
    assert images.all(5.0)[0].used_at == 5.0
    kept = images.all(9.0)[0]
    assert (kept.pulled_at, kept.seen_at, kept.used_at) == (None, 5.0, 5.0)


def test_last_pull_counts(records: Records, pulls: Pulls, images: KeptImages) -> None:
    """An image counts from its last pull, by whatever tag, digest or form."""
    docker, oci = remember(records, HELLO, OLD, image("x"))
    pulls.note([Pull(HELLO, docker.digest, LATEST, 30.0)])
    pulls.note([Pull(HELLO, oci.digest, None, 40.0)])
    assert only(images).pulled_at == 40.0
    pulls.note([Pull(HELLO, docker.digest, LATEST, 50.0)])
    assert only(images).used_at == 50.0


def test_tags_that_mean_something_else_by_now(
    records: Records, images: KeptImages
) -> None:
    """An image whose tags were forgotten is listed by its repository alone."""
    remember(records, HELLO, OLD, image("x"))
    records.forget_tags(OLD.derivation)
    assert only(images).names == ("packages/hello:",)


def test_forgotten_image(records: Records, pulls: Pulls, images: KeptImages) -> None:
    """Of an image that is forgotten nothing is left, and it can be remembered again."""
    shown = image("lower", "upper")
    written = remember(records, HELLO, OLD, shown)
    pulls.note([Pull(HELLO, written[0].digest, LATEST, 1.0)])
    free = frozenset(blob.digest for blob in shown.blobs)
    assert images.forget(OLD, 1.0) == Forgotten(free, True)
    assert records.tagged(HELLO, OLD.derivation, LATEST) == ()
    assert records.manifest(HELLO, written[0].digest) is None
    assert records.blob(HELLO, shown.config.digest) is None
    assert images.all(0.0) == []
    assert pulls.pulled_since(0.0) == []
    assert pulls.days(HELLO, 0) == []
    assert images.forget(OLD, 1.0) is None
    remember(records, HELLO, OLD, shown)
    assert only(images).pulled_at is None


@pytest.mark.parametrize("known", [None, 1.0])
def test_image_that_was_pulled_since(
    records: Records, pulls: Pulls, images: KeptImages, known: float | None
) -> None:
    """An image that was pulled after it was chosen is not forgotten."""
    written = remember(records, HELLO, OLD, image("x"))
    pulls.note([Pull(HELLO, written[0].digest, None, 1.5)])
    before = images.all(0.0)
    assert images.forget(OLD, known) is None
    assert images.all(0.0) == before


def test_layer_that_another_image_has(records: Records, images: KeptImages) -> None:
    """A layer of two images goes with the last of them, whichever name they have."""
    shared = sha256(b"shared")
    remember(records, HELLO, OLD, image("shared", "old"))
    remember(records, HELLO, NEW, image("shared", "new"))
    remember(records, OTHER, source("third"), image("shared"))
    gone = images.forget(NEW, None)
    assert gone is not None and shared not in gone.blobs
    assert found(records, HELLO, shared) == (6, OLD), "it can be had from the other"
    gone = images.forget(OLD, None)
    assert gone is not None and shared not in gone.blobs
    assert records.blob(HELLO, shared) is None
    gone = images.forget(source("third"), None)
    assert gone is not None and shared in gone.blobs


def test_manifest_that_two_derivations_have(
    records: Records, images: KeptImages
) -> None:
    """An image that two builds gave stays while one of them is kept, with its tag."""
    same = image("x")
    written = remember(records, HELLO, OLD, same)
    remember(records, HELLO, NEW, same)
    assert images.forget(OLD, None) == Forgotten(frozenset(), True)
    assert records.tagged(HELLO, NEW.derivation, LATEST) == written
    assert found(records, HELLO, same.config.digest) == (6, NEW)
    assert only(images).names == ("packages/hello:latest",)


def test_derivation_of_two_archives(records: Records, images: KeptImages) -> None:
    """A derivation is needed as long as one image of it is."""
    web, db = source("app", "web"), source("app", "db")
    remember(records, HELLO, web, image("web"))
    remember(records, OTHER, db, image("db"))
    gone = images.forget(web, None)
    assert gone is not None and not gone.derivation
    assert records.tagged(OTHER, db.derivation, LATEST) != ()
    gone = images.forget(db, None)
    assert gone is not None and gone.derivation


def test_full_disk(records: Records, pulls: Pulls, images: KeptImages) -> None:
    """On a full disk nothing is noted, and what is kept can still be listed."""
    remember(records, HELLO, OLD, image("x"))
    with records.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    many = [Pull(Name(f"p/{n}"), sha256(b"x"), LATEST, 1.0) for n in range(5000)]
    with pytest.raises(DiskFull):
        pulls.note(many)
    assert [kept.source for kept in images.all(1.0)] == [OLD]


def test_forgotten_while_others_write(tmp_path: Path) -> None:
    """Images can be forgotten, remembered and pulled at the same time."""
    records = Records.open(f"sqlite:///{tmp_path / 'records.sqlite'}")
    pulls = Pulls(records.engine)
    images = KeptImages(records.engine)
    failures: list[Exception] = []

    def work(number: int) -> None:
        mine, name = source(f"s{number % 3}"), Name(f"packages/p{number % 2}")
        try:
            for _ in range(5):
                written = remember(records, name, mine, image("shared", str(number)))
                pulls.note([Pull(name, written[0].digest, LATEST, 1.0)])
                images.all(1.0)
                images.forget(mine, 1.0)
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number in range(3):
        images.forget(source(f"s{number}"), 1.0)
    assert images.all(1.0) == []
    assert records.names("") == []
    records.close()


remembered = st.lists(
    st.tuples(
        st.sampled_from([HELLO, OTHER]),
        st.sampled_from([source(d, a) for d in "de" for a in "xyz"]),
        st.sampled_from([LATEST, VERSION]),
        st.lists(st.sampled_from("abc"), max_size=3),
    ),
    max_size=8,
)


@given(remembered, st.sampled_from([source(d, a) for d in "de" for a in "xyz"]))
def test_what_is_kept_stays_whole(
    each: list[tuple[Name, Source, Tag, list[str]]], victim: Source
) -> None:
    """Whatever is forgotten, every other image can be pulled to its last blob."""
    records = Records.open("sqlite://")
    images = KeptImages(records.engine)
    for name, origin, tag, texts in each:
        remember(records, name, origin, image(*texts), tag)
    before = {kept.source: kept for kept in images.all(0.0)}
    gone = images.forget(victim, None)
    after = {kept.source: kept for kept in images.all(0.0)}
    assert after == {k: v for k, v in before.items() if k != victim}
    assert (gone is None) == (victim not in before)
    kept_blobs: set[Digest] = set()
    for kept in after.values():
        kept_blobs |= kept.blobs
        for name, digest in kept.manifests:
            manifest = records.manifest(name, digest)
            assert manifest is not None
            body = json.loads(manifest.body)
            for blob in [body["config"], *body["layers"]]:
                known = records.blob(name, parse_digest(blob["digest"]))
                assert known is not None and known.source in after
    if gone is not None:
        assert gone.blobs == before[victim].blobs - kept_blobs
        needed = {kept.source.derivation for kept in after.values()}
        assert gone.derivation == (victim.derivation not in needed)
    records.close()
