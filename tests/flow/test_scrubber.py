"""How `forgereg.flow.scrubber` paces itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from forgereg.blobs.scrub import Scrub, Step
from forgereg.blobs.store import BlobStore
from forgereg.flow.scrubber import STEP, Scrubber
from tests.blobs.keeping import put
from tests.doubles import Threads
from tests.registry import files_open_below

P = ParamSpec("P")
T = TypeVar("T")
DAY = 86400.0
LAYER = bytes(3 * STEP)


@define
class Watched:
    """
    A store that is scrubbed.

    :ivar took: how long each step takes, in seconds.
    :ivar steps: when each step began, and what it did.
    """

    store: BlobStore
    days: float = 7.0
    took: float = 0.01
    steps: list[tuple[float, Step]] = field(factory=list)
    clock: Clock = field(factory=Clock)
    threads: Threads = field(factory=Threads)
    scrubber: Scrubber = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.scrubber = Scrubber(
            Scrub(self.store),
            lambda: self.store.bytes,
            lambda: self.days,
            self.clock,
            self.in_thread,
        )

    def in_thread(
        self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        def timed() -> T:
            begin = self.clock.seconds()
            result = call(*args, **kwargs)
            assert isinstance(result, Step)
            self.steps.append((begin, result))
            self.clock.rightNow += self.took
            return result

        return self.threads(timed)

    @property
    def bytes(self) -> int:
        return sum(step.bytes for _, step in self.steps)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and calls[0].getTime() <= end:
            self.clock.advance(max(0.0, calls[0].getTime() - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))


@pytest.fixture
def a(tmp_path: Path) -> Watched:
    store = BlobStore(tmp_path)
    store.prepare()
    for number in range(4):
        put(store, LAYER + bytes([number]))
    return Watched(store)


def test_everything_once_in_a_period(a: Watched) -> None:
    """All is read once in the days that are set, one file after another."""
    a.scrubber.start()
    a.run(3.5 * DAY)
    assert 2 <= a.bytes / len(LAYER) < 3.01
    a.run(3.4 * DAY)
    assert a.bytes == a.store.bytes
    a.run(7 * DAY)
    assert a.bytes == pytest.approx(2 * a.store.bytes, rel=0.3)
    a.scrubber.stop()


@pytest.mark.parametrize("took", [0.001, 0.1, 10.0])
def test_small_share(a: Watched, took: float) -> None:
    """However slow the disk and short the period, it is busy a twentieth of the time."""
    a.took, a.days = took, 0.00001
    a.scrubber.start()
    a.run(5.0 + 2000 * took)
    begins = [begin for begin, step in a.steps]
    assert len(begins) > 5
    pauses = [later - begin for begin, later in zip(begins, begins[1:], strict=False)]
    assert min(pauses) >= took * 20 - 1e-6
    a.scrubber.stop()


def test_steps_are_small(a: Watched) -> None:
    """Other work in the same threads never waits for more than a few megabytes."""
    a.scrubber.start()
    a.run(7 * DAY)
    assert max(step.bytes for _, step in a.steps) == STEP
    a.scrubber.stop()


def test_setting_that_changes(a: Watched) -> None:
    """Scrubbing can be turned off and on, and hurried, while the registry runs."""
    a.days = 0
    a.scrubber.start()
    a.run(30 * DAY)
    assert a.steps == []
    a.days = 1000.0
    a.run(7201.0)
    assert a.bytes == len(LAYER) + 1
    a.days = 0.5
    a.run(0.5 * DAY)
    assert a.bytes >= a.store.bytes
    a.scrubber.stop()


def test_stopping(a: Watched) -> None:
    """Stopping waits for nothing, and leaves nothing open."""
    a.scrubber.start()
    a.run(1.0)
    assert len(a.steps) == 1 and not a.steps[0][1].is_between
    a.scrubber.stop()
    assert files_open_below(a.store.root) == []
    a.run(DAY)
    assert len(a.steps) == 1


def test_stopping_during_a_step(a: Watched) -> None:
    """A step that is under way when the registry stops is the last one."""
    a.scrubber.start()
    a.threads.pause()
    a.run(1.0)
    a.scrubber.stop()
    a.threads.resume()
    assert len(a.steps) == 1
    assert files_open_below(a.store.root) == []
    assert a.clock.getDelayedCalls() == []


def test_empty_store(tmp_path: Path) -> None:
    """A store without anything is looked at once in an hour."""
    store = BlobStore(tmp_path)
    store.prepare()
    a = Watched(store)
    a.scrubber.start()
    a.run(DAY)
    assert 20 < len(a.steps) < 30
    a.scrubber.stop()


def test_bug(a: Watched, logged_failures: list[LogEvent]) -> None:
    """What fails in an unforeseen way is logged, and tried again later."""
    a.steps = None  # type: ignore[assignment]
    a.scrubber.start()
    a.run(DAY)
    assert len(logged_failures) > 5
    logged_failures.clear()
    a.steps = []
    a.run(DAY)
    assert a.steps
    a.scrubber.stop()
