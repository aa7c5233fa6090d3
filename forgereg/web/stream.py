"""
Send stretches of a file to a client, no faster than it reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from forgereg.flow.threads import InThread

#: How much is read at a time, in bytes: what Twisted sends at a time.
CHUNK = 2**17


class Truncated(Exception):
    """The file ended before the stretch did; what was sent is short."""


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
    file: BinaryIO,
    parts: Sequence[bytes | tuple[int, int]],
    consumer: IConsumer,
    in_thread: InThread,
) -> None:
    """
    Write bytes, and stretches of a file, one after another to the consumer.

    The file is closed at the end, however it comes; cancelling is one way.

    :param file: unbuffered.
    :param parts: bytes as they are, and half-open ``(start, stop)`` in the file.
    :raises Truncated: the file is shorter than it should be.
    :raises ClientLeft: the consumer wants no more.
    """
    gate = _Gate()
    try:
        consumer.registerProducer(gate, True)
        for part in parts:
            if isinstance(part, bytes):
                consumer.write(part)
                continue
            position, stop = part
            while position < stop:
                await gate.opened()
                wanted = min(CHUNK, stop - position)
                data = _read_cached(file, wanted, position)
                if not data:
                    # Not in the page cache: the disk may take its time.
                    data = await in_thread(os.pread, file.fileno(), wanted, position)
                if not data:
                    raise Truncated(f"{stop - position} bytes are missing")
                position += len(data)
                consumer.write(data)
    finally:
        file.close()
        consumer.unregisterProducer()


def _read_cached(file: BinaryIO, size: int, position: int) -> bytes:
    """
    Read what can be read without waiting for a disk; nothing where none can.

    Source: preadv2(2), RWF_NOWAIT.
    """
    buffer = bytearray(size)
    try:
        count = os.preadv(file.fileno(), [buffer], position, os.RWF_NOWAIT)
    except OSError:  # not cached, or a file system that cannot tell
        return b""
    return bytes(buffer) if count == size else bytes(buffer[:count])
