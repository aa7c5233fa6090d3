"""Tests for `forgereg.web.site`: what is not HTTP, or too long."""

from __future__ import annotations

import pytest

from tests.client import ask
from tests.registry import Served

LATEST = "/v2/packages/hello/manifests/latest"


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1")


MALFORMED = [
    b"\r\n\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /v2/\r\n\r\n",
    b"GET /v2/ HTTP/3.0\r\n\r\n",
    b"GET  /v2/ HTTP/1.1\r\n\r\n",
    b"GET /v2/ HTTP/1.1 x\r\n\r\n",
    b"G(T /v2/ HTTP/1.1\r\n\r\n",
    b"GET /v2/\xff HTTP/1.1\r\n\r\n",
    b"GET /v2/\xc3\xa4/manifests/latest HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nno colon\r\nHost: x\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\n: x\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nA b: x\r\nHost: x\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nA: x\0y\r\nHost: x\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\n folded\r\nHost: x\r\n\r\n",
    b"PUT /v2/ HTTP/1.1\r\nContent-Length: x\r\nHost: x\r\n\r\n",
    b"PUT /v2/ HTTP/1.1\r\nContent-Length: -1\r\nHost: x\r\n\r\n",
    b"PUT /v2/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\nHost: x\r\n\r\nxx",
    b"PUT /v2/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
    b"PUT /v2/ HTTP/1.1\r\nTransfer-Encoding: gzip\r\nHost: x\r\n\r\nx",
    b"PUT /v2/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
    b"PUT /v2/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(600)) + b"\r\n",
]


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.parametrize("in_pieces", [False, True])
def test_malformed_requests(served: Served, data: bytes, in_pieces: bool) -> None:
    """Whoever sends what is not HTTP is told so, once, in words that can be read."""
    connection = served.connect()
    step = 1 if in_pieces else len(data)
    for start in range(0, len(data), step):
        connection.send(data[start : start + step])
    answer = connection.answer()
    answer.check()
    assert answer.status == 400
    assert answer["Connection"] == "close"


def test_nothing_is_served_after_a_malformed_request(served: Served) -> None:
    """What follows a request that cannot be read is not taken for another one."""
    connection = served.connect()
    connection.send(b"GARBAGE\r\n" + head("GET /v2/ HTTP/1.1", "Host: x") * 3)
    assert connection.answer().status == 400
    connection.send(head("GET /v2/ HTTP/1.1", "Host: x"))
    assert connection.silent


def test_lingers_after_a_malformed_request(served: Served) -> None:
    """The answer to a malformed request can be read before the connection is closed."""
    connection = served.connect()
    connection.send(b"GARBAGE\r\n\r\n")
    served.clock.advance(4.0)
    connection.send(b"x" * 2**20)
    assert connection.answer().status == 400
    assert connection.wire.half_closed and not connection.closed
    served.clock.advance(2.0)
    assert connection.closed


def test_long_request_line(served: Served) -> None:
    """A path that is too long to be read is refused in words that can be."""
    connection = served.connect()
    connection.send(head(f"GET /v2/{'x' * 2**20}/tags/list HTTP/1.1", "Host: x"))
    answer = connection.answer()
    assert (answer.status, answer.reason) == (414, "Request-URI Too Long")
    assert "too long" in answer.error[1]


def test_endless_request_line(served: Served) -> None:
    """A line that does not end is refused before memory is full."""
    connection = served.connect()
    for _ in range(64):
        connection.send(b"x" * 2**14)
    answer = connection.answer()
    assert answer.status == 414
    answer.check()


def test_endless_headers(served: Served) -> None:
    """Headers that do not end are refused before memory is full."""
    connection = served.connect()
    connection.send(b"GET /v2/ HTTP/1.1\r\n")
    for number in range(64):
        connection.send(b"X-%d: %b\r\n" % (number, b"y" * 2**14))
    answer = connection.answer()
    answer.check()
    assert answer.status in (400, 414, 431)
    assert "too long" in answer.error[1]


def test_long_header(served: Served) -> None:
    """One header that is too long is refused, and not called a path."""
    connection = served.connect()
    connection.send(head("GET /v2/ HTTP/1.1", f"X: {'y' * 2**20}"))
    answer = connection.answer()
    answer.check()
    assert "too long" in answer.error[1]


@pytest.mark.parametrize("size", [2**16, 100_000])
def test_long_paths_and_headers_that_fit(served: Served, size: int) -> None:
    """What is long, but not too long, is read."""
    answer = ask(served.site, "GET", f"/v2/{'x' * size}/tags/list")
    assert (answer.status, answer.error[0]) == (400, "NAME_INVALID")
    assert len(answer.body) < 500
    answer = ask(served.site, "GET", "/v2/", [("Authorization", "x" * size)])
    assert answer.status == 200
