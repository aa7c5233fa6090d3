"""Large images and many clients: memory stays flat, and nobody is left behind."""

from __future__ import annotations

import hashlib
import http.client
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import Daemon, eventually
from tests.live.clients import Containerd, Docker, Podman
from tests.live.large import SAYS, large_image, quick_gz

LAYER_BYTES = 200 * 2**20
MEMORY_BYTES = 150 * 2**20
CLIENTS = 50


@pytest.fixture(scope="module")
def large(
    tmp_path_factory: pytest.TempPathFactory, store: Path
) -> Iterator[tuple[Daemon, str]]:
    """A registry whose one image has one large layer, and the layer's digest."""
    tmp = tmp_path_factory.mktemp("large")
    reference, digest = large_image(tmp / "flake", LAYER_BYTES, quick_gz)
    with daemon.registry(tmp, reference, "--store", str(store)) as running:
        assert running.ask("/v2/packages/large/manifests/latest").status == 200
        yield running, f"/v2/packages/large/blobs/{digest}"


def download(running: Daemon, path: str) -> str:
    """Fetch a blob without keeping it; give the digest of what came."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=300)
    connection.request("GET", path)
    response = connection.getresponse()
    hashed = hashlib.sha256()
    while piece := response.read(2**20):
        hashed.update(piece)
    connection.close()
    return hashed.hexdigest()


def test_fifty_pulls_at_once(large: tuple[Daemon, str]) -> None:
    """Fifty clients that pull a large layer at once all get it, in little memory."""
    running, path = large
    with ThreadPoolExecutor(CLIENTS) as pool:
        got = list(pool.map(lambda _: download(running, path), range(CLIENTS)))
    assert set(got) == {path.rpartition(":")[2]}
    assert running.resident_bytes() < MEMORY_BYTES
    assert running.open_files(running.state / "blobs") == []


def test_clients_that_do_not_read(large: tuple[Daemon, str]) -> None:
    """Clients that stop reading cost neither memory nor the others' time."""
    running, path = large
    idle = []
    for _ in range(CLIENTS):
        client = socket.create_connection(("127.0.0.1", running.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        idle.append(client)
    blobs = running.state / "blobs"
    eventually(lambda: len(running.open_files(blobs)) == CLIENTS)
    assert running.ask("/v2/").status == 200
    assert download(running, path) == path.rpartition(":")[2]
    assert running.resident_bytes() < MEMORY_BYTES
    for client in idle:
        client.close()
    eventually(lambda: running.open_files(blobs) == [], 5)


@pytest.mark.parametrize("count", [1, 5])
def test_little_room(
    tmp_path: Path,
    store: Path,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    count: int,
) -> None:
    """Where there is room for no layer, or for one of five, all get the image."""
    layer_bytes, most = LAYER_BYTES // count, LAYER_BYTES // 4
    reference, _ = large_image(tmp_path / "flake", layer_bytes, quick_gz, count)
    options = ("--store", str(store), "--blobs-size", str(most))
    for client in (podman, docker, containerd):
        client.forget()
    with daemon.registry(tmp_path, reference, *options) as running:
        image = running.ref("packages/large:latest")
        with ThreadPoolExecutor() as pool:
            pulls = [
                pool.submit(pull, image)
                for pull in (podman.pull, docker.pull, containerd.pull)
            ]
            assert [p.result().text for p in pulls if p.result().status] == []
        for run in (podman.run(image), docker.run(image), containerd.run(image)):
            assert run.out == SAYS, run.text
        assert running.resident_bytes() < MEMORY_BYTES
        eventually(lambda: running.open_files(store) == [])
        kept = [f.stat().st_size for f in (running.state / "blobs").glob("*/*/*")]
        assert sum(kept) <= most
