"""
At most so many at a time, and fair between those who ask.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from math import inf

from attrs import define, field
from twisted.internet.defer import Deferred

from forgereg.flow.errand import Errand
from forgereg.flow.report import State
from forgereg.metrics import Metrics
from forgereg.oci.errors import TooManyBuilds


@define
class Slots:
    """
    Places for work that must not all run at once.

    Of those who wait, the client is next that was served longest ago, and of its
    errands the one that came first: who asks for a hundred things does not keep
    another waiting who asks for one.

    :ivar most_waiting: how many may wait, whatever they are; may be changed as well.
    """

    _most: int
    most_waiting: float = inf
    _taken: int = field(init=False, default=0)
    #: who waits, in the order they came → on whose behalf
    _queue: dict[Deferred[None], Sequence[str]] = field(init=False, factory=dict)
    #: client → when it was served last, as a number that grows
    _served: dict[str, int] = field(init=False, factory=dict)
    _serving: bool = field(init=False, default=False)
    _turns: count[int] = field(init=False, factory=lambda: count(1))

    @property
    def most(self) -> int:
        """How many there are; may be changed at any time."""
        return self._most

    @most.setter
    def most(self, most: int) -> None:
        self._most = most
        self._serve()

    @property
    def taken(self) -> int:
        """How many are at work."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    @property
    def has_room(self) -> bool:
        """Whether whoever comes now need not wait."""
        return not self._queue and self._taken < self._most

    def tell(self, work: str, metrics: Metrics) -> None:
        """Have metrics show how many there are, taken and waited for."""

        def measure() -> None:
            metrics.slots.labels(work).set(self._most)
            metrics.taken_slots.labels(work).set(self._taken)
            metrics.queue_length.labels(work).set(len(self._queue))

        metrics.watch(measure)

    @asynccontextmanager
    async def turn(self, errand: Errand, state: State) -> AsyncIterator[None]:
        """
        Wait for a place, and have it until the block is left.

        :param state: which the errand enters once it has a place.
        :raises TooManyBuilds: too many wait already.
        """
        if self.has_room:
            self._taken += 1
        else:
            await self._wait(errand)
        try:
            errand.enter(state)
            yield
        finally:
            self._taken -= 1
            self._serve()

    async def _wait(self, errand: Errand) -> None:
        errand.queue()
        if len(self._queue) >= self.most_waiting:
            raise TooManyBuilds(
                f"{len(self._queue)} are waiting, and no more may (FORGE_MAX_QUEUE);"
                " ask again later"
            )
        mine: Deferred[None] = Deferred(self._queue.__delitem__)
        self._queue[mine] = errand.asked_by
        await errand.wait(mine)

    def _serve(self) -> None:
        if self._serving:
            return  # what was just served has ended already; a thousand may in a row
        self._serving = True
        while self._queue and self._taken < self._most:
            _, _, client, mine = min(
                (self._served.get(client, 0), arrival, client, mine)
                for arrival, (mine, clients) in enumerate(self._queue.items())
                for client in clients
            )
            del self._queue[mine]
            self._served[client] = next(self._turns)
            self._taken += 1
            mine.callback(None)
        self._serving = False
        if not self._queue:
            self._served.clear()
