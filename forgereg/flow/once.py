"""
Do a piece of work once, however many ask for it at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from forgereg.logs import logger
from forgereg.oci.errors import RegistryError

_log = logger(__name__)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@define
class Once(Generic[K, T]):
    """
    Join callers that ask for the same key while its work is under way.

    The work outlives whoever asked for it: a caller that goes away, even the last
    one, leaves it running. Nothing is remembered: the next call after the end, good
    or bad, starts anew.
    """

    #: key → those who wait, in the order they came
    _flights: dict[K, dict[Deferred[T], None]] = field(init=False, factory=dict)

    def do(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        Give the result of ``work()``, started by this call or by an earlier one.

        :returns: a Deferred of this caller's own; cancelling it is leaving.
        """
        flight = self._flights.get(key)
        if flight is not None:
            return self._join(flight)
        flight = self._flights[key] = {}
        mine = self._join(flight)
        Deferred.fromCoroutine(work()).addBoth(self._land, key)
        return mine

    def _join(self, flight: dict[Deferred[T], None]) -> Deferred[T]:
        mine: Deferred[T] = Deferred(lambda d: flight.pop(d, None))
        flight[mine] = None
        return mine

    def _land(self, result: T | Failure, key: K) -> None:
        flight = self._flights.pop(key)
        if not flight and isinstance(result, Failure):
            if not result.check(RegistryError):
                _log.failure("nobody waited any more for {key}", result, key=key)
        for waiter in list(flight):
            # One who is told may make another leave.
            if waiter in flight:
                waiter.callback(result)
