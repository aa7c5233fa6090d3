"""Layers that are compressed on their way, by clients that unpack them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from backports import zstd

from tests import daemon
from tests.daemon import Daemon
from tests.live.clients import Containerd, Docker, Podman, Skopeo

#: As containerd since 2.0 asks for blobs.
CONTAINERD_2 = "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"

#: How each client calls itself, in the access log.
AGENTS = ("containers/", "docker/", "containerd/", "skopeo/")


def largest_layer(running: Daemon) -> tuple[str, int]:
    """Give the digest of hello's largest layer, and its size."""
    manifest = running.ask("/v2/packages/hello/manifests/latest").json
    layer = max(manifest["layers"], key=lambda layer: int(layer["size"]))
    return layer["digest"], layer["size"]


def sent(running: Daemon, digest: str) -> dict[str, int]:
    """Read in the access log how many bytes of a blob were sent, by client."""
    lines = re.findall(
        rf'"GET /v2/\S+/blobs/{digest} HTTP/1.1" 200 (\d+) "-" "([^"]*)"',
        running.logged(),
    )
    return {
        agent: int(count)
        for count, client in lines
        for agent in AGENTS
        if client.startswith(agent)
    }


def test_every_client_unpacks(
    tmp_path: Path,
    example: str,
    store: Path,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
) -> None:
    """Each client is sent less than a layer's size, and has the layer."""
    options = ("--store", str(store), "--transfer-coding", "always")
    for client in (podman, docker, containerd):
        client.forget()
    with daemon.registry(tmp_path, example, *options) as running:
        reference = running.ref("packages/hello:latest")
        assert containerd.pull(reference).status == 0
        for run in (podman.run(reference), docker.run(reference)):
            assert run.status == 0, run.text
        assert containerd.run(reference).status == 0
        copy = skopeo.copy(f"docker://{reference}", f"dir:{tmp_path}/copy")
        assert copy.status == 0, copy.text
        digest, size = largest_layer(running)
        told = sent(running, digest)
        assert sorted(told) == sorted(AGENTS)
        assert max(told.values()) < 0.7 * size


def test_encoded_once(tmp_path: Path, example: str, store: Path) -> None:
    """What was encoded before a restart is sent at once, with its length."""
    options = ("--store", str(store), "--transfer-coding", "always")
    encodings = {"gzip": "gzip", CONTAINERD_2: "zstd"}
    first = {}
    with daemon.registry(tmp_path, example, *options) as running:
        digest, size = largest_layer(running)
        path = f"/v2/packages/hello/blobs/{digest}"
        for offered, coding in encodings.items():
            answer = running.ask(path, Accept_Encoding=offered)
            assert answer.headers["content-encoding"] == coding
            first[offered] = answer.body
        plain = zstd.decompress(first[CONTAINERD_2])
        assert f"sha256:{hashlib.sha256(plain).hexdigest()}" == digest
    with daemon.registry(tmp_path, example, *options) as running:
        for offered in encodings:
            answer = running.ask(path, Accept_Encoding=offered)
            assert int(answer.headers["content-length"]) == len(answer.body)
            assert answer.body == first[offered]
        assert len(running.ask(path).body) == size
