"""
Have every blob read again once in a while, so slowly that nobody notices.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from forgereg.blobs.scrub import Scrub
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.metrics import Metrics

_log = logger(__name__)

_DAY = 86400.0
#: How much is checked before other work has its turn, in bytes.
STEP = 8 * 2**20
#: The share of the time in which a thread, and the disk, may be busy with it.
_SHARE = 0.05
#: How long it waits at least, and before it looks at its settings again, in seconds.
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 3600.0


@frozen
class Round:
    """
    How far the blobs have been read again.

    A restart goes on where the last one was, and counts anew.

    :ivar began_at: by the clock that it is given.
    :ivar bytes: that were read.
    :ivar is_over: whether nothing is left.
    """

    began_at: float
    bytes: int = 0
    is_over: bool = False


@define(eq=False)
class Scrubber:
    """
    Goes through the blobs, one file after another.

    A file is read in one go, at a small share of the time, so that a restart seldom
    comes in between; then it rests until that file's share of the period is over.

    :ivar stored: gives how many bytes there are.
    :ivar days: gives in how many days all is to be read once, as it is set now; 0 for
        never. It takes longer where the share of the time does not suffice.
    :ivar round: the last one, or the one that is under way; None before the first.
    """

    _scrub: Scrub
    _stored: Callable[[], int]
    _days: Callable[[], float]
    _clock: IReactorTime
    _in_thread: InThread
    _metrics: Metrics = field(factory=Metrics)
    round: Round | None = field(init=False, default=None)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _is_stopped: bool = field(init=False, default=False)
    _is_busy: bool = field(init=False, default=False)
    _is_between: bool = field(init=False, default=True)
    #: When it began to read what it has read since, and how much that is in bytes.
    _since: float = field(init=False, default=0.0)
    _read: int = field(init=False, default=0)

    def start(self) -> None:
        """Begin in a while, unless it was stopped already."""
        if not self._is_stopped:
            self._wait(_LEAST_SECONDS)

    def stop(self) -> None:
        """End at once; a step that is under way is the last one."""
        self._is_stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self._is_busy:
            self._scrub.close()

    def _wait(self, seconds: float) -> None:
        self._timer = self._clock.callLater(seconds, self._wake)

    def _wake(self) -> None:
        Deferred.fromCoroutine(self._go_on())

    async def _go_on(self) -> None:
        rest = self._rest()
        if not rest:
            self._is_busy = True
            try:
                rest = await self._step()
            except Exception:
                _log.failure("blobs are not checked")
                rest = _MOST_SECONDS
            self._is_busy = False
        if self._is_stopped:
            self._scrub.close()
        else:
            self._wait(rest)

    def _rest(self) -> float:
        """Say how long to rest before the next file, in seconds, as far as is known."""
        days = self._days()
        if not days:
            return _MOST_SECONDS
        if not self._is_between:
            return 0.0
        share = self._read / max(self._stored(), self._read, 1)
        due = self._since + share * days * _DAY - self._clock.seconds()
        return max(0.0, min(due, _MOST_SECONDS))

    async def _step(self) -> float:
        begin = self._clock.seconds()
        if self._is_between:
            self._since, self._read = begin, 0
        step = await self._in_thread(self._scrub.step, STEP)
        self._is_between = step.is_between
        self._metrics.scrubbed_blobs.inc(step.files)
        self._metrics.scrubbed_bytes.inc(step.bytes)
        self._metrics.damaged_blobs.inc(step.damaged)
        self._read += step.bytes
        self._count(begin, step.bytes)
        if not step.bytes:
            return _MOST_SECONDS  # there is nothing, or a round is over
        took = self._clock.seconds() - begin
        idle = max(took * (1 / _SHARE - 1), _LEAST_SECONDS if step.is_between else 0.0)
        return max(idle, self._rest())

    def _count(self, begin: float, bytes: int) -> None:
        round = self.round
        if bytes and (round is None or round.is_over):
            round = Round(begin)
        if round is not None:
            self.round = evolve(round, bytes=round.bytes + bytes, is_over=not bytes)
