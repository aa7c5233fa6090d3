"""
Tell of each request: in the access log, in the metrics, and in the traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from forgereg.lines import Access, Answered, header_text
from forgereg.logs import logger
from forgereg.metrics import Answers, Metrics
from forgereg.traces import NoTraces, Tracer
from forgereg.web.access import REQUEST_ID, answered, asked_id, request_ids
from forgereg.web.count import OTHER, Count
from forgereg.web.guard import ADMIN, Clients, Guard

if TYPE_CHECKING:
    from forgereg.web.connection import Channel, Request

_access = logger("forgereg.access")


@frozen
class Entry:
    """
    What is to be told again each time that an answer is given again.

    :ivar headers: of the request.
    """

    told: Answered
    headers: Headers
    answers: Answers


@frozen
class _Again:
    """A request that was made before, as far as it says who asks."""

    requestHeaders: Headers  # noqa: N815
    _address: IAddress

    def getClientAddress(self) -> IAddress:  # noqa: N802
        return self._address


@define(eq=False)
class Ledger:
    """
    Tells of requests to whoever wants to know.

    :ivar clients: names them.
    :ivar guard: knows the administrator.
    :ivar now: gives seconds since the epoch.
    """

    clients: Clients = field(factory=Clients)
    guard: Guard = field(factory=Guard)
    now: Callable[[], float] = float
    metrics: Metrics = field(factory=Metrics)
    tracer: Tracer = field(factory=NoTraces)
    _ids: Iterator[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ids = request_ids(self.now)

    def begin(self, request: Request, clock: Callable[[], float]) -> None:
        """
        Give a request its name, and begin to count and to trace it.

        :param clock: gives seconds.
        """
        request.count = Count.of(self.metrics, clock, request.method, request.path)
        request.request_id = asked_id(request) or next(self._ids)
        request.setHeader(REQUEST_ID, request.request_id)
        if self.tracer.is_on:
            method, path = header_text(request.method), header_text(request.path)
            client, headers = self.clients.name(request), request.requestHeaders
            request.span = self.tracer.request(
                method or "", path or "", client, headers
            )

    def end(
        self, request: Request, at: str, seconds: float, *, has_left: bool = False
    ) -> Answered:
        """
        Tell how a request was answered.

        :param at: as the access log has times.
        :param seconds: how long it took.
        :param has_left: whether the client left before it had everything.
        """
        user = ADMIN if self.guard.is_shown_token(request) else None
        told = answered(request, user)
        request.span.end(told.status, told.sent_bytes, has_left=has_left)
        client, name = self.clients.name(request), request.request_id
        _tell(Access(told, client, at, seconds, name, has_left))
        return told

    def entry(self, request: Request, told: Answered) -> Entry | None:
        """Say what to tell when a request that was just answered comes again."""
        # Who names each request asks no two with the same bytes.
        if request.count is None or asked_id(request) is not None:
            return None
        answers = request.count.answers(request.code)
        return Entry(told, request.requestHeaders, answers)

    def unread(
        self, peer: str, at: str, status: HTTPStatus, sent_bytes: int, what: str
    ) -> str:
        """
        Tell of a request that could not be read; give the name that it got.

        :param what: came in its place; it stands in the log where the path does.
        """
        told = Answered("-", what, "-", status, sent_bytes, None, None, None)
        request_id = next(self._ids)
        _tell(Access(told, peer, at, 0.0, request_id))
        answers = self.metrics.requests.answers(OTHER, OTHER, int(status))
        answers.count(sent_bytes, 0.0, 0.0)
        return request_id

    def name(self) -> str:
        """Name a request that brought no name."""
        return next(self._ids)

    def again(
        self, entry: Entry, request_id: str, channel: Channel, at: str, seconds: float
    ) -> None:
        """Tell that what was answered once was answered again."""
        told, headers, client = entry.told, entry.headers, channel.peer
        if headers.hasHeader(b"x-forwarded-for"):
            client = self.clients.name(_Again(headers, channel.getPeer()))
        if self.tracer.is_on:
            path = told.target.partition("?")[0]
            span = self.tracer.request(told.method, path, client, headers)
            span.end(told.status, told.sent_bytes)
        _tell(Access(told, client, at, seconds, request_id))
        entry.answers.count(told.sent_bytes, seconds, seconds)

    def measure(self, channels: Iterable[Channel]) -> None:
        """Tell the metrics what is going on."""
        channels = list(channels)
        requests = [each for channel in channels for each in channel.requests]
        counts = [(each.count, each.sentLength) for each in requests if each.count]
        for count, sent in counts:
            count.sent(sent)
        transfers = [c for c, _ in counts if c.route == "blob" and c.is_answering]
        self.metrics.connections.set(len(channels))
        self.metrics.active_requests.set(len(counts))
        self.metrics.transfers.set(len(transfers))


def _tell(access: Access) -> None:
    _access.info("{access}", access=access)
