"""A client that speaks raw HTTP to a site in memory, and reads answers strictly."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from http.client import HTTPMessage, parse_headers
from typing import Any

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Site
from zope.interface import implementer

from forgereg.oci.media import OCI_MANIFEST

Headers = Iterable[tuple[str, str]]

#: What clients call the registry.
HOST = "registry.test:6443"

#: What the distribution specification knows, and three that Docker's registry adds.
CODES = {
    "BLOB_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "PAGINATION_NUMBER_INVALID",
    "RANGE_INVALID",
    "TOOMANYREQUESTS",
    "UNKNOWN",
    "UNSUPPORTED",
}


@implementer(ITCPTransport)
class Wire(StringTransport):
    """
    One end of a TCP connection whose other end is the test.

    :ivar keep_alive: whether the kernel was told to look after the peer.
    :ivar half_closed: whether the registry has said its last word.
    :ivar slow: whether what is written fills the buffer.
    """

    slow = False
    keep_alive = False
    no_delay = False
    half_closed = False

    def write(self, data: bytes) -> None:
        if self.disconnected:
            return  # as TCP does when the connection was broken off
        super().write(data)
        if self.slow and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:  # noqa: N802
        self.write(b"".join(data))

    def getTcpKeepAlive(self) -> bool:  # noqa: N802
        return self.keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: N802
        self.keep_alive = enabled

    def getTcpNoDelay(self) -> bool:  # noqa: N802
        return self.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        self.no_delay = enabled

    def loseWriteConnection(self) -> None:  # noqa: N802
        self.half_closed = True


@frozen
class Answer:
    """One answer, whole."""

    status: int
    reason: str
    headers: HTTPMessage
    body: bytes

    def __getitem__(self, header: str) -> str | None:
        """Give a header that is there at most once."""
        values = self.headers.get_all(header, [])
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> tuple[str, str]:
        """Code and message of the one error that the body tells, as OCI has it."""
        assert self["Content-Type"] in ("application/json", OCI_MANIFEST)
        ((kind, errors),) = self.json.items()
        assert kind == "errors"
        (error,) = errors
        assert error.keys() == {"code", "message"}
        assert error["code"] in CODES
        return error["code"], error["message"]

    def check(self) -> None:
        """Fail unless it is what any client of a registry can read."""
        assert self.status < 500
        assert self.reason.isprintable()
        if self.status >= 400:
            # containerd looks for what it is told only among manifests.
            assert self["Content-Type"] in ("application/json", OCI_MANIFEST)
            assert self["Content-Length"] != "0"
            assert not self.body or self.error[1]  # HEAD has none
        assert "html" not in (self["Content-Type"] or "")


@define
class Connection:
    """A client's end of a connection."""

    wire: Wire
    _channel: Protocol
    _methods: list[str] = field(factory=list)

    @classmethod
    def to(
        cls, site: Site, host: IAddress | None = None, address: str = "192.0.2.1"
    ) -> Connection:
        """
        Connect to a site.

        :param host: where the site listens, as its transport tells it.
        :param address: where the client is.
        """
        peer = IPv4Address("TCP", address, 40000)
        channel = site.buildProtocol(peer)
        assert isinstance(channel, Protocol)
        # Lenient, as TCP is: a closed connection may be told to resume.
        wire = Wire(host or IPv4Address("TCP", "127.0.0.1", 6443), peer, lenient=True)
        channel.makeConnection(wire)
        return cls(wire, channel)

    def send(self, data: bytes) -> None:
        """Send some bytes."""
        self._channel.dataReceived(data)

    def ask(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes = b"",
        host: str = HOST,
    ) -> None:
        """Send a request; the target is sent as it is."""
        self._methods.append(method)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""])
        self.send(head.encode("latin-1") + body)

    def answers(self) -> list[Answer]:
        """Read every answer that has come since the last time; none may be partial."""
        rest = io.BytesIO(self.wire.value())
        self.wire.clear()
        answers = []
        while rest.tell() < len(rest.getvalue()):
            answers.append(_read(rest, self._methods, self.closed and not self.aborted))
        return answers

    def begun(self) -> Answer:
        """Read what has come of an answer in chunks that is not whole yet."""
        rest = io.BytesIO(self.wire.value())
        status, reason, headers = _read_head(rest)
        body, is_whole = _read_chunks(rest, headers)
        assert not is_whole
        return Answer(status, reason, headers, body)

    def answer(self) -> Answer:
        """Read the one answer that has come."""
        (answer,) = self.answers()
        return answer

    @property
    def silent(self) -> bool:
        """Whether nothing has come."""
        return not self.wire.value()

    @property
    def closed(self) -> bool:
        """Whether the registry has closed the connection."""
        return self.wire.disconnecting

    @property
    def aborted(self) -> bool:
        """Whether the registry broke the connection off."""
        return self.wire.disconnected

    def read_on(self) -> None:
        """Make room for more to come."""
        producer = self.wire.producer
        assert producer is not None
        producer.resumeProducing()

    def hang_up(self) -> None:
        """Leave, whatever was asked."""
        producer = self.wire.producer
        if producer is not None:
            producer.stopProducing()
        self._channel.connectionLost(Failure(ConnectionLost()))


def _read(rest: io.BytesIO, methods: list[str], is_over: bool) -> Answer:
    status, reason, headers = _read_head(rest)
    if status == 100:
        return _read(rest, methods, is_over)
    method = methods.pop(0) if methods else "?"
    if method == "HEAD" or status in (204, 304):
        return Answer(status, reason, headers, b"")
    length = headers["Content-Length"]
    if length is not None:
        assert headers["Transfer-Encoding"] is None
        body = rest.read(int(length))
        assert len(body) == int(length), "the answer is not whole yet"
    elif headers["Transfer-Encoding"] is not None:
        body, is_whole = _read_chunks(rest, headers)
        assert is_whole, "the answer is not whole yet"
    else:
        assert is_over, "only the end of the connection can end this body"
        body = rest.read()
    return Answer(status, reason, headers, body)


def _read_head(rest: io.BytesIO) -> tuple[int, str, HTTPMessage]:
    line = rest.readline()
    version, status, reason = line.decode("ascii").rstrip("\r\n").split(" ", 2)
    assert version in ("HTTP/1.1", "HTTP/1.0"), line
    return int(status), reason, parse_headers(rest)


def _read_chunks(rest: io.BytesIO, headers: HTTPMessage) -> tuple[bytes, bool]:
    """
    Read a body in chunks: RFC 9112, section 7.1, without extensions and trailers.

    :returns: what has come of it, and whether that is all.
    """
    assert headers.get_all("Transfer-Encoding") == ["chunked"]
    body = b""
    while line := rest.readline():
        assert re.fullmatch(rb"[0-9a-fA-F]+\r\n", line), line
        size = int(line, 16)
        chunk = rest.read(size)
        assert len(chunk) == size
        assert rest.read(2) == b"\r\n"
        if not size:
            return body, True
        body += chunk
    return body, False


def ask(
    site: Site,
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes = b"",
    address: str = "192.0.2.1",
    host: str = HOST,
) -> Answer:
    """Ask over a connection of its own, and give the answer."""
    connection = Connection.to(site, address=address)
    connection.ask(method, target, headers, body, host)
    return connection.answer()
