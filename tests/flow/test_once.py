"""Tests for `forgereg.flow.once`."""

from __future__ import annotations

from typing import NoReturn

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from forgereg.flow.once import Once
from forgereg.oci.errors import BuildFailed
from tests.deferreds import no_result, result_of


@define
class Work:
    """Work that ends when the test says so."""

    started: list[Deferred[int]] = field(factory=list)

    async def __call__(self) -> int:
        self.started.append(Deferred())
        return await self.started[-1]


def leave(waiting: Deferred[int]) -> None:
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)


def test_one_start_for_many_callers() -> None:
    """Two who ask for the same at once share one piece of work."""
    once, work = Once[str, int](), Work()
    first, second = once.do("k", work), once.do("k", work)
    assert len(work.started) == 1
    work.started[0].callback(7)
    assert (result_of(first), result_of(second)) == (7, 7)


def test_other_keys_are_other_work() -> None:
    """Two who ask for different things do not wait for one another."""
    once, work = Once[str, int](), Work()
    first, second = once.do("a", work), once.do("b", work)
    work.started[1].callback(2)
    assert result_of(second) == 2
    no_result(first)
    work.started[0].callback(1)
    assert result_of(first) == 1


def test_work_that_is_done_at_once() -> None:
    """Work that need not wait gives its result at once, each time anew."""

    async def work() -> int:
        return 1

    once = Once[str, int]()
    assert result_of(once.do("k", work)) == 1
    assert result_of(once.do("k", work)) == 1


def test_one_leaves_and_the_other_stays() -> None:
    """One who goes away takes nothing from the others."""
    once, work = Once[str, int](), Work()
    first, second = once.do("k", work), once.do("k", work)
    leave(first)
    no_result(second)
    work.started[0].callback(7)
    assert result_of(second) == 7


def test_the_work_goes_on_when_all_have_left() -> None:
    """When the last one has left, the work goes on, and the next one joins it."""
    once, work = Once[str, int](), Work()
    leave(once.do("k", work))
    late = once.do("k", work)
    assert len(work.started) == 1
    work.started[0].callback(7)
    assert result_of(late) == 7


def test_nothing_is_remembered() -> None:
    """After the end the same question starts the work anew."""
    once, work = Once[str, int](), Work()
    once.do("k", work)
    work.started[0].callback(1)
    again = once.do("k", work)
    no_result(again)
    work.started[1].callback(2)
    assert result_of(again) == 2


def test_failure_is_told_to_all_and_forgotten() -> None:
    """A failure is told to all who wait, and the next one tries anew."""
    once, work = Once[str, int](), Work()
    waiting = [once.do("k", work), once.do("k", work)]
    work.started[0].errback(OSError("no"))
    for one in waiting:
        with pytest.raises(OSError, match="no"):
            result_of(one)
    again = once.do("k", work)
    work.started[1].callback(1)
    assert result_of(again) == 1


def test_failure_that_nobody_waits_for() -> None:
    """A failure that was foreseen disturbs nobody when all have left."""
    once, work = Once[str, int](), Work()
    leave(once.do("k", work))
    work.started[0].errback(BuildFailed("no"))


def test_failure_says_where_it_happened() -> None:
    """Whoever looks into the log finds the line of the code that failed."""

    async def work() -> NoReturn:
        raise OSError("no")

    failures: list[Failure] = []
    Once[str, int]().do("k", work).addErrback(failures.append)
    assert "in work" in failures[0].getTraceback()


def test_failure_keeps_its_cause() -> None:
    """Whoever looks into the log finds the failure that led to this one."""

    async def work() -> NoReturn:
        raise OSError("no") from KeyError("the cause")

    with pytest.raises(OSError) as raised:
        result_of(Once[str, int]().do("k", work))
    assert isinstance(raised.value.__cause__, KeyError)


class Odd(Exception):
    """An exception that cannot be copied as most can."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"because of {reason}")


def test_failure_that_cannot_be_copied() -> None:
    """Whatever the exception is like, nobody waits for ever."""
    once, work = Once[str, int](), Work()
    waiting = [once.do("k", work), once.do("k", work)]
    work.started[0].errback(Odd(reason="this"))
    for one in waiting:
        with pytest.raises(Odd, match="because of this"):
            result_of(one)


def test_leaving_while_others_are_told() -> None:
    """One who is told may make another leave, who is not told anything else."""
    once, work = Once[str, int](), Work()
    first, second, third = (once.do("k", work) for _ in range(3))
    first.addCallback(lambda result: second.cancel())
    work.started[0].callback(7)
    assert result_of(third) == 7
    with pytest.raises(CancelledError):
        result_of(second)
    assert result_of(first) is None


def test_asking_anew_while_others_are_told() -> None:
    """One who is told may ask again, and gets the result of new work."""
    once, work = Once[str, int](), Work()
    again: list[Deferred[int]] = []
    first, second = once.do("k", work), once.do("k", work)
    first.addCallback(lambda result: again.append(once.do("k", work)))
    work.started[0].callback(7)
    assert result_of(second) == 7
    assert len(work.started) == 2
    work.started[1].callback(8)
    assert result_of(again[0]) == 8


STEPS = st.lists(
    st.sampled_from(["join", "finish", "fail"])
    | st.tuples(st.just("leave"), st.integers(0, 9)),
    max_size=20,
)


@given(steps=STEPS)
def test_each_caller_is_told_once(steps: list[str | tuple[str, int]]) -> None:
    """However callers come and go, each is told exactly once how it ended."""
    once, work = Once[str, int](), Work()
    told: list[list[object]] = []
    waiting: list[Deferred[int]] = []
    running = False
    for step in [*steps, "finish"]:
        if isinstance(step, tuple):
            for one in waiting[step[1] : step[1] + 1]:
                one.cancel()
        elif step == "join":
            running = True
            results: list[object] = []
            told.append(results)
            waiting.append(once.do("k", work).addBoth(results.append))
        elif running:
            running = False
            if step == "fail":
                work.started[-1].errback(BuildFailed("no"))
            else:
                work.started[-1].callback(len(work.started))
            assert [len(results) for results in told] == [1] * len(told)
    assert [len(results) for results in told] == [1] * len(told)
