"""Tests for `forgereg.web.tls`, over TLS connections of Twisted's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Server
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from forgereg.web.stream import ClientLeft, Truncated
from forgereg.web.tls import beside
from tests.deferreds import no_result, result_of
from tests.doubles import Threads
from tests.web.line import (
    DATA,
    GET,
    STRETCH,
    Line,
    blob_in,
    body_of,
    is_closed,
    several,
)


def server_context() -> SSL.Context:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(1))
        .sign(key, hashes.SHA256())
    )
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_privatekey(key)
    context.use_certificate(certificate)
    return context


CONTEXT = server_context()


@implementer(IOpenSSLServerConnectionCreator)
class Connections:
    def serverConnectionForTLS(  # noqa: N802
        self, protocol: object
    ) -> SSL.Connection:
        connection = SSL.Connection(CONTEXT, None)
        connection.set_accept_state()
        return connection


class SecureLine(Line):
    """A line over TLS."""

    def __init__(
        self, *args: Any, version: int = SSL.TLS1_3_VERSION, **kwargs: Any
    ) -> None:
        self.version = version
        super().__init__(*args, **kwargs)

    def connect(self, channel: HTTPChannel) -> None:
        class Channels(Factory):
            def buildProtocol(self, addr: object) -> HTTPChannel:  # noqa: N802
                return channel

        factory = TLSMemoryBIOFactory(Connections(), False, Channels(), self.loop)
        tls = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert isinstance(tls, BufferingTLSTransport)
        self.tls, self.transport.protocol = tls, tls
        tls.makeConnection(self.transport)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(self.version)
        self.end = SSL.Connection(context, None)
        self.end.set_connect_state()
        self.receive()
        while self.end.get_state_string() != b"SSL negotiation finished successfully":
            self.turn()
            self.receive()

    def ask(self, data: bytes = GET) -> Any:
        self.end.send(data)
        self.tell()
        self.turn()
        return self.sent[-1]

    def tell(self) -> None:
        """Send what the client's TLS has to say."""
        try:
            self.client.sendall(self.end.bio_read(2**16))
        except SSL.WantReadError:
            pass

    def turn(self) -> None:
        if not self.transport.disconnected:
            reason = self.transport.doRead()
            if reason is not None:
                self.transport.connectionLost(Failure(reason))
        super().turn()
        self.loop.advance(0)

    def receive(self, most: int = 2**20) -> bytes:
        sealed = super().receive(most)
        if sealed:
            self.end.bio_write(sealed)
        received = b""
        try:
            while True:
                received += self.end.recv(2**16)
        except SSL.ZeroReturnError:
            self.end.shutdown()
        except SSL.WantReadError:
            pass
        self.tell()
        return received


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def lines() -> Iterator[Callable[..., SecureLine]]:
    with several(SecureLine) as line:
        yield line


@settings(max_examples=30)
@given(
    parts=st.lists(st.binary(max_size=9) | STRETCH, max_size=4),
    cached=st.lists(st.booleans(), max_size=12),
    most=st.sampled_from([2**20, 2**15]),
    limit=st.sampled_from([2**17, 2**15]),
)
def test_sends_what_was_asked_for(
    path: Path,
    parts: list[bytes | tuple[int, int]],
    cached: list[bool],
    most: int,
    limit: int,
) -> None:
    """Whatever the page cache has, a client gets the bytes asked for, in their order."""
    line = SecureLine(path, parts)
    known = iter(cached)
    with pytest.MonkeyPatch.context() as patch:
        preadv = os.preadv

        def choosy(*args: Any) -> int:
            if not next(known, True):
                raise BlockingIOError
            return preadv(*args)

        patch.setattr(os, "preadv", choosy)
        patch.setattr(Server, "SEND_LIMIT", limit)
        sent = line.ask()
        answer = line.receive_all(most)
    result_of(sent)
    line.close()
    wanted = [p if isinstance(p, bytes) else DATA[p[0] : p[1]] for p in parts]
    assert body_of(answer) == b"".join(wanted)
    assert line.requests[0].sentLength == len(b"".join(wanted))
    assert is_closed(line.source)


