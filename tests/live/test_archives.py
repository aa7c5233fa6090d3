"""Archives as the tools that people have write them, built into a flake and pulled."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from backports import zstd

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.clients import Containerd, Docker, Podman, Skopeo

#: Each is packages/<name> of the flake; the ending is how the archive is packed.
ARCHIVES = (
    "docker",
    "docker-by-id",
    "docker-repeated",
    "docker-gz",
    "docker-zst",
    "podman",
    "podman-several",
    "skopeo",
)


@pytest.fixture(scope="module")
def archives(
    tmp_path_factory: pytest.TempPathFactory,
    registry: Daemon,
    podman: Podman,
    docker: Docker,
    skopeo: Skopeo,
) -> Path:
    """A directory of archives, written by docker, podman and skopeo."""
    folder = tmp_path_factory.mktemp("archives")
    hello, single = (
        registry.ref(f"packages/{name}:latest") for name in ("hello", "hello-single")
    )
    for client in (docker, podman):
        for ref in (hello, single):
            assert client.pull(ref).status == 0
    assert docker.save(hello, folder / "docker").status == 0
    identity = docker.call("inspect", "--format", "{{.Id}}", hello).out.strip()
    assert docker.save(identity, folder / "docker-by-id").status == 0
    # Two equal steps make two equal layers, of which docker writes one.
    context = tmp_path_factory.mktemp("context")
    (context / "file").write_text("the same\n")
    (context / "Dockerfile").write_text(f"FROM {hello}\nCOPY file /\nCOPY file /\n")
    built = docker.call("build", "--network=none", "--tag=repeated:1", str(context))
    assert built.status == 0, built.text
    assert docker.save("repeated:1", folder / "docker-repeated").status == 0
    plain = (folder / "docker").read_bytes()
    (folder / "docker-gz").write_bytes(gzip.compress(plain))
    (folder / "docker-zst").write_bytes(zstd.compress(plain))
    assert podman.save(hello, folder / "podman").status == 0
    several = podman.call(
        "save", "-m", "-o", str(folder / "podman-several"), single, hello
    )
    assert several.status == 0, several.text
    copied = skopeo.copy(
        f"docker://{hello}", f"docker-archive:{folder / 'skopeo'}:hello:2.12"
    )
    assert copied.status == 0, copied.text
    return folder


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, archives: Path, store: Path
) -> Iterator[Daemon]:
    """A registry that serves these archives."""
    tmp = tmp_path_factory.mktemp("served")
    reference = daemon.flake(ROOT / "tests" / "flakes" / "archives", tmp / "flake")
    shutil.copytree(archives, tmp / "flake" / "archives")
    with daemon.registry(tmp, reference, "--store", str(store)) as running:
        yield running


@pytest.mark.parametrize("name", ARCHIVES)
def test_runs_with_every_client(
    served: Daemon,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
    name: str,
) -> None:
    """An archive is served whoever wrote it, and what is in it runs."""
    reference = served.ref(f"packages/{name}:latest")
    for run in (podman.run(reference), docker.run(reference)):
        assert run.status == 0, run.text
        assert run.out.splitlines()[0] in ("Hello, world!", "single")
    for pull in (containerd.pull(reference), skopeo.inspect(reference)):
        assert pull.status == 0, pull.text


def test_config_is_kept_to_the_byte(served: Daemon, archives: Path) -> None:
    """The image's id is the same from the registry as from `docker load`."""
    manifest = served.ask("/v2/packages/docker/manifests/latest").json
    digest = manifest["config"]["digest"]
    member = f"{digest.removeprefix('sha256:')}.json"
    in_archive = subprocess.run(
        ["tar", "-xOf", archives / "docker", member], capture_output=True, check=True
    ).stdout
    assert served.ask(f"/v2/packages/docker/blobs/{digest}").body == in_archive
