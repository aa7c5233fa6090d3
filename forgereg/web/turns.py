"""
Have whoever sends much let others have their turn.

A registry that sends to twenty clients would otherwise answer the twenty-first when each
of them has had a piece.
"""

from __future__ import annotations

from collections import deque

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

#: How long all transfers may send before the reactor looks at who else there is, and
#: after which time nobody has been sending, in seconds.
_SHARE_SECONDS, _IDLE_SECONDS = 0.00025, 0.005


@define(eq=False)
class Turns:
    """The transfers' share of the reactor's time."""

    _clock: IReactorTime
    _began: float = field(init=False, default=0.0)
    _is_over: bool = field(init=False, default=False)
    #: in the order they came
    _waiting: deque[Deferred[None]] = field(init=False, factory=deque)

    async def turn(self) -> None:
        """Wait until some more may be sent: not at all while the share lasts."""
        now = self._clock.seconds()
        if not self._is_over and now - self._began > _IDLE_SECONDS:
            self._began = now
        if self._is_over or not self.lasts:
            if not self._is_over:
                self._is_over = True
                self._clock.callLater(0, self._renew)
            mine: Deferred[None] = Deferred()
            self._waiting.append(mine)
            await mine

    @property
    def lasts(self) -> bool:
        """Whether who has a turn may go on sending."""
        return self._clock.seconds() - self._began <= _SHARE_SECONDS

    def _renew(self) -> None:
        self._began = self._clock.seconds()
        while self._waiting:
            if not self.lasts:
                self._clock.callLater(0, self._renew)
                return
            mine = self._waiting.popleft()
            if not mine.called:  # who has left was cancelled
                mine.callback(None)
        self._is_over = False