def test_beside_twisted(
    path: Path, lines: Callable[..., SecureLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the page cache is encrypted without passing through Twisted's TLS."""
    line = lines(path, [(0, len(DATA))])
    line.ask()
    # Its headers are under way.
    monkeypatch.setattr(line.tls, "write", None)
    assert body_of(line.receive_all()) == DATA


def test_unknown_twisted(path: Path, lines: Callable[..., SecureLine]) -> None:
    """Where Twisted's TLS is not as it is known, it is left to itself."""
    line = lines(path, [(0, len(DATA))])
    assert beside(line.transport) is None
    assert beside(None) is None
    del line.tls._appSendBuffer
    assert beside(line.tls) is None
    line.tls._appSendBuffer = []


def test_next_request(path: Path, lines: Callable[..., SecureLine]) -> None:
    """Requests that come behind one another are answered one after another."""
    line = lines(path, [(0, 2**18)])
    line.ask(GET * 2)
    answer = line.receive_all()
    assert answer.count(DATA[: 2**18]) == 2
    assert len(line.sent) == 2


def test_client_that_does_not_read(
    path: Path, lines: Callable[..., SecureLine]
) -> None:
    """Of what a slow client does not take, little is kept in memory."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    for _ in range(9):
        line.turn()
    no_result(sent)
    kept = len(line.transport.dataBuffer) + line.transport._tempDataLen
    assert 0 < kept < 2**17
    assert line.loop.writers == {line.transport}


@pytest.mark.parametrize("turns", range(6))
def test_new_keys(path: Path, lines: Callable[..., SecureLine], turns: int) -> None:
    """When keys are agreed on anew in between, sending waits for that, and goes on."""
    line = lines(path, [(0, len(DATA)), (0, len(DATA))], version=SSL.TLS1_2_VERSION)
    sent = line.ask()
    received = line.receive(turns * 2**15) if turns else b""
    assert line.tls.getHandle().renegotiate()
    received += line.receive_all()
    result_of(sent)
    assert body_of(received) == DATA * 2
    assert line.tls.getHandle().total_renegotiations() == 1


def test_new_keys_that_do_not_come(
    path: Path, lines: Callable[..., SecureLine]
) -> None:
    """While a client owes its part of new keys, nothing is kept for it, and all rest."""
    line = lines(path, [(0, len(DATA))], version=SSL.TLS1_2_VERSION)
    sent = line.ask()
    assert line.tls.getHandle().renegotiate()
    line.end.renegotiate()
    while line.loop.writers:
        line.receive()
        line.turn()
    no_result(sent)
    assert 0 < sum(map(len, line.tls._appSendBuffer)) < 2**17


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_client_leaves(
    path: Path, lines: Callable[..., SecureLine], turns: int
) -> None:
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


def test_client_says_goodbye(path: Path, lines: Callable[..., SecureLine]) -> None:
    """When the client ends its TLS in between, the connection is closed."""
    line = lines(path, [(0, len(DATA))])
    line.ask()
    line.end.shutdown()
    line.tell()
    line.receive_all()
    assert is_closed(line.source)
    assert line.transport.disconnected


def test_aborted(path: Path, lines: Callable[..., SecureLine]) -> None:
    """When the registry hangs up, its file is closed and nobody waits."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    line.requests[0].channel.forceAbortClient()
    line.loop.advance(0)
    with pytest.raises(ClientLeft):
        result_of(sent)
    assert is_closed(line.source)


def test_cancelled(path: Path, lines: Callable[..., SecureLine]) -> None:
    """Cancelling closes the file, whatever the connection does afterwards."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    line.turn()
    sent.addErrback(lambda _: None)
    sent.cancel()
    assert is_closed(line.source)
    line.turn()
    line.turn()


def test_truncated(path: Path, lines: Callable[..., SecureLine]) -> None:
    """A file that is shorter than promised is an error, never a short answer."""
    line = lines(path, [(0, len(DATA) + 1)], size=len(DATA) + 1)
    sent = line.ask()
    assert body_of(line.receive_all()) == DATA
    with pytest.raises(Truncated, match="^1 bytes are missing"):
        result_of(sent)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """A disk that has to be waited for."""

    def preadv(*args: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", preadv)
    threads = Threads()
    threads.pause()
    return threads


def test_slow_disk(path: Path, lines: Callable[..., SecureLine], slow: Threads) -> None:
    """What is not in the page cache is waited for in a thread."""
    line = lines(path, [(0, len(DATA))], in_thread=slow)
    sent = line.ask()
    assert body_of(line.receive_all()) == b""
    no_result(sent)
    slow.resume()
    assert line.receive_all() == DATA


def test_closed(path: Path, lines: Callable[..., SecureLine], slow: Threads) -> None:
    """When the registry closes the connection in between, nothing more is read."""
    line = lines(path, [(0, len(DATA))], in_thread=slow)
    sent = line.ask()
    line.receive_all()
    line.requests[0].loseConnection()
    slow.resume()
    with pytest.raises(ClientLeft):
        result_of(sent)
    line.receive_all()
    assert line.transport.disconnected
    assert is_closed(line.source)


def test_broken_tls(
    path: Path, lines: Callable[..., SecureLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When TLS breaks down in the middle of what is sent, the connection is broken."""

    def sendall(*args: object) -> int:
        raise SSL.Error([])

    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    monkeypatch.setattr(SSL.Connection, "sendall", sendall)
    line.receive_all()
    with pytest.raises(ClientLeft):
        result_of(sent)
    assert line.transport.disconnected
