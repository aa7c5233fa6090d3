"""Tests for `forgereg.flow.pulls`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from forgereg.flow.pulls import PullLog
from forgereg.oci.errors import DiskFull
from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Name, Tag
from forgereg.records.pulls import Pull
from tests.conftest import Log
from tests.deferreds import no_result, result_of
from tests.doubles import Threads

HELLO, DIGEST, LATEST = Name("packages/hello"), sha256(b"manifest"), Tag("latest")


@define
class Notes:
    """What was written, batch by batch."""

    batches: list[list[Pull]] = field(factory=list)
    error: Exception | None = None

    def note(self, batch: Sequence[Pull]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append(list(batch))


@define
class Fixture:
    """A log whose time and threads a test holds in its hands."""

    notes: Notes = field(factory=Notes)
    threads: Threads = field(factory=Threads)
    clock: Clock = field(factory=Clock)
    log: PullLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.log = PullLog(
            self.notes.note,
            self.threads,
            self.clock,
            lambda: 1000 + self.clock.seconds(),
        )

    def pull(self, tag: Tag | None = LATEST, count: int = 1) -> Pull:
        self.log.pulled(HELLO, DIGEST, tag)
        return Pull(HELLO, DIGEST, tag, 1000 + self.clock.seconds(), count)


@pytest.fixture
def a() -> Fixture:
    return Fixture()


def test_pulls_are_written_in_batches(a: Fixture) -> None:
    """Many pulls are one write, some seconds later; then nothing goes on."""
    first, other = a.pull(), a.pull(None)
    a.clock.advance(9.9)
    assert a.threads.calls == []
    a.clock.advance(0.1)
    assert a.notes.batches == [[first, other]]
    assert a.log.unwritten() == {}
    assert a.clock.getDelayedCalls() == []


def test_only_the_last_pull_of_a_tag_is_written(a: Fixture) -> None:
    """Of many pulls of one tag the last is written down, and how many there were."""
    a.pull()
    a.clock.advance(5.0)
    last = a.pull(count=2)
    a.clock.advance(5.0)
    assert a.notes.batches == [[last]]


def test_one_write_at_a_time(a: Fixture) -> None:
    """While a batch is being written, pulls go on and wait for the next one."""
    a.threads.pause()
    first = a.pull()
    a.clock.advance(10.0)
    second = a.pull(None)
    a.clock.advance(60.0)
    assert len(a.threads.calls) == 1
    assert a.log.unwritten() == {(HELLO, DIGEST): 1010.0}, "neither is lost sight of"
    a.threads.resume()
    assert a.notes.batches == [[first]]
    a.clock.advance(10.0)
    assert a.notes.batches == [[first], [second]]


@pytest.mark.parametrize("error", [DiskFull("full"), ValueError("a bug")])
def test_write_that_fails(
    a: Fixture, error: Exception, log: Log, logged_failures: list[LogEvent]
) -> None:
    """Pulls that cannot be written are kept, and all are counted when they can be."""
    a.notes.error = error
    a.pull()
    other = a.pull(None)
    a.clock.advance(10.0)
    assert "pulls are not noted" in log.text
    assert len(logged_failures) == isinstance(error, ValueError)
    logged_failures.clear()
    a.log.pulled(HELLO, DIGEST, LATEST)
    a.notes.error = None
    a.clock.advance(10.0)
    both = Pull(HELLO, DIGEST, LATEST, 1010.0, 2)
    assert a.notes.batches == [[both, other]]


def test_flush_at_the_stop(a: Fixture) -> None:
    """When the registry stops, what was gathered is written at once."""
    pull = a.pull()
    result_of(a.log.flush())
    assert a.notes.batches == [[pull]]
    assert a.clock.getDelayedCalls() == []
    result_of(a.log.flush())
    assert a.notes.batches == [[pull]]


def test_flush_waits_for_a_write_under_way(a: Fixture) -> None:
    """The stop waits for the batch that is being written, and for the one after."""
    a.threads.pause()
    first = a.pull()
    a.clock.advance(10.0)
    second = a.pull(None)
    flushed = a.log.flush()
    no_result(flushed)
    a.threads.resume()
    result_of(flushed)
    assert a.notes.batches == [[first], [second]]
    assert a.clock.getDelayedCalls() == []


def test_flush_on_a_full_disk(a: Fixture) -> None:
    """A full disk does not keep the registry from stopping, nor forgets a pull."""
    a.notes.error = DiskFull("full")
    pull = a.pull()
    result_of(a.log.flush())
    a.notes.error = None
    a.clock.advance(10.0)
    assert a.notes.batches == [[pull]]
