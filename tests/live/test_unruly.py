"""Builds and evaluations that go too far: clients are told, and the registry lives."""

from __future__ import annotations

import os
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import Daemon, eventually
from tests.live.clients import Containerd, Docker, Podman
from tests.live.impatient import Impatient

LOG_BYTES = 2**20
MEMORY_BYTES = 150 * 2**20
#: How much the builder says, in megabytes; a gigabyte for those who have the time.
FLOOD = 1000 if os.environ.get("FORGE_LONG_TESTS") else 100


def manifest(name: str) -> str:
    """Say where an image's manifest is."""
    return f"/v2/packages/{name}/manifests/latest"


def serving(
    tmp: Path, flake: str, store: Path, *options: str
) -> AbstractContextManager[Daemon]:
    """Run a registry whose nix does not spend its time on compressing logs."""
    config = f"{daemon.NIX_CONFIG}compress-build-log = false\n"
    return daemon.registry(
        tmp, flake, "--store", str(store), *options, NIX_CONFIG=config
    )


def test_a_flood(tmp_path: Path, sleepy: str, store: Path) -> None:
    """A builder that never stops talking fills neither the disk nor the memory."""
    options = ("--build-log-size", str(LOG_BYTES), "--log-level", "warning")
    with serving(tmp_path, sleepy, store, *options) as running:
        ref = running.ref(f"packages/floods-{FLOOD}:latest")
        outcome = Impatient().pull(ref)
        assert outcome.status == 0, outcome.text
        kept = [path.stat().st_size for path in (running.state / "logs").iterdir()]
        assert 0 < sum(kept) < 2 * LOG_BYTES
        assert running.resident_bytes() < MEMORY_BYTES


def test_forged_events(
    tmp_path: Path, sleepy: str, store: Path, podman: Podman
) -> None:
    """A builder that speaks as if it were nix harms nothing, and its image runs."""
    with serving(tmp_path, sleepy, store) as running:
        outcome = podman.run(running.ref("packages/forges:latest"))
        assert outcome.out == "forged\n", outcome.text
        assert "Traceback" not in running.logged()


@pytest.mark.parametrize("client", ["podman", "docker", "containerd", "impatient"])
def test_a_build_that_hangs(
    tmp_path: Path,
    sleepy: str,
    store: Path,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    client: str,
) -> None:
    """A build that does not want to end is ended when its time is up, and all is told."""
    clients = {
        "podman": podman.pull,
        "docker": docker.pull,
        "containerd": containerd.pull,
        "impatient": Impatient().pull,
    }
    with serving(tmp_path, sleepy, store, "--nix-build-timeout", "5") as running:
        outcome = clients[client](running.ref("packages/hangs:latest"))
        assert outcome.status != 0
        assert "timed out" in outcome.err
        eventually(lambda: running.children() == [] and not hanging())


def hanging() -> bool:
    """Whether anything of the builder that hangs is there."""
    listed = subprocess.run(["pgrep", "-fx", "sleep 1007"], stdout=subprocess.PIPE)
    return bool(listed.stdout)


def test_an_evaluation_that_eats_memory(
    tmp_path: Path, sleepy: str, store: Path
) -> None:
    """An evaluation that wants all memory does not get it; which setting says so."""
    options = ("--evaluation-memory", str(2**30))
    with serving(tmp_path, sleepy, store, *options) as running:
        answer = running.ask(manifest("memory"))
        assert answer.status == 422
        assert "FORGE_EVALUATION_MEMORY" in answer.message
        assert running.ask(manifest("many-0")).status == 200


def test_an_evaluation_without_end(tmp_path: Path, sleepy: str, store: Path) -> None:
    """An evaluation that takes too long is ended; which setting says so."""
    options = ("--evaluation-timeout", "5")
    with serving(tmp_path, sleepy, store, *options) as running:
        answer = running.ask(manifest("slow-evaluation"))
        assert answer.status == 422
        assert "FORGE_EVALUATION_TIMEOUT" in answer.message
        assert running.children() == []
        assert running.ask(manifest("many-0")).status == 200
