"""
What came of looking up something that may change elsewhere. Pure.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")

#: How long a flake may take to be reached where one can go on without, and how long it
#: is left alone where it could not be, in seconds.
LOOK_SECONDS, RETRY_SECONDS = 60.0, 30.0


@frozen
class Looked(Generic[T]):
    """
    What came of looking something up.

    :ivar at: when, in seconds since the epoch; 0 where it is to be done again.
    :ivar stale: why nothing came of it; what was found before stands instead.
    """

    found: T
    at: float
    stale: str | None = None

    def is_fresh(
        self, now: float, most_seconds: float, retry_seconds: float = RETRY_SECONDS
    ) -> bool:
        """Whether it is still to be trusted; clocks may be set back."""
        most = most_seconds if self.stale is None else retry_seconds
        return self.at <= now < self.at + most
