"""Tests for `forgereg.web.access`, and for what the site does with it."""

from __future__ import annotations

from io import StringIO

import pytest
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    globalLogPublisher,
)
from zope.interface import implementer

from forgereg.lines import Access
from forgereg.logs import logger, writing
from tests.client import Headers, ask
from tests.conftest import Log
from tests.registry import ANY_FORM, Served

LATEST = "/v2/packages/hello/manifests/latest"


def lines(log: Log) -> list[Access]:
    """The access log."""
    return [event["access"] for event in log.events if "access" in event]


def test_each_request_has_a_name(served: Served, log: Log) -> None:
    """An answer says by which name the log knows its request, each time another."""
    names = [served.get(LATEST, ANY_FORM)["X-Request-Id"] for _ in range(4)]
    assert len(set(names)) == 4
    assert [line.request_id for line in lines(log)] == names


@pytest.mark.parametrize("name", ["a", "0af7651916cd43dd:1", "x" * 128, "a+b/c=@_.-"])
def test_a_name_that_a_client_gives(served: Served, log: Log, name: str) -> None:
    """A proxy or a client that names its request finds it in the log."""
    given: Headers = [*ANY_FORM, ("X-Request-Id", name)]
    for _ in range(3):
        assert served.get(LATEST, given)["X-Request-Id"] == name
    assert {line.request_id for line in lines(log)} == {name}


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 129, "<script>", "ä", '"'])
def test_a_name_that_is_none(served: Served, name: str) -> None:
    """What would not be safe to show is replaced by a name of the registry's own."""
    answer = served.get(LATEST, [*ANY_FORM, ("X-Request-Id", name)])
    assert answer["X-Request-Id"] not in (name, None)


def test_two_names(served: Served) -> None:
    """Who gives two names has none."""
    given = [("X-Request-Id", "a"), ("X-Request-Id", "b")]
    assert served.get(LATEST, [*ANY_FORM, *given])["X-Request-Id"] not in ("a", "b")


def test_client_behind_a_proxy(served: Served, log: Log) -> None:
    """The access log names the client, not its proxy, also out of the memo."""
    served.set(trusted_proxies=served.settings.fast_networks)
    headers = [*ANY_FORM, ("X-Forwarded-For", "203.0.113.9")]
    for _ in range(3):
        ask(served.site, "GET", LATEST, headers, address="10.0.0.1")
    assert {line.client for line in lines(log)} == {"203.0.113.9"}


def test_the_administrator(served: Served, log: Log, tmp_path: object) -> None:
    """Who shows the token is named admin; who shows something else is nobody."""
    served.site.ledger.guard.token = "sesame"
    for token in ("sesame", "mellon"):
        served.get("/v2/", [("Authorization", f"Bearer {token}")])
    served.get("/v2/")
    assert [line.answered.user for line in lines(log)] == ["admin", None, None]
    assert "sesame" not in log.text and "mellon" not in log.text


def test_secrets_in_a_path(served: Served, log: Log) -> None:
    """A secret that somebody puts into a URL is not in the log."""
    served.get("/v2/?token=sesame", [("Referer", "https://me:sesame@x/")])
    (line,) = lines(log)
    assert line.answered.target == "/v2/?token=***"
    assert "sesame" not in log.text


def test_a_client_that_leaves(served: Served, log: Log) -> None:
    """Who leaves before there is an answer is in the log, with what it had by then."""
    served.nix.pause()
    connection = served.begin(LATEST, ANY_FORM)
    served.clock.advance(2.5)
    connection.hang_up()
    (line,) = lines(log)
    assert line.has_left and line.seconds == 2.5
    assert (line.answered.status, line.answered.sent_bytes) == (499, 0)
    served.nix.resume()


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        (b"\x16\x03\x01", "(TLS ClientHello on a plain port)"),
        (b"nonsense\r\n\r\n", "(the request is not HTTP/1.1)"),
        (b"x" * 2**18, "(the request is too long to be read)"),
    ],
)
def test_what_cannot_be_read(running: Served, log: Log, sent: bytes, what: str) -> None:
    """What is no request at all is in the log as well, and what it was."""
    connection = running.connect()
    connection.send(sent)
    (line,) = lines(log)
    assert line.answered.status in (400, 414)
    assert f'"- {what} -"' in str(line)
    assert line.client == "192.0.2.1"


def test_lines_that_a_request_causes(served: Served) -> None:
    """What is logged on behalf of a request has its name, and nothing else has it."""
    written: list[str] = []
    observer = writing(FileLogObserver(StringIO(), lambda event: None))

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        written.append(observer.formatEvent(event))  # type: ignore[attr-defined]

    globalLogPublisher.addObserver(observe)
    try:
        served.get(LATEST, [*ANY_FORM, ("X-Request-Id", "mine")])
        served.get("/v2/", [("X-Request-Id", "another")])
        logger("forgereg.tests").info("nobody asked for this")
    finally:
        globalLogPublisher.removeObserver(observe)
    built = [line for line in written if ": building /nix/store" in line]
    assert built and all("#info mine] " in line for line in built)
    assert "[forgereg.tests#info] nobody asked" in written[-1]
