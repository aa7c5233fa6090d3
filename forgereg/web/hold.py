"""
Keep a client waiting, as long as its kind can bear.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from forgereg.flow.report import Report
from forgereg.oci.errors import StillBuilding
from forgereg.oci.manifest import PAD

T = TypeVar("T")


def _ignore(result: object) -> None:
    pass


@define(eq=False)
class Pending(Generic[T]):
    """
    A result that is waited for in several stretches.

    Cancelling whoever waits is leaving.

    :ivar drop: is given the result at the end.
    """

    _clock: IReactorTime
    _work: Deferred[T]
    _drop: Callable[[T], object] = _ignore
    _outcome: list[T | Failure] = field(init=False, factory=list)
    _waiting: Deferred[None] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._work.addBoth(self._land)

    def _land(self, outcome: T | Failure) -> None:
        self._outcome.append(outcome)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def within(self, seconds: float = inf) -> bool:
        """
        Wait for the result, but no longer than that; it may still come later.

        :returns: whether it, or a failure, is there.
        """
        if not self._outcome and seconds > 0:
            waiting: Deferred[None] = Deferred()
            self._waiting = waiting
            timer = None
            if seconds != inf:
                timer = self._clock.callLater(seconds, self._wake)
            try:
                await waiting
            except CancelledError:
                self._waiting = None
                self.leave()
                raise
            finally:
                if timer is not None and timer.active():
                    timer.cancel()
        return self.is_there

    @property
    def is_there(self) -> bool:
        """Whether the result, or a failure, is there."""
        return bool(self._outcome)

    def result(self) -> T:
        """Give the result, or raise the failure; it must be there."""
        (outcome,) = self._outcome
        if isinstance(outcome, Failure):
            outcome.raiseException()
        return outcome

    def leave(self) -> None:
        """Wait no more: cancel the work, or drop its result."""
        self._work.cancel()
        for outcome in self._outcome:
            if not isinstance(outcome, Failure):
                self._drop(outcome)


async def trickle(
    pending: Pending[T],
    write: Callable[[bytes], None],
    space_seconds: float,
    end_seconds: float,
) -> bytes:
    """
    Write the pad, a space now and again, until a result is there.

    :param end_seconds: how long to wait at most.
    :returns: what was written.
    """
    written = 0
    while written < len(PAD) and end_seconds > space_seconds:
        if await pending.within(space_seconds):
            return PAD[:written]
        write(PAD[:1])
        written += 1
        end_seconds -= space_seconds
    await pending.within(end_seconds)
    return PAD[:written]


def still_building(image: str, build: Report | None, now: float) -> StillBuilding:
    """Tell somebody who is not to wait any longer what there is to wait for."""
    if build is None:
        return StillBuilding(f"{image} is on its way; pull again in a minute")
    progress, since = build.progress, build.asked_at
    done = f", {progress.done}/{progress.expected} derivations" * bool(
        progress.expected
    )
    seconds = now - since
    time = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return StillBuilding(
        f"{image} is still {build.state.value}{done}, after {time};"
        " pull again in a minute",
        build_id=build.id,
    )
