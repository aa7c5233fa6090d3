"""Tests for `forgereg.records.revisions`."""

from __future__ import annotations

import pytest

from forgereg.oci.errors import DiskFull
from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Digest
from forgereg.records.builds import BuildRecords
from forgereg.records.kept import KeptImages
from forgereg.records.records import Records
from forgereg.records.revisions import Making, Revision, Revisions, Sharing
from tests.records.test_builds import row
from tests.records.test_kept import (
    HELLO,
    LATEST,
    NEW,
    OLD,
    OTHER,
    VERSION,
    image,
    remember,
    source,
)


@pytest.fixture
def revisions(records: Records) -> Revisions:
    return Revisions(records.engine)


def built(records: Records) -> tuple[Digest, Digest]:
    """Remember two images, one after the other; give their preferred manifests."""
    old = remember(records, HELLO, OLD, image("shared", "old"))
    new = remember(records, HELLO, NEW, image("shared", "new"))
    return old[0].digest, new[0].digest


def test_what_a_tag_has_meant(records: Records, revisions: Revisions) -> None:
    """The images that a tag has meant are listed, the newest first, with their times."""
    old, new = built(records)
    revisions.note(HELLO, LATEST, OLD.derivation, old, 10.0)
    revisions.note(HELLO, LATEST, NEW.derivation, new, 20.0)
    revisions.note(HELLO, LATEST, NEW.derivation, new, 30.0)
    assert revisions.of(HELLO) == [
        Revision(LATEST, NEW.derivation, new, 20.0),
        Revision(LATEST, OLD.derivation, old, 10.0),
    ]
    assert revisions.of(OTHER) == []


def test_going_back(records: Records, revisions: Revisions) -> None:
    """A tag that means an older image again does so since then, whatever clocks say."""
    old, new = built(records)
    revisions.note(HELLO, LATEST, OLD.derivation, old, 10.0)
    revisions.note(HELLO, LATEST, NEW.derivation, new, 20.0)
    revisions.note(HELLO, LATEST, OLD.derivation, old, 15.0)
    first, second = revisions.of(HELLO)
    assert (first.digest, second.digest) == (old, new)
    assert first.since is not None and 20.0 < first.since < 21.0


def test_tag_that_nobody_asked_for(records: Records, revisions: Revisions) -> None:
    """A tag that leads to an image that was built for another one is listed last."""
    old = remember(records, HELLO, OLD, image("x"))[0].digest
    remember(records, HELLO, OLD, image("x"), VERSION)
    revisions.note(HELLO, LATEST, OLD.derivation, old, 10.0)
    assert revisions.of(HELLO) == [
        Revision(LATEST, OLD.derivation, old, 10.0),
        Revision(VERSION, OLD.derivation, old, None),
    ]


def test_image_that_is_let_go_of(records: Records, revisions: Revisions) -> None:
    """An image that is forgotten is not in the past of its tag any more."""
    old, new = built(records)
    revisions.note(HELLO, LATEST, OLD.derivation, old, 10.0)
    revisions.note(HELLO, LATEST, NEW.derivation, new, 20.0)
    KeptImages(records.engine).forget(OLD, None)
    assert revisions.of(HELLO) == [Revision(LATEST, NEW.derivation, new, 20.0)]
    assert revisions.making(HELLO, old) is None
    with records.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT derivation FROM revisions")
        assert rows.scalars().all() == [NEW.derivation]


def test_how_an_image_came_to_be(records: Records, revisions: Revisions) -> None:
    """Of an image it is known from what, when, how fast and by which build it came."""
    old, _ = built(records)
    assert revisions.making(HELLO, old) == Making(OLD, None, None, None)
    revisions.note_making(OLD, 10.0, None)
    assert revisions.making(HELLO, old) == Making(OLD, 10.0, None, None)
    revisions.note_making(OLD, 20.0, 4.5)
    builds = BuildRecords(records.engine)
    builds.save([row("b-1", 1.0, derivation=OLD.derivation)])
    builds.save([row("b-2", 2.0, derivation=OLD.derivation)])
    assert revisions.making(HELLO, old) == Making(OLD, 10.0, 4.5, "b-2")
    assert KeptImages(records.engine).all(30.0)[0].seen_at == 10.0
    revisions.note_making(source("unknown"), 1.0, 1.0)


def test_image_of_two_derivations(records: Records, revisions: Revisions) -> None:
    """Of two builds that gave the same image, the one is told of that is meant."""
    same = remember(records, HELLO, OLD, image("x"))[0].digest
    remember(records, HELLO, NEW, image("x"))
    newest = revisions.making(HELLO, same)
    assert newest is not None and newest.source == NEW
    meant = revisions.making(HELLO, same, OLD.derivation)
    assert meant is not None and meant.source == OLD


def test_who_else_has_a_layer(records: Records, revisions: Revisions) -> None:
    """Of each layer it is known which other repositories have it, and how many."""
    built(records)
    remember(records, OTHER, source("third"), image("shared", "third"))
    shared = sha256(b"shared")
    asked = [shared, sha256(b"old")]
    names = (OTHER.text,)
    assert revisions.sharing(HELLO, asked, 5) == {shared: Sharing(names, 1)}
    assert revisions.sharing(OTHER, asked[:1], 5) == {shared: Sharing((HELLO.text,), 1)}
    assert revisions.sharing(HELLO, [], 5) == {}


def test_full_disk(records: Records, revisions: Revisions) -> None:
    """Where nothing can be written, that is said."""
    with records.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = 1")
    with pytest.raises(DiskFull):
        revisions.note(HELLO, LATEST, OLD.derivation, sha256(b"x"), 1.0)
