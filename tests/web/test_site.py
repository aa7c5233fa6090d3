"""Tests for `forgereg.web.site`: what is decided before any route."""

from __future__ import annotations

import pytest
from twisted.internet.interfaces import ITCPTransport
from zope.interface.verify import verifyObject

from forgereg.nix.process import Exit
from tests.client import ask
from tests.conftest import Log
from tests.registry import ANY_FORM, Served, digest_of

LATEST = "/v2/packages/hello/manifests/latest"
DIGEST = digest_of(b"")
PATHS = [
    "/v2/",
    "/v2/_catalog",
    LATEST,
    f"/v2/packages/hello/manifests/{DIGEST}",
    f"/v2/packages/hello/blobs/{DIGEST}",
    "/v2/packages/hello/blobs/uploads/",
    f"/v2/packages/hello/blobs/uploads/?mount={DIGEST}&from=x",
    "/v2/packages/hello/blobs/uploads/1234?digest=x",
    "/v2/packages/hello/tags/list",
    "/v2/%FF",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get"]
)
def test_methods_that_would_write(running: Served, method: str, path: str) -> None:
    """Whoever tries to push reads that nothing can be pushed here."""
    for body in (b"", b'{"schemaVersion": 2}'):
        answer = ask(running.site, method, path, body=body)
        assert (answer.status, answer.error[0]) == (405, "UNSUPPORTED")
        assert answer["Allow"] == "GET, HEAD"
        assert "read-only" in answer.error[1]
        assert "read-only" in answer.reason
    assert running.nix.argvs == []


def test_connect(running: Served) -> None:
    """A client that takes the registry for a proxy is refused."""
    answer = ask(running.site, "CONNECT", "registry.test:443")
    assert (answer.status, answer.error[0]) == (405, "UNSUPPORTED")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        ";;;",
    ],
)
def test_bodies_of_any_kind(running: Served, method: str, kind: str) -> None:
    """What a body is said to be does not matter where nobody wants it."""
    for body in (b"", b"x=y&n=0", b"--x\r\n\r\n\r\n--x--"):
        answer = ask(running.site, method, "/v2/", [("Content-Type", kind)], body)
        assert (answer.status, answer.error[0]) == (405, "UNSUPPORTED")


def test_large_body(running: Served) -> None:
    """A push of a large layer is read to its end, kept nowhere, and refused."""
    connection = running.connect()
    size = 64 * 2**20
    connection.ask("PUT", LATEST, [("Content-Length", str(size))])
    chunk = bytes(2**20)
    for _ in range(64):
        assert connection.silent
        connection.send(chunk)
    assert connection.answer().status == 405
    connection.ask("GET", "/v2/")
    assert connection.answer().status == 200


def test_chunked_body(running: Served) -> None:
    """A push whose length is not told beforehand is refused, too."""
    connection = running.connect()
    connection.ask("PATCH", LATEST, [("Transfer-Encoding", "chunked")])
    connection.send(b"5\r\nhello\r\n" + b"3\r\n")
    assert connection.silent
    connection.send(b"abc\r\n0\r\n\r\n")
    assert connection.answer().status == 405
    connection.ask("GET", "/v2/")
    assert connection.answer().status == 200


def test_body_of_a_get(running: Served) -> None:
    """A body where none is expected changes nothing."""
    answer = ask(running.site, "GET", LATEST, ANY_FORM, b"n=0" * 1000)
    assert answer.status == 200


def test_client_that_asks_before_it_sends(running: Served) -> None:
    """A client that waits for leave to send its body is given it, and then refused."""
    connection = running.connect()
    headers = [("Expect", "100-continue"), ("Content-Length", "5")]
    connection.ask("PUT", LATEST, headers)
    assert connection.wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(b"hello")
    assert connection.answer().status == 405


def test_many_requests_on_one_connection(running: Served) -> None:
    """A connection serves one request after another, whatever their answers."""
    connection = running.connect()
    for path, status in (
        (LATEST, 200),
        ("/v2/x", 404),
        ("/v2/%FF", 400),
        ("/v2/", 200),
    ):
        connection.ask("GET", path, ANY_FORM)
        assert connection.answer().status == status
    assert not connection.closed


def test_pipelined_requests(served: Served) -> None:
    """Requests that are sent without waiting are answered in their order."""
    served.nix.pause()
    connection = served.connect()
    connection.ask("GET", LATEST, ANY_FORM)
    connection.ask("HEAD", LATEST, ANY_FORM)
    connection.ask("PUT", LATEST, (), b"hello")
    connection.ask("GET", "/v2/")
    assert connection.silent
    served.nix.resume()
    answers = connection.answers()
    assert [answer.status for answer in answers] == [200, 200, 405, 200]
    assert answers[0]["ETag"] == answers[1]["ETag"]


