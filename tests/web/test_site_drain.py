"""Tests for `forgereg.web.site`: how connections end when the registry stops."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from forgereg.oci.media import MANIFESTS
from tests.client import Connection
from tests.deferreds import no_result, result_of
from tests.registry import ANY_FORM, Served

LATEST = "/v2/packages/hello/manifests/latest"
CONTAINERD = [("Accept", f"{', '.join(MANIFESTS)}, */*")]


def gone(connection: Connection) -> None:
    """Let a connection that the registry has closed be closed, as TCP does."""
    assert connection.closed
    connection._channel.connectionLost(Failure(ConnectionDone()))


def leave_all(served: Served) -> None:
    """Have every client leave."""
    for channel in list(served.site.channels):
        channel.connectionLost(Failure(ConnectionDone()))


def test_nobody_is_there(served: Served) -> None:
    """A registry that nobody uses stops at once."""
    result_of(served.site.drain())


def test_idle_connections(served: Served) -> None:
    """A connection that nothing was asked over, or all was answered, is closed."""
    fresh, used = served.connect(), served.connect()
    used.ask("GET", "/v2/")
    used.answer()
    drained = served.site.drain()
    no_result(drained)
    assert not fresh.closed  # its first request may be on the way
    served.clock.advance(1.0)
    gone(fresh)
    no_result(drained)
    gone(used)
    result_of(drained)


def test_first_request_on_the_way(served: Served) -> None:
    """Who had just connected when the registry began to stop is answered all the same."""
    client = served.connect()
    drained = served.site.drain()
    client.ask("GET", "/v2/")
    answer = client.answer()
    assert (answer.status, answer["Connection"]) == (200, "close")
    gone(client)
    result_of(drained)


def test_waiting_clients(served: Served) -> None:
    """Who waits for an image gets it, and reads that the connection ends."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    drained = served.site.drain()
    assert not client.closed
    served.nix.finish()
    answer = client.answer()
    assert (answer.status, answer["Connection"]) == (200, "close")
    gone(client)
    result_of(drained)


def test_answers_that_have_begun(served: Served) -> None:
    """An early answer goes on to its end."""
    served.nix.pause()
    client = served.begin(LATEST, CONTAINERD)
    served.clock.advance(20.0)
    drained = served.site.drain()
    served.clock.advance(25.0)
    served.nix.finish()
    assert client.answer().json["layers"]
    gone(client)
    result_of(drained)


def test_slow_transfers(served: Served) -> None:
    """A layer is sent to its end, however slowly it is read."""
    digest = served.digests("packages/hello")[-1]
    leave_all(served)
    client = served.connect()
    client.wire.slow = True
    client.ask("GET", f"/v2/packages/hello/blobs/{digest}")
    drained = served.site.drain()
    no_result(drained)
    while not client.closed:
        client.read_on()
    assert client.answer().status == 200
    gone(client)
    result_of(drained)


def test_requests_that_had_begun_to_come(served: Served) -> None:
    """A request whose second half comes while the registry stops is the last one."""
    client = served.connect()
    client.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")
    drained = served.site.drain()
    assert not client.closed
    client.send(b"\r\n")
    answer = client.answer()
    assert (answer.status, answer["Connection"]) == (200, "close")
    gone(client)
    result_of(drained)


@pytest.mark.parametrize("half", [b"", b"Content-Length: 9\r\n\r\n{"])
def test_requests_that_stop_halfway(served: Served, half: bytes) -> None:
    """Who sends half a request, and no more, does not keep the registry from stopping."""
    client = served.connect()
    client.send(b"POST /-/api/builds HTTP/1.1\r\nHost: x\r\n" + half)
    drained = served.site.drain()
    served.clock.advance(4.0)
    assert not client.closed
    served.clock.advance(1.0)
    gone(client)
    result_of(drained)


def test_new_connections(served: Served) -> None:
    """Who came in at the last moment is answered, and the connection ends."""
    waiting = served.connect()
    drained = served.site.drain()
    late = served.begin("/v2/")
    served.clock.advance(1.0)
    gone(waiting)
    answer = late.answer()
    assert (answer.status, answer["Connection"]) == (200, "close")
    gone(late)
    result_of(drained)


def test_requests_behind_others(served: Served) -> None:
    """What was sent behind a request is not begun any more, and may be sent again."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    client.ask("GET", "/v2/")
    drained = served.site.drain()
    served.nix.finish()
    assert client.answer().status == 200
    gone(client)
    result_of(drained)


def test_breaking_off(served: Served) -> None:
    """When the time to stop is up, whoever still waits is cut off."""
    served.nix.pause()
    clients = [served.begin(LATEST, ANY_FORM) for _ in range(3)]
    drained = served.site.drain()
    drained.cancel()
    with pytest.raises(CancelledError):
        result_of(drained)
    for client in clients:
        assert client.aborted
        client.hang_up()
    served.nix.finish()
    assert not served.site.channels
