"""Tests for `forgereg.cli.remote`: whatever answers, people read one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from service_identity import VerificationError
from treq.testing import StringStubbingResource, StubTreq
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import (
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from forgereg.cli.remote import Remote, Trouble, parse_url
from tests.deferreds import begin, no_result, result_of
from tests.works import Controlled

URL = "http://forge.test:6443"


def answering(status: int, body: bytes, **headers: str) -> Remote:
    """Something at the URL that answers always the same."""
    said = {name.replace("_", "-").encode(): v.encode() for name, v in headers.items()}
    stub: Any = StubTreq(StringStubbingResource(lambda *_: (status, said, body)))
    return Remote(URL, stub.request, "t0ken", Clock())


def failing(error: Exception) -> Remote:
    """Nothing at the URL that answers."""
    return Remote(URL, lambda *_, **__: fail(error), "t0ken", Clock())


def trouble(remote: Remote) -> str:
    """Ask for a build, and give what went wrong."""
    with pytest.raises(Trouble) as raised:
        result_of(remote.build("b1"))
    assert len(raised.value.message.splitlines()) == 1
    assert "t0ken" not in raised.value.message
    return raised.value.message


def never(error: Exception) -> ResponseNeverReceived:
    """Wrap an error as Twisted does once a connection is there."""
    return ResponseNeverReceived([Failure(error)])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(), "refused"),
        (DNSLookupError("no results"), "no results"),
        (TimeoutError(), "timeout"),
        (never(ConnectionLost()), "lost"),
        (
            never(SSL.Error([("SSL routines", "", "certificate verify failed")])),
            "TLS: certificate verify failed",
        ),
        (never(SSL.Error()), "TLS: the connection was closed"),
        (never(VerificationError(errors=[])), "TLS: the certificate is for another"),
    ],
)
def test_no_answer(error: Exception, said: str) -> None:
    """Where no registry answers, it is told where it was looked for, and why."""
    message = trouble(failing(error))
    assert message.startswith(f"{URL} cannot be reached: ")
    assert said in message.lower() or said in message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (200, b""),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"id": 1, "progress": []}'),
        (200, b"[" * 100_000),
        (404, b"<html>not found</html>"),
        (404, b'{"errors": []}'),
        (500, b'{"errors": "many"}'),
        (502, b"\xff"),
    ],
)
def test_something_else_answers(status: int, body: bytes) -> None:
    """What is no registry is told to be none."""
    message = trouble(answering(status, body))
    assert URL in message and message.endswith("is --url right?")


@given(status=st.sampled_from([200, 403, 500]), body=st.binary(max_size=50))
def test_any_answer(status: int, body: bytes) -> None:
    """Whatever answers, whoever asked reads one line."""
    assert trouble(answering(status, body))


def test_redirect() -> None:
    """A token goes nowhere but to the registry it is for: redirects are only told."""
    message = trouble(answering(302, b"", Location="https://else.test/"))
    assert "302 and leads to https://else.test/" in message


def test_evil_messages() -> None:
    """What a registry says is not obeyed by the terminal."""
    body = rb'{"errors": [{"code": "X", "message": "a\u001b[2J\nb\u0007"}]}'
    assert trouble(answering(400, body)) == r"a\x1b[2J b\x07"


@pytest.mark.parametrize("host", ["[::1]:6443", "forge_1", "192.0.2.1", "localhost"])
def test_any_host(host: str) -> None:
    """A registry may be at any address or name."""
    stub: Any = StubTreq(Controlled().resource)
    remote = Remote(parse_url(f"http://{host}/"), stub.request, "", Clock())
    assert [build.id for build in result_of(remote.builds())] == ["b2", "b1"]


def test_silence() -> None:
    """A registry that does not answer is not waited for without end."""
    clock = Clock()
    waiting: Deferred[Any] = Deferred()
    asked = begin(Remote(URL, lambda *_, **__: waiting, "", clock).build("b1"))
    clock.advance(59.0)
    no_result(asked)
    clock.advance(2.0)
    with pytest.raises(Trouble, match="does not answer for 60 s"):
        result_of(asked)


@pytest.mark.parametrize("wrapped", [True, False])
def test_leaving(wrapped: bool) -> None:
    """Who leaves while the registry is asked has left, and reads of no trouble."""
    error: Exception = CancelledError()
    waiting: Deferred[Any] = Deferred(
        lambda d: d.errback(never(error) if wrapped else error)
    )
    asked = begin(Remote(URL, lambda *_, **__: waiting, "", Clock()).build("b1"))
    asked.cancel()
    with pytest.raises(CancelledError):
        result_of(asked)


def test_secrets() -> None:
    """The token is not in what a debugger shows of the registry."""
    assert "t0ken" not in repr(answering(200, b""))
