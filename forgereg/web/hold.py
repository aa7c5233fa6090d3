"""
Keep a client waiting, as long as its kind can bear.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from forgereg.flow.report import Report
from forgereg.logs import logger
from forgereg.oci.errors import RegistryError
from forgereg.oci.manifest import PAD

_log = logger(__name__)

T = TypeVar("T")


@define(eq=False)
class Pending(Generic[T]):
    """
    A result that is waited for in several stretches.

    Cancelling whoever waits cancels the work.
    """

    _clock: IReactorTime
    _work: Deferred[T]
    _outcome: list[T | Failure] = field(init=False, factory=list)
    _waiting: Deferred[None] | None = field(init=False, default=None)
    _is_abandoned: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._work.addBoth(self._land)

    def _land(self, outcome: T | Failure) -> None:
        self._outcome.append(outcome)
        if self._is_abandoned:
            self.abandon()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def within(self, seconds: float) -> bool:
        """
        Wait for the result, but no longer than that; it may still come later.

        :param seconds: may be infinite.
        :returns: whether it, or a failure, is there.
        """
        if not self._outcome:
            waiting: Deferred[None] = Deferred()
            self._waiting = waiting
            timer = None
            if seconds != math.inf:
                timer = self._clock.callLater(seconds, self._wake)
            try:
                await waiting
            except CancelledError:
                self._waiting = None
                self._is_abandoned = True
                self._work.cancel()
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

    def abandon(self) -> None:
        """Wait no more; a failure that is a bug is logged when it comes."""
        self._is_abandoned = True
        for outcome in self._outcome:
            if isinstance(outcome, Failure):
                if not outcome.check(RegistryError, CancelledError):
                    _log.failure("nobody waited any more", outcome)


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
    while end_seconds > 0:
        seconds = min(space_seconds, end_seconds)
        if await pending.within(seconds):
            break
        end_seconds -= seconds
        if written < len(PAD):
            write(PAD[:1])
            written += 1
    return PAD[:written]


def describe_wait(image: str, build: Report | None, now: float) -> str:
    """Tell somebody who is not to wait any longer what there is to wait for."""
    if build is None:
        return f"{image} is on its way; pull again in a minute"
    progress, since = build.progress, build.asked_at
    done = f", {progress.done}/{progress.expected} derivations" * bool(
        progress.expected
    )
    return (
        f"{image} is still {build.state.value}{done}, after {(now - since) / 60:.0f} min;"
        f" its log: /-/api/builds/{build.id}/log; pull again in a minute"
    )
