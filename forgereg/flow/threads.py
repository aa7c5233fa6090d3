"""
The seam through which blocking work leaves the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from forgereg.logs import logger
from forgereg.oci.errors import DiskFull

_log = logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class InThread(Protocol):
    """Call a function in a thread; cancelling only drops its result."""

    def __call__(
        self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...


async def note(
    in_thread: InThread, remember: Callable[P, None], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Remember what only saves time; a full disk must not be in the way."""
    try:
        await in_thread(remember, *args, **kwargs)
    except DiskFull as e:
        _log.warn("not remembered: {error}", error=e)


def or_drop(work: Deferred[T], drop: Callable[[T], object]) -> Deferred[T]:
    """
    Wait for a result that somebody has to see to, if only to let go of it.

    :param drop: is given the result if it comes after the waiting was cancelled.
    """
    waiting: Deferred[T] = Deferred()

    def land(outcome: T | Failure) -> None:
        if not waiting.called:
            waiting.callback(outcome)
        elif not isinstance(outcome, Failure):
            drop(outcome)

    work.addBoth(land)
    return waiting
