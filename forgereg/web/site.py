"""
Put the resources together: who answers at which path, on every connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.web import http, server
from twisted.web.resource import Resource

from forgereg.lines import Answered
from forgereg.web.answer import repeatable
from forgereg.web.api import Api, refuse_method, refuse_path
from forgereg.web.connection import Channel, Request
from forgereg.web.ledger import Ledger
from forgereg.web.memo import Memo
from forgereg.web.nowhere import is_browser


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
        path = request.postpath or []
        room = self._find_room(path)
        if room is None:
            if request.method not in (b"GET", b"HEAD"):
                return refuse_method(request)
            if path[:1] != [b"v2"] and is_browser(request):
                room = self._find_room([b"-"])
        try:
            b"/".join([request.method, *path]).decode("utf-8")
        except UnicodeDecodeError:
            return refuse_path(request)
        return (room.resource if room else self._api).render(request)


class RegistrySite(server.Site):
    """The whole registry as a factory of connections; HTTP/2 is never offered."""

    #: Whether Twisted logs that it starts, as an object at an address.
    noisy = False

    def __init__(
        self,
        api: Api,
        rooms: Mapping[bytes, Room] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """
        Put the resources together.

        :param rooms: what answers, whatever the method, at paths that begin with
            ``-/<word>``, or are one word; by that, without the slash in front. What is
            at ``-`` answers browsers wherever nothing else does, but below ``v2``.
        :param ledger: told of each request.
        """
        super().__init__(_Front(api, self.room), requestFactory=Request)
        self._rooms = rooms or {}
        self._memo = Memo()
        self.ledger = ledger or Ledger()
        metrics = self.ledger.metrics
        metrics.watch(lambda: self.ledger.measure(self.channels))
        self._repeated = metrics.cache("answer")
        self.channels: set[Channel] = set()
        self.is_draining = False
        self._drained: Deferred[None] | None = None
        self.protocol = Channel  # type: ignore[assignment, method-assign]
        self.displayTracebacks = False

    @property
    def busy(self) -> int:
        """How many connections wait for an answer, or for the rest of one."""
        return sum(bool(channel.requests) for channel in self.channels)

    def room(self, path: Sequence[bytes]) -> Room | None:
        """Find who answers at a path, given in parts; None where it is the API."""
        words = path[:2] if path[:1] == [b"-"] else path
        return self._rooms.get(b"/".join(words))

    @property
    def _date(self) -> str:
        """The time, as the access log has it."""
        return str(self._logDateTime)[1:-1]

    def log(self, request: http.Request) -> None:
        """Tell of an answer that is over; keep it if it can be given again."""
        request = cast(Request, request)
        told = self._end(request)
        answer, channel = repeatable(request), cast(Channel, request.channel)
        if answer is None or channel.asked is None or not channel.persistent:
            return
        entry = self.ledger.entry(request, told)
        if entry is not None:
            self._memo.keep(channel.asked, request, answer, entry)
            self._repeated.count(False)

    def log_left(self, request: Request) -> None:
        """Tell that the client left before it had everything."""
        self._end(request, has_left=True)

    def _end(self, request: Request, *, has_left: bool = False) -> Answered:
        began_at, now = request.began_at, self.reactor.seconds()
        seconds = 0.0 if began_at is None else now - began_at
        return self.ledger.end(request, self._date, seconds, has_left=has_left)

    def log_unread(
        self, channel: Channel, status: HTTPStatus, sent_bytes: int, what: str
    ) -> str:
        """Tell of what came and could not be read; give the name that it got."""
        return self.ledger.unread(channel.peer, self._date, status, sent_bytes, what)

    def answer_again(self, channel: Channel, asked: bytes) -> bool:
        """Answer as the last time, if that is still the answer."""
        kept = None if self.is_draining else self._memo.find(asked)
        if kept is None:
            return False
        began_at = self.reactor.seconds()
        request_id = self.ledger.name()
        pieces = kept.pieces(request_id)
        if pieces is None:
            self._memo.drop(asked)
            return False
        channel.resetTimeout()
        channel.writeSequence(pieces)
        seconds = self.reactor.seconds() - began_at
        self.ledger.again(kept.entry, request_id, channel, self._date, seconds)
        self._repeated.count(True)
        return True

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
