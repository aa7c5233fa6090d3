"""Tests for `forgereg.web.turns`."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from forgereg.web.turns import Turns
from tests.deferreds import begin, no_result, result_of


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1000)
    return clock


def wanted(turns: Turns) -> Deferred[None]:
    return begin(turns.turn())


def test_who_is_alone_does_not_wait(clock: Clock) -> None:
    """A client that nobody else is sent anything beside is sent it at once."""
    turns = Turns(clock)
    for _ in range(10):
        result_of(wanted(turns))
        clock.advance(0.01)
    assert clock.getDelayedCalls() == []


def test_others_have_their_turn(clock: Clock) -> None:
    """When transfers have had their share, whoever else asks comes before more of them."""
    turns = Turns(clock)
    result_of(wanted(turns))
    clock.advance(0.001)
    first, second = wanted(turns), wanted(turns)
    no_result(first)
    served: list[str] = []

    def slow(_: None) -> None:
        served.append("first")
        clock.rightNow += 0.001

    first.addCallback(slow)
    second.addCallback(lambda _: served.append("second"))
    clock.callLater(0, served.append, "another")
    clock.advance(0)
    assert served == ["first", "another", "second"]


def test_who_leaves_has_no_turn(clock: Clock) -> None:
    """A client that leaves while it waits keeps nobody waiting."""
    turns = Turns(clock)
    result_of(wanted(turns))
    clock.advance(0.001)
    leaver, other = wanted(turns), wanted(turns)
    leaver.addErrback(lambda _: None)
    leaver.cancel()
    clock.advance(0)
    result_of(other)
