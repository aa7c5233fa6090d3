"""Tests for `forgereg.flow.threads`, and what whoever plays threads must do."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from forgereg.flow.threads import InThread, or_drop
from tests.deferreds import no_result, result_of
from tests.doubles import Threads, at_once


@pytest.fixture(params=["at once", "pausable"])
def in_thread(request: pytest.FixtureRequest) -> InThread:
    return at_once if request.param == "at once" else Threads()


def test_gives_the_result(in_thread: InThread) -> None:
    """What a function returns comes back, whatever it was called with."""
    assert result_of(in_thread(divmod, 7, 2)) == (3, 1)
    assert result_of(in_thread(int, "7", base=8)) == 7


def test_gives_the_failure(in_thread: InThread) -> None:
    """What a function raises comes back as it is."""
    with pytest.raises(ZeroDivisionError):
        result_of(in_thread(divmod, 7, 0))


def test_waits_while_paused() -> None:
    """What is asked for during a pause is done after it, in the order asked for."""
    threads, done = Threads(), list[int]()
    threads.pause()
    first, second = threads(done.append, 1), threads(done.append, 2)
    no_result(first)
    threads.resume()
    assert (result_of(first), result_of(second), done) == (None, None, [1, 2])


def test_cancelling_drops_the_result() -> None:
    """Whoever cancels hears no more of it, and the work is done all the same."""
    threads, done = Threads(), list[int]()
    threads.pause()
    waiting = threads(done.append, 1)
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)
    threads.resume()
    assert done == [1]


def test_result_that_nobody_waits_for() -> None:
    """What was opened for somebody who has left is closed."""
    threads, dropped = Threads(), list[int]()
    threads.pause()
    waiting = or_drop(threads(int, "7"), dropped.append)
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)
    threads.resume()
    assert dropped == [7]


def test_result_that_somebody_waits_for(in_thread: InThread) -> None:
    """Whoever stays gets the result, or the failure, and nothing is dropped."""
    dropped: list[int] = []
    assert result_of(or_drop(in_thread(int, "7"), dropped.append)) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        result_of(or_drop(in_thread(int, "x"), dropped.append))
    assert dropped == []
