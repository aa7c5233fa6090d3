"""
Speak HTTP/1.1 as registries' clients do: connections, and the requests on them.
"""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server

from forgereg.logs import mark, unmark
from forgereg.traces import NOTHING, Span
from forgereg.web.answer import is_cut
from forgereg.web.count import CUT, Count
from forgereg.web.memo import is_head
from forgereg.web.problem import problem

if TYPE_CHECKING:
    from forgereg.web.site import RegistrySite

#: How long a line of a request, and all its headers, may be, in bytes: clients that
#: pull chunks send a Range of 18 kB, and some put a token in a header.
_MAX_HEADERS = 2**17
#: How long a connection without a request may stay when the registry stops, in seconds.
_FIRST_SECONDS = 1
#: How long whoever sent something unreadable may go on, in seconds; also how long the
#: rest of a request may be waited for when the registry stops.
_LINGER_SECONDS = 5

_TLS_HANDSHAKE = b"\x16"
#: Docker, podman and skopeo try it at each pull from a registry without TLS.
_TLS_HELLO = "(TLS ClientHello on a plain port)"
#: Source: tried with docker, containerd and podman, which take it for "no TLS here"
#: only if it begins with HTTP/, and wait for 10 s and more if nothing comes at all.
_NO_TLS = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"\r\nThis port speaks plain HTTP, and was spoken to in TLS.\n"
)


def _ignore(data: bytes) -> None:
    pass


class Channel(http.HTTPChannel):
    """A connection that answers what it cannot read."""

    MAX_LENGTH = _MAX_HEADERS
    totalHeadersSize = _MAX_HEADERS
    _begun = False
    #: the head of the request that is being answered, if it came whole and alone
    asked: bytes | None = None
    #: the other end's name
    peer: str
    site: RegistrySite

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.channels.add(self)
        self.peer = getattr(self.getPeer(), "host", None) or "local"
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpKeepAlive(True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.discard(self)
        super().connectionLost(reason)
        self.site.tell_drained()

    def end_soon(self) -> None:
        """Close once what was asked for has been answered: now, if nothing was."""
        if not self._begun:
            # Its first request may be on the way, and is the last one.
            self.setTimeout(_FIRST_SECONDS)
            return
        self.persistent = False
        for request in self.requests:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        if not self.requests:
            self.loseConnection()
        elif not self._handlingRequest:
            # Half a request is here, whose other half may never come.
            self.setTimeout(_LINGER_SECONDS)

    def checkPersistence(  # noqa: N802
        self, request: http.Request, version: bytes
    ) -> bool:
        # Also what had begun to come before, and what comes over a new connection.
        if super().checkPersistence(request, version) and not self.site.is_draining:
            return True
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False

    def dataReceived(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            if data.startswith(_TLS_HANDSHAKE):
                self.write(_NO_TLS)
                self.site.log_unread(self, HTTPStatus.BAD_REQUEST, 0, _TLS_HELLO)
                self._part()
                return
        if not (self._is_idle() and is_head(data)):
            super().dataReceived(data)
        elif not self.site.answer_again(self, data):
            self.asked = data
            super().dataReceived(data)
            self.asked = None

    def _is_idle(self) -> bool:
        """Whether what comes now begins a request, and is to be answered now."""
        is_between = not self.requests and not self._buffer and self.line_mode
        return bool(is_between and self.persistent and not self._waitingForTransport)

    def writeHeaders(self, *head: Any) -> None:  # noqa: N802
        count = self.requests[0].count
        if count is not None:
            count.begin()
        super().writeHeaders(*head)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._say_no(
            HTTPStatus.REQUEST_URI_TOO_LONG, "the request is too long to be read"
        )

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > self.totalHeadersSize:
            self._say_no(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request's headers are too long to be read",
            )
        else:
            self._say_no(HTTPStatus.BAD_REQUEST, "the request is not HTTP/1.1")

    def _say_no(self, status: HTTPStatus, message: str) -> None:
        body = problem(status, "NAME_INVALID", message).body
        name = self.site.log_unread(self, status, len(body), f"({message})")
        request_id = name.encode()
        self.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\nX-Request-Id: %b\r\n\r\n%b"
            % (status, status.phrase.encode(), len(body), request_id, body)
        )
        self._part()

    def _part(self) -> None:
        # Closing now would reset the connection, and the answer with it, while the
        # client is still sending.
        for receiver in ("dataReceived", "lineReceived", "rawDataReceived"):
            setattr(self, receiver, _ignore)
        self.setTimeout(_LINGER_SECONDS)
        transport = self.transport
        if ITCPTransport.providedBy(transport) and not self.isSecure():
            transport.loseWriteConnection()


def _path_of(target: bytes) -> bytes:
    """Give the path of what is asked for, which may be a whole URL."""
    # Source: RFC 9112, section 3.2.2.
    scheme, found, rest = target.partition(b"://")
    if found and scheme.lower() in (b"http", b"https"):
        return b"/" + rest.partition(b"/")[2]
    return target


class Request(server.Request):
    """
    A request whose body nobody wants, unless it is for one of the rooms.

    :ivar began_at: when its head was there, by the site's clock; None before.
    """

    began_at: float | None = None
    request_id = "-"
    span: Span = NOTHING
    #: None before all of it was read.
    count: Count | None = None

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        self._kept = bytearray()
        # Twisted tells the request itself only when the body is there.
        channel: Any = self.channel
        self.began_at = channel.site.reactor.seconds()
        path = _path_of(channel._path).partition(b"?")[0]
        room = channel.site.room(path.split(b"/")[1:])
        # One byte more than is allowed tells that there was more.
        self._most = room.max_body + 1 if room and room.max_body else 0

    def handleContentChunk(self, data: bytes) -> None:
        self._kept += data[: self._most - len(self._kept)]

    def process(self) -> None:
        self.path = _path_of(self.path)
        site = cast(Channel, self.channel).site
        if self._kept:
            # Not before: Twisted would look for forms in it.
            self.content = BytesIO(self._kept)
        site.ledger.begin(self, site.reactor.seconds)
        marked = mark(request_id=self.request_id, **self.span.marks)
        try:
            with self.span.work():
                super().process()
        finally:
            unmark(marked)

    def finish(self) -> None:
        super().finish()
        if self.count is not None:
            self.count.end(CUT if is_cut(self) else self.code, self.sentLength)

    def connectionLost(self, reason: Failure) -> None:
        if self.count is not None:
            self.count.end(CUT, self.sentLength)
        if self.began_at is not None and not self.finished:
            cast(Channel, self.channel).site.log_left(self)
        super().connectionLost(reason)

    def unregisterProducer(self) -> None:
        # Where the client has left there is no channel any more.
        if self.channel is not None:
            super().unregisterProducer()

    def getRequestHostname(self) -> bytes:
        # Nothing here depends on it, and a malformed one must not matter.
        return b"registry"
