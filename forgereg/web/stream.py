"""
Send stretches of a blob to a client, no faster than it reads.

Over plain TCP the kernel copies straight from the page cache to the socket, and over TLS
(`web/tls.py`) it is encrypted straight to there; where anything else lies between, and
where the disk has to be waited for, the bytes are read and written to the request.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol, cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.tcp import Server
from twisted.web.http import Request
from zope.interface import implementer

from forgereg.flow.source import Source
from forgereg.web.tls import beside
from forgereg.web.turns import Turns

#: How much is read at a time, in bytes: larger pieces cost the allocator more than they
#: save, and more memory for each client that is slow.
CHUNK = 2**16
#: How much the kernel copies before it is asked whether the turn is over, in bytes.
_PIECE = 2**17
#: How far apart the bytes are by which the page cache is asked whether it has a stretch:
#: the kernel fills it, and lets go of it, in larger pieces.
_PROBE = 2**17


class Truncated(Exception):
    """The blob ended before the stretch did; what was sent is short."""


class ClientLeft(Exception):
    """The client hung up before the end."""


@implementer(IPushProducer)
@define
class Gate:
    """
    Where a sender waits while the client does not read, or others send.

    :ivar turns: of all who send; None for one who sends alone.
    """

    _turns: Turns | None
    _waiting: Deferred[None] | None = field(init=False, default=None)
    _paused: bool = field(init=False, default=False)
    _stopped: bool = field(init=False, default=False)

    @property
    def is_paused(self) -> bool:
        """Whether the client does not read."""
        return self._paused

    @property
    def may_go_on(self) -> bool:
        """Whether the turn lasts, and the client is there."""
        is_open = not (self._paused or self._stopped)
        return is_open and self._turns is not None and self._turns.lasts

    async def opened(self) -> None:
        """
        Wait until some more may be written.

        :raises ClientLeft: nothing may any more.
        """
        had_turn = self._turns is None
        while not self._stopped and (self._paused or not had_turn):
            if self._paused:
                self._waiting = Deferred()
                await self._waiting
            elif self._turns is not None:
                await self._turns.turn()
                had_turn = True
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
    turns: Turns | None = None,
) -> None:
    """
    Write bytes, and stretches of a blob, one after another to the consumer.

    The blob is closed at the end, however it comes; cancelling is one way.

    :param parts: bytes as they are, and half-open ``(start, stop)`` in the blob; None
        for its end, wherever that is.
    :param turns: of all who send; None for one who sends alone.
    :raises Truncated: the blob is shorter than it should be.
    :raises ClientLeft: the consumer wants no more.
    :raises RegistryError: it cannot be had, or is not what it should be.
    """
    gate = Gate(turns)
    try:
        consumer.registerProducer(gate, True)
        for part in parts:
            if isinstance(part, bytes):
                consumer.write(part)
                continue
            position, stop = part
            while stop is None or position < stop:
                await gate.opened()
                if stop is not None:
                    position += await _splice(source, position, stop, consumer, gate)
                    if position == stop:
                        break
                wanted = CHUNK if stop is None else min(CHUNK, stop - position)
                data = source.peek(position, wanted)
                if not data:
                    data = await source.read(position, wanted)
                if not data:
                    if stop is None:
                        break
                    raise Truncated(f"{stop - position} bytes are missing")
                position += len(data)
                consumer.write(data)
    finally:
        source.close()
        consumer.unregisterProducer()


class _Way(Protocol):
    """
    How a file gets to a client without being written to its request.

    :ivar tcp: the connection.
    """

    @property
    def tcp(self) -> Server: ...

    def settle(self) -> bool:
        """Hand on to the connection what was written; give whether that is all."""

    def copy(self, source: Source, start: int, stop: int) -> int | None:
        """
        Send some of what can be read without waiting for a disk.

        :returns: how many bytes were taken; None where they have to be read.
        """


@frozen
class _Plain:
    """The kernel copies."""

    tcp: Server
    _gate: Gate

    def settle(self) -> bool:
        return True

    def copy(self, source: Source, start: int, stop: int) -> int | None:
        position, is_free = start, True
        while is_free and position < stop:
            end = min(stop, position + _PIECE)
            count = self._copy_piece(source, position, end)
            if count is None:
                return position - start or None
            position += count
            is_free = position == end and self._gate.may_go_on
        return position - start

    def _copy_piece(self, source: Source, start: int, stop: int) -> int | None:
        if source.extent is None or not _is_cached(source, start, stop):
            return None
        (fd, offset), out = source.extent, self.tcp.fileno()
        try:
            return os.sendfile(out, fd, offset + start, stop - start) or None
        except (BlockingIOError, ConnectionError):
            return 0  # the transport finds out which
        except OSError:  # this file system cannot do it
            return None


async def _splice(
    source: Source, start: int, stop: int, consumer: IConsumer, gate: Gate
) -> int:
    """
    Send what can be without its being written to the consumer.

    :returns: how many bytes; what follows them has to be read.
    """
    request = consumer
    if stop - start <= _PROBE or not isinstance(request, Request):
        return 0  # what is short goes out with the headers
    way = _way(request, gate)
    if way is None or source.extent is None:
        return 0
    request.write(b"")  # the headers come first
    position, tcp = start, way.tcp
    while position < stop:
        is_settled = way.settle()
        if tcp.disconnecting or tcp.producer is None:
            request.loseConnection()  # which waits for nobody any more
            raise ClientLeft
        cast(IPushProducer, tcp.producer).pauseProducing()
        if is_settled:
            # It resumes us when it has nothing to write any more, and can.
            tcp.producerPaused = True
            tcp.startWriting()
        await gate.opened()
        if not is_settled:
            continue
        count = way.copy(source, position, stop)
        if count is None:
            break
        position += count
        request.sentLength += count
    return position - start


def _way(request: Request, gate: Gate) -> _Way | None:
    """Give the way around the request, if what is written to it is sent as it is."""
    # Else it is chunked.
    is_whole = request.responseHeaders.hasHeader("Content-Length")
    if not is_whole or request.method == b"HEAD":
        return None
    transport = request.channel and request.channel.transport
    if type(transport) is Server:
        return None if transport.TLS else _Plain(transport, gate)
    return beside(transport)


def _is_cached(source: Source, start: int, stop: int) -> bool:
    return all(source.peek(at, 1) for at in (*range(start, stop, _PROBE), stop - 1))
