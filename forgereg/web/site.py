"""
Put the resources together, and speak HTTP/1.1 as registries' clients do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from io import BytesIO
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from forgereg.lines import Access, Answered, header_text
from forgereg.logs import logger, mark, unmark
from forgereg.metrics import Metrics
from forgereg.traces import NOTHING, NoTraces, Span, Tracer
from forgereg.web.access import REQUEST_ID, answered, asked_id, request_ids
from forgereg.web.answer import is_cut, repeatable
from forgereg.web.api import Api, refuse_method, refuse_path
from forgereg.web.count import CUT, OTHER, Count
from forgereg.web.guard import ADMIN, Clients, Guard
from forgereg.web.memo import Memo, is_head
from forgereg.web.problem import problem

_access = logger("forgereg.access")

#: How long a line of a request, and all its headers, may be, in bytes: clients that
#: pull chunks send a Range of 18 kB, and some put a token in a header.
_MAX_HEADERS = 2**17
#: How long a connection without a request may stay when the registry stops, in seconds.
_FIRST_SECONDS = 1
#: How long whoever sent something unreadable may go on, in seconds; also how long the
#: rest of a request may be waited for when the registry stops.
_LINGER_SECONDS = 5

_TLS_HANDSHAKE = b"\x16"
#: Source: tried with docker, containerd and podman, which take it for "no TLS here"
#: only if it begins with HTTP/, and wait for 10 s and more if nothing comes at all.
_NO_TLS = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"\r\nThis port speaks plain HTTP, and was spoken to in TLS.\n"
)


def _ignore(data: bytes) -> None:
    pass


class _Channel(http.HTTPChannel):
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
                self.site.log_unread(self, HTTPStatus.BAD_REQUEST)
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
        request_id = self.site.log_unread(self, status, len(body)).encode()
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


class _Request(server.Request):
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
        site = cast(_Channel, self.channel).site
        clock = site.reactor.seconds
        self.count = Count.of(site.metrics, clock, self.method, self.path)
        if self._kept:
            # Not before: Twisted would look for forms in it.
            self.content = BytesIO(self._kept)
        self.request_id = asked_id(self) or next(site.request_ids)
        self.setHeader(REQUEST_ID, self.request_id)
        self.span = site.trace(self)
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
            cast(Any, self.channel).site.log_left(self)
        super().connectionLost(reason)

    def unregisterProducer(self) -> None:
        # Where the client has left there is no channel any more.
        if self.channel is not None:
            super().unregisterProducer()

    def getRequestHostname(self) -> bytes:
        # Nothing here depends on it, and a malformed one must not matter.
        return b"registry"


@frozen
class Room:
    """
    What answers below a path of its own.

    :ivar resource: a leaf: it finds the whole path in ``postpath``.
    :ivar max_body: how much of a body it is given in ``content``, in bytes; one more if
        there is more; nothing if it is 0.
    """

    resource: Resource
    max_body: int = 0


@frozen
class _Again:
    """A request that was made before, as far as it says who asks."""

    requestHeaders: Headers  # noqa: N815
    _address: IAddress

    def getClientAddress(self) -> IAddress:  # noqa: N802
        return self._address


_FindRoom = Callable[[Sequence[bytes]], Room | None]


class _Front(Resource):
    """What is decided before any route."""

    isLeaf = True

    def __init__(self, api: Api, find_room: _FindRoom) -> None:
        super().__init__()
        self._api = api.app.resource()
        self._find_room = find_room

    def render(self, request: server.Request) -> Any:
        request.setHeader("Server", "forge-registry")
        request.setHeader("Docker-Distribution-Api-Version", "registry/2.0")
        request.setHeader("X-Content-Type-Options", "nosniff")
        room = self._find_room(request.postpath or [])
        if room is None and request.method not in (b"GET", b"HEAD"):
            return refuse_method(request)
        try:
            b"/".join([request.method, *(request.postpath or [])]).decode("utf-8")
        except UnicodeDecodeError:
            return refuse_path(request)
        return (room.resource if room else self._api).render(request)


class RegistrySite(server.Site):
    """The whole registry as a factory of connections; HTTP/2 is never offered."""

    def __init__(
        self,
        api: Api,
        rooms: Mapping[bytes, Room] | None = None,
        clients: Clients | None = None,
        guard: Guard | None = None,
        now: Callable[[], float] = float,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """
        Put the resources together.

        :param rooms: what answers, whatever the method, at paths that begin with
            ``-/<word>``, or are one word; by that, without the slash in front.
        :param clients: names them, for the access log.
        :param guard: knows the administrator, for the access log.
        :param now: gives seconds since the epoch.
        :param tracer: told of each request.
        """
        super().__init__(_Front(api, self.room), requestFactory=_Request)
        self._rooms = rooms or {}
        self._clients = clients or Clients()
        self._guard = guard or Guard()
        self.request_ids = request_ids(now)
        self._tracer = tracer or NoTraces()
        self._memo = Memo()
        self.metrics = metrics or Metrics()
        self.metrics.watch(self._measure)
        self._repeated = self.metrics.cache("answer")
        self.channels: set[_Channel] = set()
        self.is_draining = False
        self._drained: Deferred[None] | None = None
        self.protocol = _Channel  # type: ignore[assignment, method-assign]
        self.displayTracebacks = False

    @property
    def busy(self) -> int:
        """How many connections wait for an answer, or for the rest of one."""
        return sum(bool(channel.requests) for channel in self.channels)

    def room(self, path: Sequence[bytes]) -> Room | None:
        """Find who answers at a path, given in parts; None where it is the API."""
        words = path[:2] if path[:1] == [b"-"] else path
        return self._rooms.get(b"/".join(words))

    def log(self, request: http.Request) -> None:
        """Write the access log, as loud as everything else."""
        told = self._log_answer(cast(_Request, request))
        answer, channel = repeatable(request), cast(_Channel, request.channel)
        if answer is not None and channel.asked is not None and channel.persistent:
            # Who names each request asks no two with the same bytes.
            if asked_id(request) is None:
                count = cast(Count, cast(_Request, request).count)
                answers = count.answers(request.code)
                self._memo.keep(channel.asked, request, answer, told, answers)
                self._repeated.count(False)

    def log_left(self, request: _Request) -> None:
        """Write that the client left before it had everything."""
        self._log_answer(request, has_left=True)

    def log_unread(
        self, channel: _Channel, status: HTTPStatus, sent_bytes: int = 0
    ) -> str:
        """Tell of a request that could not be read; give the name that it got."""
        told = Answered("-", "-", "-", status, sent_bytes, None, None, None)
        request_id = next(self.request_ids)
        self._log_access(told, channel.peer, 0.0, request_id)
        self.metrics.requests.answers(OTHER, OTHER, int(status)).count(
            sent_bytes, 0.0, 0.0
        )
        return request_id

    def _log_answer(self, request: _Request, *, has_left: bool = False) -> Answered:
        user = ADMIN if self._guard.is_shown_token(request) else None
        told = answered(request, user)
        now = self.reactor.seconds()
        seconds = 0.0 if request.began_at is None else now - request.began_at
        request.span.end(told.status, told.sent_bytes, has_left=has_left)
        client = self._clients.name(request)
        self._log_access(told, client, seconds, request.request_id, has_left=has_left)
        return told

    def trace(self, request: _Request) -> Span:
        """Begin to trace a request, if it is one that is traced."""
        if not self._tracer.is_on:
            return NOTHING
        method, path = header_text(request.method), header_text(request.path)
        client, headers = self._clients.name(request), request.requestHeaders
        return self._tracer.request(method or "", path or "", client, headers)

    def _log_access(
        self,
        told: Answered,
        client: str,
        seconds: float,
        request_id: str,
        *,
        has_left: bool = False,
    ) -> None:
        at = str(self._logDateTime)[1:-1]
        access = Access(told, client, at, seconds, request_id, has_left)
        _access.info("{access}", access=access)

    def answer_again(self, channel: _Channel, asked: bytes) -> bool:
        """Answer as the last time, if that is still the answer."""
        kept = None if self.is_draining else self._memo.find(asked)
        if kept is None:
            return False
        began_at = self.reactor.seconds()
        request_id = next(self.request_ids)
        pieces = kept.pieces(request_id)
        if pieces is None:
            self._memo.drop(asked)
            return False
        channel.resetTimeout()
        channel.writeSequence(pieces)
        client = channel.peer
        if kept.headers.hasHeader(b"x-forwarded-for"):
            client = self._clients.name(_Again(kept.headers, channel.getPeer()))
        if self._tracer.is_on:
            told = kept.told
            path = told.target.partition("?")[0]
            span = self._tracer.request(told.method, path, client, kept.headers)
            span.end(told.status, told.sent_bytes)
        seconds = self.reactor.seconds() - began_at
        self._log_access(kept.told, client, seconds, request_id)
        kept.answers.count(len(kept.body), seconds, seconds)
        self._repeated.count(True)
        return True

    def _measure(self) -> None:
        """Tell the metrics what is going on."""
        requests = [each for channel in self.channels for each in channel.requests]
        counts = [(each.count, each.sentLength) for each in requests if each.count]
        for count, sent in counts:
            count.sent(sent)
        transfers = [c for c, _ in counts if c.route == "blob" and c.is_answering]
        self.metrics.connections.set(len(self.channels))
        self.metrics.active_requests.set(len(counts))
        self.metrics.transfers.set(len(transfers))

    def drain(self) -> Deferred[None]:
        """
        Answer what was asked for, and close every connection.

        :returns: fires when all are closed; cancelling it breaks off those that are not.
        """
        self.is_draining = True
        drained = self._drained = Deferred(lambda _: self._break_off())
        for channel in list(self.channels):
            channel.end_soon()
        self.tell_drained()
        return drained

    def tell_drained(self) -> None:
        """Be told that a connection is closed."""
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            if not drained.called:
                drained.callback(None)

    def _break_off(self) -> None:
        for channel in list(self.channels):
            channel.forceAbortClient()

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/1.1 alone: with Twisted it is several times faster."""
        return [b"http/1.1"]
