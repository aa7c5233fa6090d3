"""
Send server-sent events, no faster than the browser reads, and look at what they tell of
once for all who watch it.

Source: HTML Living Standard, section 9.2, "Server-sent events".
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from http import HTTPStatus
from typing import Any, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.server import Request

from forgereg.flow.once import Once
from forgereg.web.answer import break_off, whole
from forgereg.web.stream import ClientLeft, Gate

T = TypeVar("T")

#: How many streams there may be at a time, and of one client.
MOST_STREAMS, _MOST_OF_ONE = 200, 50
#: After how long a silence something is sent, so that no proxy takes it for the end, and
#: after what time a browser comes again, in seconds.
_SILENCE, _RETRY = 15.0, 3


@define(eq=False)
class Pulse:
    """
    A clock for all who watch, which stands still while nobody does.

    :ivar seconds: from one beat to the next.
    """

    _clock: IReactorTime
    _seconds: float
    _timer: IDelayedCall | None = field(init=False, default=None)
    _waiting: dict[Deferred[None], None] = field(init=False, factory=dict)
    _once: Once[Hashable, Any] = field(init=False, factory=Once)
    #: what was seen since the last beat
    _seen: dict[Hashable, Any] = field(init=False, factory=dict)

    def beat(self) -> Deferred[None]:
        """Wait for the next beat; cancelling is leaving."""
        waiting: Deferred[None] = Deferred(lambda d: self._waiting.pop(d, None))
        self._waiting[waiting] = None
        self._start()
        return waiting

    async def look(
        self, key: Hashable, look: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """
        Look at something, or give what somebody has seen since the last beat.

        :param key: equal for what is the same.
        """
        if key not in self._seen:
            seen = await self._once.do(key, look)
            self._seen[key] = seen
            self._start()
            return cast(T, seen)
        return cast(T, self._seen[key])

    def _start(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._seen.clear()
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:  # one who is told may make another leave
                each.callback(None)


@define(eq=False)
class Stream:
    """One browser that is told of what happens."""

    _request: Request
    _gate: Gate
    _clock: IReactorTime
    _sent_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sent_at = self._clock.seconds()

    async def send(self, event: str, data: str, id: str | None = None) -> None:
        """
        Tell something, once the browser has read what came before.

        :param id: what the browser says when it comes again.
        :raises ClientLeft: it is not there any more.
        """
        await self._gate.opened()
        lines = [f"event: {event}"]
        if id is not None:
            lines.append(f"id: {id}")
        lines += (f"data: {line}" for line in data.replace("\r", "").split("\n"))
        self._write("\n".join([*lines, "", ""]))

    def keep_alive(self) -> None:
        """Say something if nothing was said for long."""
        is_late = self._clock.seconds() - self._sent_at >= _SILENCE
        if is_late and not self._gate.is_paused:
            self._write(":\n\n")

    def _write(self, text: str) -> None:
        self._sent_at = self._clock.seconds()
        self._request.write(text.encode("utf-8", "replace"))


@define(eq=False)
class Streams:
    """
    All the browsers that are told of what happens.

    :ivar client_of: gives the address of who asks.
    """

    _clock: IReactorTime
    _client_of: Callable[[Request], str]
    most: int = MOST_STREAMS
    most_of_one: int = _MOST_OF_ONE
    #: each with its client
    _running: dict[Deferred[None], str] = field(init=False, factory=dict)
    _is_over: bool = field(init=False, default=False)

    def stop(self) -> None:
        """End all of them, and begin none; browsers come again by themselves."""
        self._is_over = True
        for running in list(self._running):
            running.cancel()

    async def serve(
        self, request: Request, tell: Callable[[Stream], Coroutine[Any, Any, None]]
    ) -> bytes:
        """
        Answer with a stream.

        :param tell: sends the events; is cancelled when the browser has left.
        :returns: what is left of the body.
        """
        request.setHeader("Cache-Control", "no-store")
        client = self._client_of(request)
        if self._is_over or self._is_too_many(client):
            request.setResponseCode(HTTPStatus.SERVICE_UNAVAILABLE)
            request.setHeader("Retry-After", str(_RETRY))
            message = b"too many watch already; reload the page in place of that\n"
            return whole(request, "text/plain; charset=utf-8", message)
        request.setHeader("Content-Type", "text/event-stream; charset=utf-8")
        # Else nginx collects it.
        request.setHeader("X-Accel-Buffering", "no")
        if request.method == b"HEAD":
            return b""
        request.write(f"retry: {_RETRY * 1000}\n\n".encode())
        gate = Gate(None)
        request.registerProducer(gate, True)
        stream = Stream(request, gate, self._clock)
        running = Deferred.fromCoroutine(tell(stream))
        self._running[running] = client
        try:
            await running
        except ClientLeft:
            pass
        except CancelledError:
            if not self._is_over:
                raise
            if gate.is_paused:  # and would keep the registry from stopping
                return break_off(request)
        finally:
            del self._running[running]
            request.unregisterProducer()
        return b""

    def _is_too_many(self, client: str) -> bool:
        its = sum(each == client for each in self._running.values())
        return len(self._running) >= self.most or its >= self.most_of_one
