"""
Look once a second how late the reactor is: whatever keeps it busy keeps clients waiting.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from forgereg.metrics import Metrics

_SECONDS = 1.0


@define(eq=False)
class Lag:
    """How late the reactor is, from `start` to `stop`."""

    _clock: IReactorTime
    _metrics: Metrics
    _timer: IDelayedCall | None = field(init=False, default=None)

    def start(self) -> None:
        """Look for the first time in a second."""
        due = self._clock.seconds() + _SECONDS
        self._timer = self._clock.callLater(_SECONDS, self._look, due)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _look(self, due: float) -> None:
        lag = max(0.0, self._clock.seconds() - due)  # clocks may be set back
        self._metrics.lag.set(lag)
        self._metrics.lag_seconds.observe(lag)
        self.start()