def test_requests_in_pieces(running: Served) -> None:
    """A request may come byte by byte."""
    connection = running.connect()
    for byte in b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n":
        assert connection.silent
        connection.send(bytes([byte]))
    assert connection.answer().status == 200


def test_closing_on_request(running: Served) -> None:
    """A client that wants the connection closed has it closed after the answer."""
    connection = running.connect()
    connection.ask("GET", "/v2/", [("Connection", "close")])
    assert connection.answer()["Connection"] == "close"
    assert connection.closed


def test_http_1_0(running: Served) -> None:
    """A client of long ago is answered, and the connection is closed."""
    connection = running.connect()
    connection.send(b"GET /v2/ HTTP/1.0\r\n\r\n")
    assert connection.answer().json == {}
    assert connection.closed


@pytest.mark.parametrize(
    "host",
    [
        "",
        "x:99999999",
        "[::1]:6443",
        "a b",
        "[",
        "\xff\xfe",
        "x" * 10_000,
        "a, b",
        "../..",
    ],
)
def test_any_host(running: Served, host: str) -> None:
    """By which name the client calls the registry is no matter."""
    connection = running.connect()
    head = f"GET {LATEST} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    connection.send(head.encode("latin-1"))
    assert connection.answer().status == 200


def test_no_host_and_several(running: Served) -> None:
    """A client that names no host, or two, is answered all the same."""
    for hosts in ("", "Host: a\r\nHost: b\r\n"):
        connection = running.connect()
        connection.send(f"GET /v2/ HTTP/1.1\r\n{hosts}\r\n".encode())
        assert connection.answer().status == 200


TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))


@pytest.mark.parametrize("hello", [TLS_HELLO, TLS_HELLO[:1]])
def test_tls_on_the_plain_port(running: Served, hello: bytes) -> None:
    """A client that tries TLS first is told at once that there is none here."""
    connection = running.connect()
    connection.send(hello)
    head, _, text = connection.wire.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert b"plain HTTP" in text
    assert connection.wire.half_closed
    connection.send(hello)  # the rest of it must not break the connection
    assert connection.wire.value().count(b"HTTP/1.0") == 1


def test_tls_byte_later(running: Served) -> None:
    """A byte that would begin TLS means nothing in the midst of a body."""
    connection = running.connect()
    connection.ask("PUT", LATEST, [("Content-Length", "2")])
    connection.send(b"\x16\x03")
    assert connection.answer().status == 405


@pytest.mark.parametrize("start", ["http://x", "HTTPS://registry.test:6443"])
def test_whole_urls(running: Served, start: str) -> None:
    """A client that asks for a whole URL, as it would ask a proxy, is answered."""
    for path in ("/v2/", LATEST, ""):
        assert ask(running.site, "GET", start + path).status == 200


def test_http_2_is_not_offered(running: Served) -> None:
    """A client that could speak HTTP/2 is led to speak HTTP/1.1."""
    assert running.site.acceptableProtocols() == [b"http/1.1"]


def test_http_2_without_asking(running: Served) -> None:
    """A client that speaks HTTP/2 unasked is told that it is not understood."""
    connection = running.connect()
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    answer = connection.answer()
    assert (answer.status, answer.error[0]) == (400, "NAME_INVALID")


def test_keeps_looking_after_the_peer(running: Served) -> None:
    """The kernel finds out when a waiting client's machine is gone."""
    connection = running.connect()
    verifyObject(ITCPTransport, connection.wire)
    assert connection.wire.keep_alive


def test_long_builds_are_not_cut(served: Served) -> None:
    """A client waits for a build for as long as it takes, with nothing sent before."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    served.clock.pump([60.0] * 58)
    assert client.silent and not client.closed
    served.nix.resume()
    assert client.answer().status == 200


def test_idle_connections_are_closed(served: Served) -> None:
    """A connection that nobody uses is closed after a minute."""
    connection = served.connect()
    connection.ask("GET", "/v2/")
    served.clock.advance(59.0)
    assert not connection.closed
    served.clock.advance(2.0)
    assert connection.closed


def test_hanging_up_while_the_registry_stops(served: Served) -> None:
    """A client who leaves while the registry stops disturbs nobody."""
    served.nix.fail("build", exit=Exit(None, stopped=True))
    served.nix.pause()
    served.begin(LATEST, ANY_FORM).hang_up()
    served.nix.finish()


def test_options_of_the_whole_server(running: Served) -> None:
    """A client that asks what the server as a whole can do is answered."""
    answer = ask(running.site, "OPTIONS", "*")
    assert answer.status in (200, 405)


def test_start_is_not_logged_as_an_object(log: Log, served: Served) -> None:
    """The log of a start has no addresses of Python's objects."""
    assert " at 0x" not in log.text
