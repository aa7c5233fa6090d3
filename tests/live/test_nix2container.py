"""Images that are nix2container's JSON, described by real nix and pulled."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.clients import Containerd, Docker, Podman, Skopeo

SAYS = """\
Hello from nix2container!
/bin/hello 755 0:0
/home/ann 700 1000:1000
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Daemon]:
    """A registry whose images are descriptions."""
    tmp = tmp_path_factory.mktemp("nix2container")
    reference = daemon.flake(ROOT / "tests" / "flakes" / "nix2container", tmp / "flake")
    with daemon.registry(tmp, reference, "--store", str(store)) as running:
        yield running


@pytest.mark.parametrize("name", ["hello", "stored"])
def test_runs_with_every_client(
    served: Daemon,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
    tmp_path: Path,
    name: str,
) -> None:
    """Layers are made of the paths that they name, owners and permissions included."""
    for client in (podman, docker, containerd):
        client.forget()
    tagged = served.ref(f"packages/{name}:latest")
    assert containerd.pull(tagged).status == 0
    for run in (podman.run(tagged), docker.run(tagged), containerd.run(tagged)):
        assert (run.status, run.out) == (0, SAYS), run.text
    copy = skopeo.copy(f"docker://{tagged}", f"dir:{tmp_path}/copy")
    assert copy.status == 0, copy.text
    answer = served.ask(f"/v2/packages/{name}/manifests/latest", "HEAD")
    pinned = served.ref(f"packages/{name}@{answer.headers['docker-content-digest']}")
    for pull in (podman.pull(pinned), docker.pull(pinned), containerd.pull(pinned)):
        assert pull.status == 0, pull.text


def test_deleted_layers_come_back(served: Daemon, podman: Podman) -> None:
    """Layers are made again of what is in the Nix store when they are not there."""
    assert served.ask("/v2/packages/hello/manifests/latest").status == 200
    shutil.rmtree(served.state / "blobs" / "sha256", ignore_errors=True)
    podman.forget()
    assert podman.run(served.ref("packages/hello:latest")).out == SAYS


def test_a_digest_that_lies(served: Daemon, podman: Podman) -> None:
    """Bytes that are not what the description says reach nobody as an image."""
    podman.forget()
    outcome = podman.pull(served.ref("packages/lies:latest"))
    assert "Error fetching blob" in outcome.err, outcome.text
    layers = served.ask("/v2/packages/lies/manifests/latest").json["layers"]
    answer = served.ask(f"/v2/packages/lies/blobs/{layers[1]['digest']}")
    assert answer.status == 422 and "image-lies.json" in answer.message
    assert podman.run(served.ref("packages/hello:latest")).out == SAYS


def test_a_path_that_is_not_there(served: Daemon, skopeo: Skopeo) -> None:
    """Whoever pulls a description of what was never built reads what is missing."""
    outcome = skopeo.inspect(served.ref("packages/gone:latest"))
    assert outcome.status != 0
    assert "-gone', which is not in the Nix store" in outcome.err
