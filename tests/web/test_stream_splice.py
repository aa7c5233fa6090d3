"""Tests for `forgereg.web.stream`, over TCP connections of Twisted's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from forgereg.flow.source import FileSource
from forgereg.flow.threads import InThread
from forgereg.web.stream import ClientLeft, Truncated, send
from tests.deferreds import begin, no_result, result_of
from tests.doubles import Threads, at_once

DATA = os.urandom(64) * 2**13  # two turns that differs everywhere
_GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@define
class Loop:
    """A reactor that only notes who wants to write."""

    writers: set[Any] = field(init=False, factory=set)

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
        channel.makeConnection(self.transport)
        self.client.setblocking(False)

    def ask(self, data: bytes = _GET) -> Deferred[None]:
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

    def receive_all(self) -> bytes:
        received, silent = b"", 0
        while silent < 3:
            self.turn()
            piece = self.receive()
            silent = 0 if piece else silent + 1
            received += piece
        return received


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("splice") / "blob"
    path.write_bytes(b"!" + DATA)
    return path


@pytest.fixture
def lines() -> Iterator[Callable[..., Line]]:
    opened: list[Line] = []

    def line(*args: Any, **kwargs: Any) -> Line:
        opened.append(Line(*args, **kwargs))
        return opened[-1]

    yield line
    for each in opened:
        each.close()


def is_closed(source: FileSource) -> bool:
    try:
        return source.extent is None
    except ValueError:
        return True


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


STRETCH = st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA))).map(
    lambda pair: (min(pair), max(pair))
)


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=9) | STRETCH, max_size=4),
    cached=st.lists(st.booleans(), max_size=12),
)
def test_sends_what_was_asked_for(
    path: Path, parts: list[bytes | tuple[int, int]], cached: list[bool]
) -> None:
    """Whatever the page cache has, a client gets the bytes asked for, in their order."""
    line = Line(path, parts)
    known = iter(cached)
    with pytest.MonkeyPatch.context() as patch:
        preadv = os.preadv

        def choosy(*args: Any) -> int:
            if not next(known, True):
                raise BlockingIOError
            return preadv(*args)

        patch.setattr(os, "preadv", choosy)
        sent = line.ask()
        answer = line.receive_all()
    result_of(sent)
    line.close()
    wanted = [p if isinstance(p, bytes) else DATA[p[0] : p[1]] for p in parts]
    assert body_of(answer) == b"".join(wanted)
    assert line.requests[0].sentLength == len(b"".join(wanted))
    assert is_closed(line.source)


def test_kernel_copies(
    path: Path, lines: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the page cache goes to a plain socket without being read."""
    sizes: list[int] = []
    preadv = os.preadv

    def watched(fd: int, buffers: list[bytearray], *args: int) -> int:
        sizes.append(len(buffers[0]))
        return preadv(fd, buffers, *args)

    monkeypatch.setattr(os, "preadv", watched)
    line = lines(path, [(0, len(DATA))])
    line.ask()
    assert body_of(line.receive_all()) == DATA
    assert set(sizes) == {1}


def test_next_request(path: Path, lines: Callable[..., Line]) -> None:
    """Requests that come behind one another are answered one after another."""
    line = lines(path, [(0, 2**18)])
    line.ask(_GET * 2)
    answer = line.receive_all()
    assert answer.count(DATA[: 2**18]) == 2
    assert len(line.sent) == 2


def test_head(path: Path, lines: Callable[..., Line]) -> None:
    """A HEAD is answered without a body, whoever asks to send one."""
    line = lines(path, [(0, 9)])
    line.ask(_GET.replace(b"GET", b"HEAD"))
    assert body_of(line.receive_all()) == b""


def test_client_that_does_not_read(path: Path, lines: Callable[..., Line]) -> None:
    """Of what a slow client does not take, nothing is kept in memory."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    for _ in range(9):
        line.turn()
    no_result(sent)
    assert len(line.transport.dataBuffer) + line.transport._tempDataLen == 0
    assert line.loop.writers == {line.transport}


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_client_leaves(path: Path, lines: Callable[..., Line], turns: int) -> None:
    """When the client hangs up, its file is closed and nobody waits."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    for _ in range(turns):
        line.turn()
    line.client.close()
    for _ in range(9):
        line.turn()
    with pytest.raises(ClientLeft):
        result_of(sent)
    assert is_closed(line.source)
    assert line.loop.writers == set()


def test_cancelled(path: Path, lines: Callable[..., Line]) -> None:
    """Cancelling closes the file, whatever the connection does afterwards."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    line.turn()
    sent.addErrback(lambda _: None)
    sent.cancel()
    assert is_closed(line.source)
    line.turn()
    line.turn()


def test_truncated(path: Path, lines: Callable[..., Line]) -> None:
    """A file that is shorter than promised is an error, never a short answer."""
    line = lines(path, [(0, len(DATA) + 1)], size=len(DATA) + 1)
    sent = line.ask()
    assert body_of(line.receive_all()) == DATA
    with pytest.raises(Truncated, match="^1 bytes are missing"):
        result_of(sent)


def test_file_system_that_cannot(
    path: Path, lines: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel cannot copy from a file, it is read."""

    def sendfile(*args: object) -> int:
        raise OSError("Invalid argument")

    monkeypatch.setattr(os, "sendfile", sendfile)
    line = lines(path, [(0, len(DATA))])
    line.ask()
    assert body_of(line.receive_all()) == DATA


def test_slow_disk(
    path: Path, lines: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not in the page cache is waited for in a thread."""

    def preadv(*args: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", preadv)
    threads = Threads()
    threads.pause()
    line = lines(path, [(0, len(DATA))], threads)
    sent = line.ask()
    assert body_of(line.receive_all()) == b""
    no_result(sent)
    threads.resume()
    assert line.receive_all() == DATA
