"""
Do a piece of work once, however many ask for it at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from copy import copy
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

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

    _flights: dict[K, list[Deferred[T]]] = field(init=False, factory=dict)

    def do(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        Give the result of ``work()``, started by this call or by an earlier one.

        :returns: a Deferred of this caller's own; cancelling it is leaving.
        """
        mine: Deferred[T] = Deferred(lambda d: self._leave(key, d))
        flight = self._flights.get(key)
        if flight is not None:
            flight.append(mine)
            return mine
        self._flights[key] = [mine]
        Deferred.fromCoroutine(work()).addBoth(self._land, key)
        return mine

    def _leave(self, key: K, mine: Deferred[T]) -> None:
        self._flights[key].remove(mine)

    def _land(self, result: T | Failure, key: K) -> None:
        for waiter in self._flights.pop(key):
            if isinstance(result, Failure):
                # An exception of its own: each caller adds to its traceback.
                waiter.errback(Failure(copy(result.value)))
            else:
                waiter.callback(result)
