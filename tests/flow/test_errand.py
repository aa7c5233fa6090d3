"""Tests for `forgereg.flow.errand`."""

from __future__ import annotations

from functools import partial

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from forgereg.flow.errand import Errand
from forgereg.flow.once import Once
from forgereg.nix.events import Line, Said
from forgereg.oci.errors import BuildCancelled
from tests.conftest import Log
from tests.deferreds import begin, no_result, result_of


@pytest.fixture
def errand() -> Errand:
    return Errand("packages/hello:latest", ["192.0.2.1"], 60.0)


def test_waiting(errand: Errand) -> None:
    """What is awaited is given."""
    awaited: Deferred[int] = Deferred()
    waiting = begin(errand.wait(awaited))
    no_result(waiting)
    awaited.callback(5)
    assert result_of(waiting) == 5


def test_cancelling(errand: Errand) -> None:
    """Who cancels work ends what it waits for, and it is told so."""
    ended: list[object] = []
    awaited: Deferred[None] = Deferred(ended.append)
    waiting = begin(errand.wait(awaited))
    errand.cancel()
    with pytest.raises(BuildCancelled, match="packages/hello:latest was cancelled"):
        result_of(waiting)
    assert len(ended) == 1


def _note(ended: list[str], what: str, awaited: Deferred[None]) -> None:
    ended.append(what)


def test_the_last_ends_first(errand: Errand) -> None:
    """What began last is ended before what waits for it."""
    ended: list[str] = []
    for what in ("first", "second"):
        awaited: Deferred[None] = Deferred(partial(_note, ended, what))
        waiting = begin(errand.wait(awaited))
        waiting.addErrback(lambda failure: failure.trap(BuildCancelled) and None)
    errand.cancel()
    assert ended == ["second", "first"]


def test_cancelled_before(errand: Errand) -> None:
    """What was cancelled before it waits is ended as soon as it does."""
    errand.cancel()
    with pytest.raises(BuildCancelled):
        result_of(errand.wait(Deferred[None]()))


def test_somebody_else_cancels(errand: Errand) -> None:
    """What ends for another reason is not taken for a cancelled build."""
    awaited: Deferred[None] = Deferred()
    waiting = begin(errand.wait(awaited))
    awaited.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)


def test_cancelling_twice(errand: Errand) -> None:
    """Cancelling again, or when nothing is awaited any more, changes nothing."""
    assert result_of(errand.wait(succeed(1))) == 1
    errand.cancel()
    errand.cancel()


def test_a_part_with_its_own_time(errand: Errand) -> None:
    """A part of the work has its own time, the clients of the whole, and its end."""
    part = errand.beside(5.0)
    part.left_seconds -= 3.0
    assert (part.timeout_seconds, errand.left_seconds) == (5.0, 60.0)
    assert part.asked_by is errand.asked_by
    waiting = begin(part.wait(Deferred[None]()))
    errand.cancel()
    with pytest.raises(BuildCancelled):
        result_of(waiting)


def test_what_a_part_hears(errand: Errand, log: Log) -> None:
    """What nix says for a part is told once, with the image's name."""
    errand.beside(5.0).hear(Line(Said.OTHER, "copying"))
    assert log.text.count("packages/hello:latest: copying") == 1


def test_cancelling_what_is_shared(errand: Errand) -> None:
    """When the work of one is cancelled, others who waited for it begin it anew."""
    once: Once[str, int] = Once()
    running: list[Deferred[int]] = []

    async def ask(errand: Errand) -> int:
        async def work() -> int:
            running.append(Deferred())
            return await errand.wait(running[-1])

        return await errand.share(lambda: once.do("key", work))

    first = begin(ask(errand))
    others = [begin(ask(Errand(str(n), ["b"], 60.0))) for n in range(3)]
    errand.cancel()
    with pytest.raises(BuildCancelled, match="hello:latest was cancelled"):
        result_of(first)
    assert len(running) == 2
    running[1].callback(7)
    assert list(map(result_of, others)) == [7, 7, 7]


def test_leaving_what_is_shared(errand: Errand) -> None:
    """Who is cancelled while another's work runs leaves that work alone."""
    once: Once[str, int] = Once()
    running: Deferred[int] = Deferred()

    async def work() -> int:
        return await running

    first = once.do("key", work)
    second = begin(errand.share(lambda: once.do("key", work)))
    errand.cancel()
    with pytest.raises(BuildCancelled):
        result_of(second)
    running.callback(7)
    assert result_of(first) == 7


def test_cancelled_work_begins_nothing(errand: Errand) -> None:
    """What is cancelled already does not begin anything."""
    errand.cancel()
    begun: list[None] = []

    def start() -> Deferred[None]:
        begun.append(None)
        return succeed(None)

    with pytest.raises(BuildCancelled):
        result_of(errand.share(start))
    assert begun == []
