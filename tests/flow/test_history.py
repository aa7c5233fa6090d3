"""Tests for `forgereg.flow.history`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from forgereg.flow.history import History
from forgereg.flow.report import Report, State
from forgereg.nix.progress import Progress
from forgereg.oci.errors import BuildUnknown, DiskFull
from forgereg.records.builds import BuildRecords
from forgereg.records.records import Records
from tests.conftest import Log
from tests.deferreds import begin, no_result, result_of
from tests.doubles import Threads

P = ParamSpec("P")
T = TypeVar("T")

FIRST = Report(
    id="b1",
    image="packages/hello:latest",
    state=State.BUILDING,
    asked_by=("192.0.2.1", "192.0.2.2"),
    asked_at=100.0,
    started_at=101.0,
    locked="github:acme/forge/1",
    derivation="/nix/store/0-hello.drv",
    progress=Progress(3, 10, 2, 0, 2**40, 2**41, "hello", "buildPhase"),
)
DONE = evolve(FIRST, state=State.DONE, finished_at=200.0)


@define
class Disk:
    """A disk that may be full, or broken; and threads that wait for it."""

    records: Records = field(factory=lambda: Records.open("sqlite://"))
    threads: Threads = field(factory=Threads)
    error: Exception | None = None
    history: History = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.history = self.anew()

    def anew(self) -> History:
        """Give a history that has nothing in memory."""
        return History(BuildRecords(self.records.engine), self._call)

    def _call(
        self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        def work() -> T:
            if self.error is not None:
                raise self.error
            return call(*args, **kwargs)

        return self.threads(work)

    def newest(self, most: int = 100, *but: str) -> list[Report]:
        return result_of(self.history.newest(most, but))

    def kept(self) -> list[Report]:
        """Give what is written down."""
        return result_of(self.anew().newest(10000, ()))


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.records.close()


def test_what_is_written_down(disk: Disk) -> None:
    """A build is read from the records as it was told."""
    disk.history.note(FIRST)
    assert disk.kept() == [FIRST]
    disk.history.note(DONE)
    assert disk.kept() == disk.newest() == [DONE]
    assert result_of(disk.history.find("b1")) == DONE


def test_while_it_is_written(disk: Disk) -> None:
    """What is being written down is known already, as it is now."""
    disk.history.note(FIRST)
    disk.threads.pause()
    disk.history.note(evolve(FIRST, state=State.READING))
    assert result_of(disk.history.find("b1")).state is State.READING
    disk.history.note(DONE)
    assert result_of(disk.history.find("b1")) == DONE
    listing = begin(disk.history.newest(10, ()))
    disk.threads.resume()
    assert result_of(listing) == [DONE]
    assert disk.kept() == [DONE]


def test_changes_are_gathered(disk: Disk) -> None:
    """However often a build changes while the disk is slow, it is written once."""
    disk.threads.pause()
    for _ in range(100):
        disk.history.note(FIRST)
    disk.history.note(DONE)
    disk.threads.resume()
    assert len(disk.threads.calls) == 2
    assert disk.kept() == [DONE]


def test_forgetting(disk: Disk) -> None:
    """A build that came to nothing is gone at once, and from the records."""
    disk.history.note(FIRST)
    disk.threads.pause()
    disk.history.forget("b1")
    finding = begin(disk.history.find("b1"))
    with pytest.raises(BuildUnknown):
        result_of(finding)
    disk.threads.resume()
    assert disk.newest() == disk.kept() == []


def test_the_newest_first(disk: Disk) -> None:
    """Builds are listed the newest first, wherever they are known from."""
    order = [5.0, 9.0, 1.0, 7.0]
    for number, asked_at in enumerate(order):
        if number == 2:
            disk.threads.pause()
        disk.history.note(evolve(DONE, id=f"b{number}", asked_at=asked_at))
    listing = begin(disk.history.newest(3, {"b1"}))
    disk.threads.resume()
    assert [report.asked_at for report in result_of(listing)] == [7.0, 5.0, 1.0]


def test_a_full_disk(disk: Disk, log: Log) -> None:
    """While the disk is full builds are known, and they are written down later."""
    disk.history.note(FIRST)
    disk.error = DiskFull("no room")
    disk.history.note(DONE)
    disk.history.note(evolve(DONE, id="b2"))
    disk.history.forget("b3")
    assert "builds are not remembered: no room" in log.text
    disk.error = None
    assert result_of(disk.history.find("b1")) == DONE
    assert [report.id for report in disk.newest()] == ["b2", "b1"]
    assert disk.kept() == [FIRST]
    disk.history.note(evolve(DONE, id="b4"))
    assert [report.id for report in disk.kept()] == ["b4", "b2", "b1"]


def test_a_disk_that_stays_full(disk: Disk) -> None:
    """However long the disk is full, the memory that it takes is bounded."""
    disk.error = DiskFull("no room")
    for number in range(1500):
        disk.history.note(evolve(DONE, id=f"b{number}"))
    disk.error = None
    result_of(disk.history.save())
    kept = {report.id for report in disk.kept()}
    assert kept == {f"b{number}" for number in range(500, 1500)}


def test_a_broken_disk(disk: Disk, logged_failures: list[LogEvent]) -> None:
    """A mistake in writing is told with all that is known of it, and loses nothing."""
    disk.error = RuntimeError("broken")
    disk.history.note(DONE)
    assert len(logged_failures) == 1
    logged_failures.clear()
    disk.error = None
    result_of(disk.history.save())
    assert disk.kept() == [DONE]


def test_the_stop(disk: Disk) -> None:
    """At the stop, what is being written is waited for, and the rest is written."""
    disk.threads.pause()
    disk.history.note(FIRST)
    disk.history.note(DONE)
    saving = begin(disk.history.save())
    no_result(saving)
    disk.threads.resume()
    result_of(saving)
    assert disk.kept() == [DONE]


def test_the_stop_with_a_full_disk(disk: Disk, log: Log) -> None:
    """A full disk does not keep the registry from stopping."""
    disk.error = DiskFull("no room")
    disk.history.note(DONE)
    result_of(disk.history.save())
    assert log.text.count("no room") == 2


def test_interrupted_and_the_disk_is_full(disk: Disk, log: Log) -> None:
    """A registry starts on a full disk, though it cannot say what was interrupted."""
    disk.error = DiskFull("no room")
    result_of(disk.history.interrupt())
    assert "no room" in log.text


def test_interrupted(disk: Disk, log: Log) -> None:
    """What was under way when the registry ended is interrupted; what was over is not."""
    disk.history.note(FIRST)
    disk.history.note(evolve(DONE, id="b2"))
    result_of(disk.anew().interrupt())
    states = {report.id: report.state for report in disk.kept()}
    assert states == {"b1": State.INTERRUPTED, "b2": State.DONE}
    assert "1 build was interrupted" in log.text
