"""A client, and its connection to a server of one blob, without a reactor."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from forgereg.flow.source import FileSource
from forgereg.flow.threads import InThread
from forgereg.web.stream import ClientLeft, send
from tests.deferreds import begin
from tests.doubles import at_once

L = TypeVar("L", bound="Line")

DATA = os.urandom(64) * 2**13  # two turns that differs everywhere
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


#: Half-open, within the blob.
STRETCH = st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA))).map(
    lambda pair: (min(pair), max(pair))
)


class Loop(Clock):
    """A reactor that only notes who wants to write."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: set[Any] = set()

    def addReader(self, reader: object) -> None:  # noqa: N802
        pass

    def removeReader(self, reader: object) -> None:  # noqa: N802
        pass

    def addWriter(self, writer: object) -> None:  # noqa: N802
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:  # noqa: N802
        self.writers.discard(writer)


class Line:
    """A client, and the connection that it has to a server of one blob."""

    def __init__(
        self,
        path: Path,
        parts: list[bytes | tuple[int, int]],
        in_thread: InThread = at_once,
        size: int = len(DATA),
    ) -> None:
        self.sent: list[Deferred[None]] = []
        self.requests: list[Request] = []
        self.source: FileSource
        length = sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in parts)

        def process(request: Request) -> None:
            request.setHeader("Content-Length", str(length))
            file = path.open("rb", buffering=0)
            # The blob is a stretch of its file.
            self.source = FileSource(file, size, in_thread, 1)
            done = begin(send(self.source, parts, request))
            done.addCallback(lambda _: request.finish())
            self.requests.append(request)
            self.sent.append(done)

        class Asked(Request):
            def process(self) -> None:
                process(self)

        channel = HTTPChannel()
        channel.requestFactory = Asked
        channel.timeOut = None
        loop: Any = Loop()
        self.loop: Loop = loop
        self.client, end = socket.socketpair()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        address = ("127.0.0.1", 1)
        server: Any = None
        self.transport = Server(end, channel, address, server, 1, loop)
        here = IPv4Address("TCP", *address)
        vars(self.transport).update(setTcpNoDelay=bool, getHost=lambda: here)
        self.client.setblocking(False)
        self.connect(channel)

    def connect(self, channel: HTTPChannel) -> None:
        channel.makeConnection(self.transport)

    def ask(self, data: bytes = GET) -> Deferred[None]:
        self.transport.protocol.dataReceived(data)
        return self.sent[-1]

    def turn(self) -> None:
        for writer in list(self.loop.writers):
            reason = writer.doWrite()
            if reason is not None:
                writer.connectionLost(Failure(reason))

    def receive(self, most: int = 2**20) -> bytes:
        try:
            return self.client.recv(most)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.client.close()
        if not self.transport.disconnected:
            self.transport.connectionLost(Failure(ConnectionDone()))
        for sent in self.sent:
            sent.addErrback(lambda failure: failure.trap(ClientLeft) and None)

    def receive_all(self, most: int = 2**20) -> bytes:
        received, silent = b"", 0
        while silent < 3:
            self.turn()
            piece = self.receive(most)
            silent = 0 if piece else silent + 1
            received += piece
        return received


def is_closed(source: FileSource) -> bool:
    try:
        return source.extent is None
    except ValueError:
        return True


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@contextmanager
def several(kind: type[L]) -> Iterator[Callable[..., L]]:
    """Give what makes lines, and close them at the end."""
    opened: list[L] = []

    def line(*args: Any, **kwargs: Any) -> L:
        opened.append(kind(*args, **kwargs))
        return opened[-1]

    yield line
    for each in opened:
        each.close()


def blob_in(folder: Path) -> Path:
    """Write a file that has `DATA` behind its first byte."""
    path = folder / "blob"
    path.write_bytes(b"!" + DATA)
    return path
