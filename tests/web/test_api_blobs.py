"""Tests for `forgereg.web.api`: blobs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent

from forgereg.oci.media import OCTETS
from forgereg.web.stream import CHUNK
from tests.client import Connection
from tests.conftest import Log
from tests.registry import Served, digest_of, files_open_below
from tests.web.big import DATA, DIGEST, PATH, SIZE, serving_big


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry that has been asked for a large image and an empty layer."""
    with serving_big(tmp_path_factory.mktemp("blobs")) as served:
        yield served


def test_whole(served: Served) -> None:
    """A blob comes as it is, with its length, its digest, and for ever."""
    answer = served.get(PATH)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer["Content-Type"] == OCTETS
    assert answer["Content-Length"] == str(SIZE)
    assert answer["Docker-Content-Digest"] == DIGEST
    assert answer["ETag"] == f'"{DIGEST}"'
    assert answer["Accept-Ranges"] == "bytes"
    assert answer["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer["Content-Encoding"] is None
    assert answer["Content-Range"] is None


def test_head(served: Served) -> None:
    """Whoever asks how large a blob is is told so, whatever stretch it speaks of."""
    for headers in ((), [("Range", "bytes=0-9")]):
        answer = served.head(PATH, headers)
        assert answer.status == 200
        assert answer["Content-Length"] == str(SIZE)
        assert answer["Docker-Content-Digest"] == DIGEST
        assert answer["Content-Range"] is None


def test_empty_blob(served: Served) -> None:
    """A blob of no bytes is served, and no stretch of it can be."""
    path = f"/v2/packages/big/blobs/{digest_of(b'')}"
    answer = served.get(path)
    assert (answer.status, answer.body) == (200, b"")
    assert answer["Content-Type"] == OCTETS
    answer = served.get(path, [("Range", "bytes=0-")])
    assert answer.status == 416
    assert answer["Content-Range"] == "bytes */0"


def test_known_blob(served: Served) -> None:
    """A client that has the blob is told so, before any range is looked at."""
    headers = [("Range", "bytes=1-2"), ("If-None-Match", f'W/"{DIGEST}"')]
    answer = served.get(PATH, headers)
    assert answer.status == 304
    assert answer["ETag"] == f'"{DIGEST}"'
    assert answer["Content-Range"] is None


def slow(served: Served) -> Connection:
    """Connect as a client that pauses whenever it was sent something."""
    connection = served.connect()
    connection.wire.slow = True
    return connection


def test_slow_client(served: Served) -> None:
    """A client that stops reading is sent no more until it reads on."""
    connection = slow(served)
    connection.ask("GET", PATH)
    sent = 0
    while len(connection.wire.value()) > sent:
        assert len(connection.wire.value()) - sent < 2 * CHUNK
        sent = len(connection.wire.value())
        connection.read_on()
    assert connection.answer().body == DATA


def test_client_hangs_up(served: Served) -> None:
    """A client that hangs up in the midst of a blob leaves nothing behind."""
    connection = slow(served)
    connection.ask("GET", PATH)
    assert files_open_below(served.state)
    connection.hang_up()
    assert not files_open_below(served.state)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        [("Range", "bytes=0-9")],
        [("If-None-Match", "*")],
        [("Range", f"bytes={SIZE}-")],
    ],
)
def test_nothing_is_left_open(served: Served, headers: list[tuple[str, str]]) -> None:
    """However a blob is asked for, its file is closed afterwards."""
    served.get(PATH, headers)
    served.head(PATH, headers)
    assert not files_open_below(served.state)


def test_file_that_is_cut_meanwhile(
    served: Served, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """A blob that turns out short breaks the connection: it must not seem whole."""
    short = CHUNK + 5
    preadv = os.preadv

    def cut(fd: int, buffers: list[bytearray], position: int, flags: int) -> int:
        size = min(len(buffers[0]), max(0, short - position))
        return preadv(fd, [memoryview(buffers[0])[:size]], position, flags)

    def pread(fd: int, size: int, position: int) -> bytes:
        return b""

    monkeypatch.setattr(os, "preadv", cut)
    monkeypatch.setattr(os, "pread", pread)
    connection = served.begin(PATH)
    assert connection.aborted
    head, _, body = connection.wire.value().partition(b"\r\n\r\n")
    assert f"Content-Length: {SIZE}".encode() in head
    assert body == DATA[:short]
    assert f"{SIZE - short} bytes are missing" in log.text
    assert not files_open_below(served.state)


def test_disk_that_fails_meanwhile(
    served: Served, monkeypatch: pytest.MonkeyPatch, logged_failures: list[LogEvent]
) -> None:
    """A disk that fails in the midst of a blob breaks the connection."""
    preadv = os.preadv

    def fail(fd: int, buffers: list[bytearray], position: int, flags: int) -> int:
        if position:
            raise OSError
        return preadv(fd, buffers, position, flags)

    def pread(*args: object) -> bytes:
        raise OSError("Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    monkeypatch.setattr(os, "pread", pread)
    connection = served.begin(PATH)
    assert connection.aborted
    assert len(logged_failures) == 1
    logged_failures.clear()
    assert not files_open_below(served.state)


def test_leaving_while_the_disk_is_read(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that hangs up while a slow disk is read leaves nothing open behind."""

    def cold(*args: object) -> int:
        # Opened by now: what is read from here on is read in a thread.
        served.threads.pause()
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", cold)
    connection = served.begin(PATH)
    assert files_open_below(served.state)
    connection.hang_up()
    assert not files_open_below(served.state)
    served.threads.resume()


def test_disk_that_fails_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch, logged_failures: list[LogEvent]
) -> None:
    """A disk that fails before the first byte is told as an error."""

    def fail(*args: object) -> int:
        raise OSError("Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    monkeypatch.setattr(os, "pread", fail)
    answer = served.get(PATH)
    assert (answer.status, answer.error[0]) == (500, "UNKNOWN")
    assert answer["Cache-Control"] is None
    assert len(logged_failures) == 1
    logged_failures.clear()


def test_unknown_blob(served: Served) -> None:
    """A blob of no image is unknown, and no cache keeps that for ever."""
    answer = served.get(f"/v2/packages/big/blobs/{digest_of(b'never')}")
    assert (answer.status, answer.error[0]) == (404, "BLOB_UNKNOWN")
    assert answer["Cache-Control"] is None
    assert answer["ETag"] is None
