"""Fixtures of the live ring: real nix, real clients."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live import browser
from tests.live.browser import Chromium
from tests.live.clients import Containerd, Docker, Podman, Skopeo


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the clients here leave sockets to the garbage collector: none is ours."""
    ignored = "ignore::pytest.PytestUnraisableExceptionWarning"
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(ignored))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Nix store of the tests' own, below another root."""
    root = tmp_path_factory.mktemp("nix")
    yield root
    subprocess.run(["chmod", "-R", "u+w", root], check=True)
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example flake."""
    target = tmp_path_factory.mktemp("flake") / "example"
    return daemon.flake(ROOT / "examples" / "forge", target)


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A flake in which everything fails."""
    target = tmp_path_factory.mktemp("flake") / "faults"
    return daemon.flake(ROOT / "tests" / "flakes" / "faults", target)


@pytest.fixture(scope="session")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A flake whose images take their time."""
    target = tmp_path_factory.mktemp("flake") / "sleepy"
    return daemon.flake(ROOT / "tests" / "flakes" / "sleepy", target)


@pytest.fixture(scope="session")
def registry(
    tmp_path_factory: pytest.TempPathFactory, example: str, store: Path
) -> Iterator[Daemon]:
    """A registry that serves the example flake."""
    tmp = tmp_path_factory.mktemp("registry")
    with daemon.registry(tmp, example, "--store", str(store)) as running:
        yield running


@pytest.fixture(scope="session")
def faulty(
    tmp_path_factory: pytest.TempPathFactory, faults: str, store: Path
) -> Iterator[Daemon]:
    """A registry that serves the flake in which everything fails."""
    tmp = tmp_path_factory.mktemp("faulty")
    options = ("--store", str(store), "--nix-build-timeout", "20")
    with daemon.registry(tmp, faults, *options) as running:
        yield running


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser, and a folder for what it shows."""
    with browser.chromium(tmp_path_factory.mktemp("pictures")) as running:
        yield running


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with storage of its own."""
    with Podman(tmp_path_factory.mktemp("podman")) as client:
        yield client


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A dockerd of the tests' own, and its client."""
    with Docker(tmp_path_factory.mktemp("docker")) as client:
        yield client


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """A containerd of the tests' own, and its client."""
    with Containerd(tmp_path_factory.mktemp("containerd")) as client:
        yield client


@pytest.fixture(scope="session")
def skopeo(tmp_path_factory: pytest.TempPathFactory) -> Skopeo:
    """Skopeo with a folder of its own."""
    return Skopeo(tmp_path_factory.mktemp("skopeo"))
