"""From `podman run` to a running container, with the clients that people have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.live.clients import Containerd, Docker, Podman, Skopeo

#: What each image of the example flake prints when it is run.
IMAGES = {
    "packages/hello": "Hello, world!",
    "packages/hello-single": "single",
    "packages/hello-plain": "plain",
    "packages/hello-stream": "streamed",
    "packages/hello-oci": "oci",
    "packages/dotted.name": "dotted",
    "applications/web-app/worker": "Hello, world!",
}


def digest_of(registry: Daemon, name: str, form: str = "oci.image.manifest.v1") -> str:
    """Ask the registry for a manifest's digest."""
    accept = f"application/vnd.{form}+json"
    answer = registry.ask(f"/v2/{name}/manifests/latest", "HEAD", Accept=accept)
    return answer.headers["docker-content-digest"]


@pytest.mark.parametrize(("name", "says"), IMAGES.items())
def test_podman_runs_by_tag(
    registry: Daemon, podman: Podman, name: str, says: str
) -> None:
    """A person with podman runs an image that did not exist a second ago."""
    outcome = podman.run(registry.ref(f"{name}:latest"))
    assert outcome.status == 0, outcome.text
    assert says in outcome.out


@pytest.mark.parametrize(("name", "says"), IMAGES.items())
def test_docker_runs_by_tag(
    registry: Daemon, docker: Docker, name: str, says: str
) -> None:
    """A person with docker runs an image that did not exist a second ago."""
    outcome = docker.run(registry.ref(f"{name}:latest"))
    assert outcome.status == 0, outcome.text
    assert says in outcome.out


@pytest.mark.parametrize("name", IMAGES)
def test_containerd_pulls_by_tag(
    registry: Daemon, containerd: Containerd, name: str
) -> None:
    """A Kubernetes node's containerd pulls and unpacks an image."""
    outcome = containerd.pull(registry.ref(f"{name}:latest"))
    assert outcome.status == 0, outcome.text


def test_containerd_runs(registry: Daemon, containerd: Containerd) -> None:
    """What containerd has pulled runs."""
    reference = registry.ref("packages/hello:latest")
    assert containerd.pull(reference).status == 0
    outcome = containerd.run(reference)
    assert outcome.status == 0, outcome.text
    assert "Hello, world!" in outcome.out


@pytest.mark.parametrize(
    "form", ["oci.image.manifest.v1", "docker.distribution.manifest.v2"]
)
def test_by_digest(
    registry: Daemon,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
    form: str,
) -> None:
    """Whoever pins an image to either digest gets it, with every client."""
    digest = digest_of(registry, "packages/hello", form)
    pinned = registry.ref(f"packages/hello@{digest}")
    for run in (podman.run(pinned), docker.run(pinned)):
        assert run.status == 0, run.text
        assert "Hello, world!" in run.out
    for pull in (containerd.pull(pinned), skopeo.inspect(pinned)):
        assert pull.status == 0, pull.text


def test_skopeo_inspects(registry: Daemon, skopeo: Skopeo) -> None:
    """Skopeo shows an application's image, its digest and its tags."""
    outcome = skopeo.inspect(registry.ref("applications/web-app/web:latest"))
    assert outcome.status == 0, outcome.text
    shown = json.loads(outcome.out)
    assert shown["Digest"] == digest_of(registry, "applications/web-app/web")
    assert shown["RepoTags"] == ["1.0.0", "latest"]
    assert shown["Architecture"] == "amd64"


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_skopeo_copies(
    registry: Daemon, skopeo: Skopeo, tmp_path: Path, form: str
) -> None:
    """Skopeo copies an image, whichever form of manifest it wants."""
    source = f"docker://{registry.ref('packages/hello:2.12')}"
    outcome = skopeo.copy(source, f"dir:{tmp_path / 'copy'}", "--format", form)
    assert outcome.status == 0, outcome.text
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert len(manifest["layers"]) == 3


def test_catalogue(registry: Daemon) -> None:
    """The catalogue lists what can be pulled, and nothing that cannot."""
    listed = registry.ask("/v2/_catalog").json["repositories"]
    assert set(IMAGES) | {"applications/web-app/web"} <= set(listed)
    assert "packages/no-image" not in listed


def test_lines_are_in_the_log(registry: Daemon) -> None:
    """What nix says while it builds is in the log, line by line, with its image."""
    registry.ask("/v2/packages/hello/manifests/latest")
    assert "packages/hello:" in registry.logged()
    assert ": creating layers for hello:2.12" in registry.logged()
