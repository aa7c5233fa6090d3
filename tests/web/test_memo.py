"""Tests for `forgereg.web.memo`, and when an answer is not given again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from forgereg.oci.media import MANIFESTS
from forgereg.web.memo import Kept, Memo, is_head
from tests.client import Answer, Connection
from tests.deferreds import result_of
from tests.registry import ANY_FORM, Served

LATEST = "/v2/packages/hello/manifests/latest"


class Watched(Memo):
    """Counts how often an answer was given again, or was not any more."""

    def __init__(self) -> None:
        super().__init__()
        self.found = self.dropped = 0

    @property
    def hits(self) -> int:
        return self.found - self.dropped

    def find(self, asked: bytes) -> Kept | None:
        kept = super().find(asked)
        self.found += kept is not None
        return kept

    def drop(self, asked: bytes) -> None:
        super().drop(asked)
        self.dropped += 1


@pytest.fixture
def memo(served: Served) -> Watched:
    """What the registry remembers, after an image was pulled."""
    served.site._memo = memo = Watched()
    assert served.get(LATEST, ANY_FORM).status == 200
    return memo


def asked(
    connection: Connection, target: str = LATEST, method: str = "GET"
) -> tuple[Answer, bytes]:
    before = len(connection.wire.value())
    connection.ask(method, target, ANY_FORM)
    return connection.answer(), connection.wire.value()[before:]


def is_given_again(served: Served, memo: Watched, target: str = LATEST) -> bool:
    """Ask, and say whether that was answered out of the memo."""
    hits = memo.hits
    assert served.get(target, ANY_FORM).status == 200
    return memo.hits > hits


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("by_digest", [False, True])
def test_same_answer(
    served: Served, memo: Watched, method: str, by_digest: bool
) -> None:
    """An answer that is given again is the same, byte for byte, on a kept connection."""
    digest = served.get(LATEST, ANY_FORM)["Docker-Content-Digest"]
    target = f"/v2/packages/hello/manifests/{digest}" if by_digest else LATEST
    memo.__init__()  # type: ignore[misc]
    connection = served.connect()
    answers = [asked(connection, target, method) for _ in range(3)]
    assert memo.hits == 2
    texts = [b"\r\n".join(sorted(raw.split(b"\r\n"))) for _, raw in answers]
    assert texts[0] == texts[1] == texts[2]
    assert not connection.closed


def test_not_modified(served: Served, memo: Watched) -> None:
    """Who has it already is told just that, each time."""
    digest = served.get(LATEST, ANY_FORM)["Docker-Content-Digest"]
    headers = [*ANY_FORM, ("If-None-Match", f'"{digest}"')]
    answers = [served.get(LATEST, headers) for _ in range(3)]
    assert [(answer.status, answer.body) for answer in answers] == [(304, b"")] * 3


def test_tag_that_has_moved(served: Served, memo: Watched) -> None:
    """When a tag's time is over, nobody gets the old image for the new one."""
    assert is_given_again(served, memo)
    served.clock.advance(served.settings.tag_ttl + 1)
    assert not is_given_again(served, memo)
    assert is_given_again(served, memo)


def test_forgotten(served: Served, memo: Watched) -> None:
    """What was swept away is not answered out of memory."""
    assert is_given_again(served, memo)
    served.registry.forget()
    assert not is_given_again(served, memo)


def test_pulls_are_noted(served: Served, memo: Watched) -> None:
    """A pull that was answered out of memory keeps its image from being swept."""
    result_of(served.assembly.parts.pulls.flush())
    assert served.assembly.parts.pulls.unwritten() == {}
    assert is_given_again(served, memo)
    assert len(served.assembly.parts.pulls.unwritten()) == 1


def test_stopping(served: Served, memo: Watched) -> None:
    """Who asks while the registry stops is told that the connection will be closed."""
    connection = served.connect()
    served.site.is_draining = True
    answer, _ = asked(connection)
    assert (answer["Connection"], memo.hits) == ("close", 0)


def test_log(served: Served, memo: Watched) -> None:
    """The access log has each request, whichever way it was answered."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        lines.append(str(event.get("access")))

    globalLogPublisher.addObserver(observe)
    try:
        for _ in range(2):
            served.get(LATEST, ANY_FORM)
    finally:
        globalLogPublisher.removeObserver(observe)
    logged = [line.rpartition('"')[0] for line in lines if LATEST in line]
    assert len(logged) == 2 and logged[0] == logged[1]


def test_date(served: Served, memo: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The date of an answer is that of the answer."""
    monkeypatch.setattr("forgereg.web.memo.datetimeToString", lambda: b"today")
    assert served.get(LATEST, ANY_FORM)["Date"] == "today"


@pytest.mark.parametrize(
    "cut", [lambda data: [data[:9], data[9:]], lambda data: [data + data]]
)
def test_other_pieces(
    served: Served, memo: Watched, cut: Callable[[bytes], list[bytes]]
) -> None:
    """However requests come in pieces, or together, each has its answer."""
    head = (
        f"GET {LATEST} HTTP/1.1\r\nHost: x\r\nAccept: {MANIFESTS[0]}\r\n\r\n".encode()
    )
    connection = served.connect()
    connection.send(head)
    before = connection.wire.value()
    connection.wire.clear()
    for piece in cut(head):
        connection.send(piece)
    body = before.partition(b"\r\n\r\n")[2]
    assert body and connection.wire.value().count(body) == b"".join(cut(head)).count(
        head
    )
    assert memo.hits == 0


def test_body(served: Served, memo: Watched) -> None:
    """What follows a request as its body is never taken for a request."""
    head = f"GET {LATEST} HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    connection = served.connect()
    for body in (b"", b"\r\n\r\n"):
        connection.send((head % len(body)).encode() + body)
    assert connection.wire.value().count(b"HTTP/1.1 200 OK") == 2
    connection.send((head % 4).encode())
    connection.send(b"\r\n\r\n")
    assert connection.wire.value().count(b"HTTP/1.1 200 OK") == 3


def test_closing(served: Served, memo: Watched) -> None:
    """Who wants the connection closed has it closed, each time."""
    for _ in range(2):
        connection = served.connect()
        connection.ask("GET", LATEST, [*ANY_FORM, ("Connection", "close")])
        assert connection.closed


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\n", False),
        (b"\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\n\r\nx", False),
        (b"GET / HTTP/1.1\r\n\r\n" * 2, False),
        (b"GET /" + bytes(2**13) + b"\r\n\r\n", False),
    ],
)
def test_is_head(data: bytes, expected: bool) -> None:
    """Only what is one short request, and nothing else, is remembered."""
    assert is_head(data) is expected
