"""Tests for `forgereg.records.pulls`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Name
from forgereg.records.pulls import Pull, PulledOn, Pulls
from forgereg.records.records import Records
from tests.records.test_kept import HELLO, LATEST, OTHER, VERSION


@pytest.fixture
def pulls() -> Iterator[Pulls]:
    records = Records.open("sqlite://")
    yield Pulls(records.engine)
    records.close()


def test_nothing_to_note(pulls: Pulls) -> None:
    """An empty batch is no error."""
    pulls.note([])


def test_what_was_pulled_lately(pulls: Pulls) -> None:
    """What was pulled by tag is listed once each, the newest first."""
    pulls.note(
        [
            Pull(HELLO, sha256(b"1"), LATEST, 10.0),
            Pull(HELLO, sha256(b"2"), LATEST, 40.0),
            Pull(HELLO, sha256(b"2"), VERSION, 20.0),
            Pull(OTHER, sha256(b"3"), LATEST, 30.0),
            Pull(OTHER, sha256(b"3"), None, 50.0),
        ]
    )
    assert pulls.pulled_since(20.0) == [
        (HELLO, LATEST),
        (OTHER, LATEST),
        (HELLO, VERSION),
    ]
    assert pulls.pulled_since(40.1) == []


def test_pulls_are_counted_by_day(pulls: Pulls) -> None:
    """How often a repository was pulled is known for each day, by tag and by digest."""
    day, digest = 86400.0, sha256(b"1")
    pulls.note([Pull(HELLO, digest, LATEST, 10.0, 2), Pull(HELLO, digest, None, 20.0)])
    pulls.note([Pull(HELLO, sha256(b"2"), LATEST, day - 1, 3)])
    pulls.note([Pull(HELLO, digest, VERSION, day), Pull(OTHER, digest, LATEST, day)])
    assert pulls.days(HELLO, 0) == [
        PulledOn(0, None, 1),
        PulledOn(0, LATEST, 5),
        PulledOn(1, VERSION, 1),
    ]
    assert pulls.days(HELLO, 1) == [PulledOn(1, VERSION, 1)]
    assert pulls.last(HELLO) == day
    assert pulls.last(Name("packages/never")) is None


def test_days_that_are_long_past(pulls: Pulls) -> None:
    """Days from before some day are not known any more."""
    digest = sha256(b"1")
    pulls.note([Pull(HELLO, digest, LATEST, 86400.0 * day) for day in range(3)])
    pulls.forget_days(2)
    assert pulls.days(HELLO, 0) == [PulledOn(2, LATEST, 1)]
