"""Tests for `forgereg.records.builds`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forgereg.oci.errors import DiskFull
from forgereg.oci.reference import Name, Tag
from forgereg.records.builds import BuildRecords
from forgereg.records.records import Records

HELLO, LATEST = Name("packages/hello"), Tag("latest")


@pytest.fixture
def records() -> Iterator[BuildRecords]:
    records = Records.open("sqlite://")
    yield BuildRecords(records.engine)
    records.close()


def row(id: str, asked_at: float = 0.0, **rest: Any) -> dict[str, Any]:
    """Write a build down."""
    return {
        "id": id,
        "image": "packages/hello:latest",
        "state": "building",
        "asked_by": "[]",
        "asked_at": asked_at,
        "started_at": None,
        "finished_at": None,
        "locked": None,
        "derivation": None,
        "progress": "{}",
        "error": None,
        **rest,
    }


def ids(records: BuildRecords, most: int = 100) -> list[str]:
    return [row["id"] for row in records.newest(most)]


def test_saving(records: BuildRecords) -> None:
    """A build is found as it was saved last."""
    records.save([row("a"), row("b")])
    records.save([row("a", state="failed", error="no\nroom ☃")])
    assert records.find("a") == row("a", state="failed", error="no\nroom ☃")
    assert records.find("b") == row("b")
    assert records.find("c") is None


def test_saving_nothing(records: BuildRecords) -> None:
    """Nothing can be saved as well."""
    records.save([])
    assert ids(records) == []


def test_what_came_to_nothing(records: BuildRecords) -> None:
    """A build that came to nothing is deleted, whether it was known or not."""
    records.save([row("a"), row("b")])
    records.save([], ["a", "x"])
    assert ids(records) == ["b"]


def test_thousands_that_came_to_nothing(records: BuildRecords) -> None:
    """However many builds come to nothing at once, they are deleted."""
    names = [f"b{number}" for number in range(40_000)]
    records.save([row("b7"), row("a")], names)
    assert ids(records) == ["a"]


def test_the_newest_first(records: BuildRecords) -> None:
    """The newest builds come first, of one moment those that were saved last."""
    records.save([row("a", 2.0), row("b", 1.0), row("c", 2.0)])
    records.save([row("a", 2.0, state="done")])
    assert ids(records) == ["c", "a", "b"]
    assert ids(records, 2) == ["c", "a"]


def test_interrupting(records: BuildRecords) -> None:
    """Only what was not over is interrupted."""
    records.save([row("a"), row("b", state="done"), row("c", state="queued")])
    assert records.interrupt(["done", "failed"], "interrupted", "why") == 2
    found = {each["id"]: (each["state"], each["error"]) for each in records.newest(9)}
    assert found == {
        "a": ("interrupted", "why"),
        "b": ("done", None),
        "c": ("interrupted", "why"),
    }


def test_forgetting(records: BuildRecords) -> None:
    """Builds from before some time are forgotten, and named."""
    records.save([row("a", 1.0), row("b", 2.0), row("c", 3.0)])
    assert records.forget_before(2.0) == ["a"]
    assert ids(records) == ["c", "b"]


def test_last_good(records: BuildRecords) -> None:
    """The last image of a tag that worked is remembered for this tag alone."""
    assert records.last_good(HELLO, LATEST) is None
    for derivation in ("/nix/store/0-a.drv", "/nix/store/0-b.drv"):
        records.remember_good(HELLO, LATEST, derivation)
    assert records.last_good(HELLO, LATEST) == "/nix/store/0-b.drv"
    assert records.last_good(HELLO, Tag("2.12")) is None
    assert records.last_good(Name("packages/bye"), LATEST) is None


def test_a_full_disk(records: BuildRecords) -> None:
    """A full disk is told as one, and nothing is half written."""
    records.save([row("a")])
    with records._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        records.save([row("a", state="done"), row("b", error="x" * 100_000)])
    assert ids(records) == ["a"]
    assert records.find("a") == row("a")
