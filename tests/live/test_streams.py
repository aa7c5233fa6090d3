"""Images that are scripts, built by nix, run in their sandboxes, and pulled."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import ROOT, Answer, Daemon
from tests.live.clients import Containerd, Docker, Podman, Skopeo

#: What a pull is told, by the script.
FAULTS = {
    "dies": "cannot read the second layer",
    "regrets": "a layer is missing",
    "hangs": "timed out after 20 s",
    "lingers": "timed out after 20 s",
    "deaf": "timed out after 20 s",
    "endless": "unpacks to more than",
}


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Daemon]:
    """A registry whose images are scripts."""
    tmp = tmp_path_factory.mktemp("streams")
    reference = daemon.flake(ROOT / "tests" / "flakes" / "streams", tmp / "flake")
    shutil.copytree(ROOT / "examples" / "forge" / "lib", tmp / "flake" / "lib")
    limits = ("--nix-build-timeout", "20", "--max-image-size", "100000000")
    options = ("--store", str(store), *limits)
    with daemon.registry(tmp, reference, *options) as running:
        yield running


@pytest.mark.parametrize("name", ["hello", "chatty", "nosy"])
def test_runs_with_every_client(
    streams: Daemon,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
    name: str,
) -> None:
    """A script's image is served, and what is in it runs."""
    reference = streams.ref(f"packages/{name}:latest")
    for run in (podman.run(reference), docker.run(reference)):
        assert run.status == 0, run.text
        assert run.out.splitlines()[0] == "Hello, world!"
    for pull in (containerd.pull(reference), skopeo.inspect(reference)):
        assert pull.status == 0, pull.text


def test_deleted_layers_come_back(streams: Daemon, podman: Podman) -> None:
    """A script is run again when the layers that it wrote are no longer there."""
    assert streams.ask("/v2/packages/hello/manifests/latest").status == 200
    shutil.rmtree(streams.state / "blobs" / "sha256")
    podman.forget()
    run = podman.run(streams.ref("packages/hello:latest"))
    assert run.status == 0, run.text


@pytest.fixture(scope="module")
def answers(streams: Daemon) -> Iterator[dict[str, Future[Answer]]]:
    """What pulls of those that fail are told; all are asked for at once."""
    with ThreadPoolExecutor(len(FAULTS)) as pool:
        yield {
            name: pool.submit(streams.ask, f"/v2/packages/{name}/manifests/latest")
            for name in FAULTS
        }


@pytest.mark.parametrize("name", FAULTS)
def test_faults(streams: Daemon, answers: dict[str, Future[Answer]], name: str) -> None:
    """A script that fails, hangs, or never ends keeps nobody else waiting."""
    answer = answers[name].result()
    assert answer.status >= 400 and FAULTS[name] in answer.message
    assert streams.ask("/v2/packages/hello/manifests/latest").status == 200
