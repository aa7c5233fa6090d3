"""Tests for `forgereg.web.stream`, over TCP connections of Twisted's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.web.stream import ClientLeft, Truncated
from tests.deferreds import no_result, result_of
from tests.doubles import Threads
from tests.web.line import (
    DATA,
    GET,
    STRETCH,
    Line,
    blob_in,
    body_of,
    is_closed,
    several,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_in(tmp_path_factory.mktemp("splice"))


@pytest.fixture
def lines() -> Iterator[Callable[..., Line]]:
    with several(Line) as line:
        yield line


@settings(max_examples=30)
@given(
    parts=st.lists(st.binary(max_size=9) | STRETCH, max_size=4),
    cached=st.lists(st.booleans(), max_size=12),
)
def test_sends_what_was_asked_for(
    path: Path, parts: list[bytes | tuple[int, int]], cached: list[bool]
) -> None:
    """Whatever the page cache has, a client gets the bytes asked for, in their order."""
    line = Line(path, parts)
    known = iter(cached)
    with pytest.MonkeyPatch.context() as patch:
        preadv = os.preadv

        def choosy(*args: Any) -> int:
            if not next(known, True):
                raise BlockingIOError
            return preadv(*args)

        patch.setattr(os, "preadv", choosy)
        sent = line.ask()
        answer = line.receive_all()
    result_of(sent)
    line.close()
    wanted = [p if isinstance(p, bytes) else DATA[p[0] : p[1]] for p in parts]
    assert body_of(answer) == b"".join(wanted)
    assert line.requests[0].sentLength == len(b"".join(wanted))
    assert is_closed(line.source)


def test_kernel_copies(
    path: Path, lines: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the page cache goes to a plain socket without being read."""
    sizes: list[int] = []
    preadv = os.preadv

    def watched(fd: int, buffers: list[bytearray], *args: int) -> int:
        sizes.append(len(buffers[0]))
        return preadv(fd, buffers, *args)

    monkeypatch.setattr(os, "preadv", watched)
    line = lines(path, [(0, len(DATA))])
    line.ask()
    assert body_of(line.receive_all()) == DATA
    assert set(sizes) == {1}


def test_next_request(path: Path, lines: Callable[..., Line]) -> None:
    """Requests that come behind one another are answered one after another."""
    line = lines(path, [(0, 2**18)])
    line.ask(GET * 2)
    answer = line.receive_all()
    assert answer.count(DATA[: 2**18]) == 2
    assert len(line.sent) == 2


def test_head(path: Path, lines: Callable[..., Line]) -> None:
    """A HEAD is answered without a body, whoever asks to send one."""
    line = lines(path, [(0, 9)])
    line.ask(GET.replace(b"GET", b"HEAD"))
    assert body_of(line.receive_all()) == b""


def test_client_that_does_not_read(path: Path, lines: Callable[..., Line]) -> None:
    """Of what a slow client does not take, nothing is kept in memory."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    for _ in range(9):
        line.turn()
    no_result(sent)
    assert len(line.transport.dataBuffer) + line.transport._tempDataLen == 0
    assert line.loop.writers == {line.transport}


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_client_leaves(path: Path, lines: Callable[..., Line], turns: int) -> None:
    """When the client hangs up, its file is closed and nobody waits."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    for _ in range(turns):
        line.turn()
    line.client.close()
    for _ in range(9):
        line.turn()
    with pytest.raises(ClientLeft):
        result_of(sent)
    assert is_closed(line.source)
    assert line.loop.writers == set()


def test_cancelled(path: Path, lines: Callable[..., Line]) -> None:
    """Cancelling closes the file, whatever the connection does afterwards."""
    line = lines(path, [(0, len(DATA))])
    sent = line.ask()
    line.turn()
    sent.addErrback(lambda _: None)
    sent.cancel()
    assert is_closed(line.source)
    line.turn()
    line.turn()


def test_truncated(path: Path, lines: Callable[..., Line]) -> None:
    """A file that is shorter than promised is an error, never a short answer."""
    line = lines(path, [(0, len(DATA) + 1)], size=len(DATA) + 1)
    sent = line.ask()
    assert body_of(line.receive_all()) == DATA
    with pytest.raises(Truncated, match="^1 bytes are missing"):
        result_of(sent)


def test_file_system_that_cannot(
    path: Path, lines: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel cannot copy from a file, it is read."""

    def sendfile(*args: object) -> int:
        raise OSError("Invalid argument")

    monkeypatch.setattr(os, "sendfile", sendfile)
    line = lines(path, [(0, len(DATA))])
    line.ask()
    assert body_of(line.receive_all()) == DATA


def test_slow_disk(
    path: Path, lines: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not in the page cache is waited for in a thread."""

    def preadv(*args: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", preadv)
    threads = Threads()
    threads.pause()
    line = lines(path, [(0, len(DATA))], threads)
    sent = line.ask()
    assert body_of(line.receive_all()) == b""
    no_result(sent)
    threads.resume()
    assert line.receive_all() == DATA
