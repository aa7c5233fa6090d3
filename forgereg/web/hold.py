"""
Keep a client waiting, as long as its kind can bear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from forgereg.flow.report import Report
from forgereg.oci.manifest import PAD

T = TypeVar("T")


async def within(clock: IReactorTime, found: Deferred[T], seconds: float) -> bool:
    """
    Wait for a result, but no longer than that; it may still come later.

    Cancelling this cancels the result.

    :returns: whether it, or a failure, is there.
    """
    if found.called:
        return True
    came: Deferred[bool] = Deferred()

    def tell(result: T) -> T:
        if not came.called:
            came.callback(True)
        return result

    found.addBoth(tell)
    timer = clock.callLater(seconds, came.callback, False)
    try:
        return await came
    except CancelledError:
        found.addErrback(lambda _: None)
        found.cancel()
        raise
    finally:
        if timer.active():
            timer.cancel()


async def trickle(
    clock: IReactorTime,
    found: Deferred[T],
    write: Callable[[bytes], None],
    space_seconds: float,
    end_seconds: float,
) -> tuple[bytes, bool]:
    """
    Write the pad, a space now and again, until a result is there.

    :param end_seconds: how long to wait at most.
    :returns: what was written, and whether the result is there.
    """
    written = 0
    while end_seconds > 0:
        seconds = min(space_seconds, end_seconds)
        if await within(clock, found, seconds):
            return PAD[:written], True
        end_seconds -= seconds
        if written < len(PAD):
            write(PAD[:1])
            written += 1
    return PAD[:written], False


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
