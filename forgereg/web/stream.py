"""
Send stretches of a blob to a client, no faster than it reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from forgereg.flow.source import Source

#: How much is read at a time, in bytes: what Twisted sends at a time.
CHUNK = 2**17


class Truncated(Exception):
    """The blob ended before the stretch did; what was sent is short."""


class ClientLeft(Exception):
    """The client hung up before the end."""


@implementer(IPushProducer)
@define
class _Gate:
    """Where a sender waits while the client does not read."""

    _waiting: Deferred[None] | None = field(init=False, default=None)
    _paused: bool = field(init=False, default=False)
    _stopped: bool = field(init=False, default=False)

    async def opened(self) -> None:
        while self._paused and not self._stopped:
            self._waiting = Deferred()
            await self._waiting
        if self._stopped:
            raise ClientLeft

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


async def send(
    source: Source,
    parts: Sequence[bytes | tuple[int, int | None]],
    consumer: IConsumer,
) -> None:
    """
    Write bytes, and stretches of a blob, one after another to the consumer.

    The blob is closed at the end, however it comes; cancelling is one way.

    :param parts: bytes as they are, and half-open ``(start, stop)`` in the blob; None
        for its end, wherever that is.
    :raises Truncated: the blob is shorter than it should be.
    :raises ClientLeft: the consumer wants no more.
    :raises RegistryError: it cannot be had, or is not what it should be.
    """
    gate = _Gate()
    try:
        consumer.registerProducer(gate, True)
        for part in parts:
            if isinstance(part, bytes):
                consumer.write(part)
                continue
            position, stop = part
            while stop is None or position < stop:
                await gate.opened()
                wanted = CHUNK if stop is None else min(CHUNK, stop - position)
                data = source.peek(position, wanted)
                if not data:
                    data = await source.read(position, wanted)
                if not data and stop is None:
                    break
                if not data:
                    raise Truncated(f"{stop} bytes were promised, {position} are there")
                position += len(data)
                consumer.write(data)
    finally:
        source.close()
        consumer.unregisterProducer()
