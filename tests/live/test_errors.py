"""What a person reads at the terminal when there is no image to be had."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.daemon import Daemon
from tests.live.clients import Containerd, Docker, Outcome, Podman, Skopeo

#: What is asked for of the flake in which everything fails, and what must be read.
REASONS = {
    "packages/failz": "did you mean fails?",
    "packages/escape": "pull applications/escape/<image>",
    "packages/throws": "this image was never finished",
    "packages/recursion": "infinite recursion",
    "packages/not-a-derivation": "not a derivation",
    "packages/fails": "cannot find -lmissing",
    "packages/dependency-fails": "the dependency is broken",
    "packages/no-output": "failed to produce output",
    "packages/garbage": "a docker-archive or an OCI layout is wanted",
    "packages/script": "-stream-script: No such file or directory",
    "packages/directory": "is an empty directory",
    "applications/escape/passwd": "out of the Nix store",
    "applications/escape/other": "it has: passwd",
    "charts/hello": "packages/<package>",
}


@pytest.fixture(params=["podman", "docker", "containerd", "skopeo"])
def pull(
    request: pytest.FixtureRequest,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
) -> Callable[[str], Outcome]:
    """Each client's way to ask for an image."""
    pulls = {
        "podman": podman.pull,
        "docker": docker.pull,
        "containerd": containerd.pull,
        "skopeo": skopeo.inspect,
    }
    return pulls[request.param]


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_the_reason_is_shown(
    faulty: Daemon, pull: Callable[[str], Outcome], name: str, reason: str
) -> None:
    """Whichever client a person uses, it prints why there is no such image."""
    outcome = pull(faulty.ref(f"{name}:latest"))
    assert outcome.status != 0
    assert reason in outcome.err


def test_what_to_add_is_shown(registry: Daemon, pull: Callable[[str], Outcome]) -> None:
    """Whichever client a person uses, it prints what a package lacks, to be copied."""
    outcome = pull(registry.ref("packages/no-image:latest"))
    assert outcome.status != 0
    said = outcome.err.replace('\\"', '"')
    assert 'pkgs.dockerTools.buildLayeredImage { name = "no-image";' in said
    assert "applications/no-image/<image>" in said


def test_a_slow_build_is_ended(faulty: Daemon, podman: Podman) -> None:
    """A build that takes longer than it may is ended, and the person is told."""
    outcome = podman.pull(faulty.ref("packages/slow:latest"))
    assert outcome.status != 0
    assert "timed out after 20 s" in outcome.err
    assert faulty.children() == []


def test_nothing_is_left_on_disk(faulty: Daemon) -> None:
    """What could not be served leaves no file behind."""
    faulty.ask("/v2/packages/garbage/manifests/latest")
    assert list((faulty.state / "partial").iterdir()) == []
    assert list((faulty.state / "blobs").iterdir()) == []


def test_no_flake(tmp_path_factory: pytest.TempPathFactory, docker: Docker) -> None:
    """Whoever serves a flake that is not there is told so at the first pull."""
    from tests import daemon

    tmp = tmp_path_factory.mktemp("no-flake")
    with daemon.registry(tmp, f"path:{tmp}/nothing") as running:
        outcome = docker.pull(running.ref("packages/hello:latest"))
    assert outcome.status != 0
    assert f"{tmp}/nothing" in outcome.err
