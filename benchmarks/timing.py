"""
Seconds: of one piece of work, and of two in turns.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence


def seconds(work: Callable[[], object]) -> float:
    """Time some work."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], times: int
) -> tuple[float, float]:
    """
    Measure two things one after the other, several times.

    :returns: the median of each.
    """
    pairs = [(ours(), theirs()) for _ in range(times)]
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """
    Give the smallest value that a share of all values does not exceed. Pure.

    :param values: at least one.
    :param share: above 0, at most 1.
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]
