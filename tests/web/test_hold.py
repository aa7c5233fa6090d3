"""Tests for `forgereg.web.hold`."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from forgereg.oci.manifest import PAD
from forgereg.web.hold import Pending, trickle
from tests.deferreds import begin, no_result, result_of

seconds = st.integers(1, 20000)


@given(seconds, st.integers(1, 60), seconds | st.just(inf))
def test_spaces(comes: int, space: int, end: float) -> None:
    """Spaces come as far apart as was said, end with the pad, and none comes late."""
    clock, work = Clock(), Deferred[str]()
    times: list[float] = []

    def write(data: bytes) -> None:
        assert data == b" "
        times.append(clock.seconds())

    pending = Pending(clock, work)
    written = begin(trickle(pending, write, space, end))
    last = min(comes, end)
    clock.pump([1.0] * min(int(last) - 1, len(PAD) * space + 2))
    no_result(written)
    if comes <= end:
        work.callback("there")
    else:
        clock.advance(end)
    assert result_of(written) == PAD[: len(times)]
    assert times == [space * (n + 1) for n in range(len(times))]
    assert len(times) == min(len(PAD), (int(last) - 1) // space)
    assert pending.is_there == (comes <= end)
    assert clock.getDelayedCalls() == []


def test_several_stretches() -> None:
    """A result that comes in a later stretch is there, and so is a failure."""
    clock, work = Clock(), Deferred[str]()
    pending = Pending(clock, work)
    assert result_of(pending.within(0)) is False
    first = begin(pending.within(5))
    clock.advance(5)
    assert result_of(first) is False
    second = begin(pending.within())
    work.errback(ValueError("x"))
    assert result_of(second) is True
    with pytest.raises(ValueError, match="x"):
        pending.result()
    assert result_of(pending.within(0)) is True


def test_leaving() -> None:
    """Who leaves ends the work for themselves, or drops what came of it."""
    dropped: list[str] = []
    cancelled = Deferred[str]()
    waiting = begin(Pending(Clock(), cancelled, dropped.append).within(9))
    waiting.cancel()
    with pytest.raises(CancelledError):
        result_of(waiting)
    assert cancelled.called
    there = Deferred[str]()
    pending = Pending(Clock(), there, dropped.append)
    there.callback("file")
    pending.leave()
    assert dropped == ["file"]
