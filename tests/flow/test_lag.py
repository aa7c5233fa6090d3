"""Tests for `forgereg.flow.lag`."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from forgereg.flow.lag import Lag
from forgereg.metrics import Metrics


def value(metrics: Metrics, name: str) -> float | None:
    """Read a metric."""
    return metrics.registry.get_sample_value(name)


@pytest.mark.parametrize(("late", "lag"), [(0.0, 0.0), (0.5, 0.5)])
def test_how_late(late: float, lag: float) -> None:
    """Whoever keeps the reactor busy for half a second makes it half a second late."""
    clock, metrics = Clock(), Metrics()
    Lag(clock, metrics).start()
    clock.advance(1.0 + late)
    assert value(metrics, "forge_reactor_lag_latest_seconds") == lag
    clock.pump([1.0, 1.0])
    assert value(metrics, "forge_reactor_lag_latest_seconds") == 0
    assert value(metrics, "forge_reactor_lag_seconds_count") == 3
    assert value(metrics, "forge_reactor_lag_seconds_sum") == lag


def test_clock_that_is_set_back() -> None:
    """A clock that is set back does not make the reactor early."""
    clock, metrics = Clock(), Metrics()
    Lag(clock, metrics).start()
    clock.advance(0.9)
    clock.rightNow -= 10.0
    (timer,) = clock.getDelayedCalls()
    timer.reset(0.0)
    clock.advance(0.0)
    assert value(metrics, "forge_reactor_lag_seconds_sum") == 0


def test_stopping() -> None:
    """Nothing is looked at any more once the registry stops, or before it starts."""
    clock, metrics = Clock(), Metrics()
    lag = Lag(clock, metrics)
    lag.stop()
    lag.start()
    clock.advance(1.0)
    lag.stop()
    lag.stop()
    assert clock.getDelayedCalls() == []
