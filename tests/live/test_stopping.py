"""A registry that is stopped, or replaced by its successor, while clients are served."""

from __future__ import annotations

import hashlib
import http.client
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.large import large_image

LAYER_BYTES = 64 * 2**20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A flake with a large image, and the digest of its layer."""
    return large_image(tmp_path_factory.mktemp("large") / "flake", LAYER_BYTES)


class Download:
    """A client that has begun to read a layer."""

    def __init__(self, running: Daemon, digest: str) -> None:
        """Ask, and read a little."""
        assert running.ask("/v2/packages/large/manifests/latest").status == 200
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", running.port, timeout=60
        )
        self._connection.request("GET", f"/v2/packages/large/blobs/{digest}")
        self._response = self._connection.getresponse()
        self._begin = self._response.read(2**16)

    def finish(self) -> str:
        """Read the rest; give the digest of the whole."""
        hashed = hashlib.sha256(self._begin)
        with closing(self._connection), self._response:
            while piece := self._response.read(2**20):
                hashed.update(piece)
        return f"sha256:{hashed.hexdigest()}"


def test_a_running_transfer_ends_well(
    tmp_path: Path, store: Path, large: tuple[str, str]
) -> None:
    """Who is in the middle of a layer when the registry is stopped gets all of it."""
    flake, digest = large
    with daemon.registry(tmp_path, flake, "--store", str(store)) as running:
        client = Download(running, digest)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("shutting down")
        with pytest.raises(ConnectionRefusedError):
            daemon.eventually(lambda: running.ask("/v2/").status != 200)
        assert client.finish() == digest
        assert running.process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("how", ["its time is up", "told twice"])
def test_a_transfer_that_takes_too_long(
    tmp_path: Path, store: Path, large: tuple[str, str], how: str
) -> None:
    """Who reads too slowly is not waited for, or not where somebody is in a hurry."""
    flake, digest = large
    seconds = "1" if how == "its time is up" else "1000"
    options = ("--store", str(store), "--stop-timeout", seconds)
    with daemon.registry(tmp_path, flake, *options) as running:
        client = Download(running, digest)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("shutting down")
        if how == "told twice":
            running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == -signal.SIGTERM
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            client.finish()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """The socket that systemd keeps open while the registry is restarted."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(1024)
        yield s


def follow(port: int, path: str) -> int:
    """GET as clients do, who follow redirects; give the status."""
    for _ in range(10):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        connection.close()
        if response.status != http.HTTPStatus.TEMPORARY_REDIRECT:
            return response.status
        path = response.headers["Location"]
    raise AssertionError("too many redirects")


def test_a_restart_that_nobody_notices(
    tmp_path: Path, store: Path, listener: socket.socket
) -> None:
    """Under socket activation a restart breaks no connection, and no pull that waits."""
    flake = daemon.flake(ROOT / "tests" / "flakes" / "sleepy", tmp_path / "flake")
    (tmp_path / "flake" / "salt").write_text(str(tmp_path))
    options = ("--store", str(store))
    over = threading.Event()

    def ask_all_the_time(port: int) -> list[int]:
        statuses = []
        while not over.is_set():
            statuses.append(follow(port, "/v2/packages/many-0/manifests/latest"))
            time.sleep(0.005)
        return statuses

    with ThreadPoolExecutor(9) as pool:
        with daemon.registry(tmp_path, flake, *options, listener=listener) as first:
            port = first.port
            assert first.ask("/v2/packages/many-0/manifests/latest").status == 200
            busy = [pool.submit(ask_all_the_time, port) for _ in range(8)]
            slow = "/v2/packages/sleep-10/manifests/latest"
            waiting = pool.submit(follow, port, slow)
            first.wait_for("packages/sleep-10:latest: falling asleep")
            first.stop()
        with daemon.registry(tmp_path, flake, *options, listener=listener) as second:
            second.wait_for("packages/sleep-10:latest: falling asleep")
            assert waiting.result() == 200
            over.set()
            for client in busy:
                assert set(client.result()) == {200}
