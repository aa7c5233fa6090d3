"""Whatever a build is at when it all ends, what is left behind is in order."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import daemon
from tests.daemon import ROOT, Daemon, eventually

#: Stands in for nix where the flake would be looked up in no time.
SLOW_LOOKUP = """#!/bin/sh
case "$*" in *" metadata "*) test -e "$HOLD" && exec sleep 1009 ;; esac
exec /usr/bin/nix "$@"
"""

#: Nix may take no notice of SIGTERM while it evaluates: SIGKILL comes 10 s later.
PATIENCE_SECONDS = 90.0

#: By state, the image that is asked for to get there.
IMAGES = {
    "locking": "many-0",
    "evaluating": "slow-evaluation",
    "building": "sleep-45",
    "queued": "sleep-100",
}


def builds(running: Daemon) -> list[dict[str, Any]]:
    """List the builds as an operator sees them."""
    listed: list[dict[str, Any]] = running.ask("/-/api/builds").json["builds"]
    return listed


def asked(running: Daemon, image: str) -> threading.Thread:
    """Have a client ask for an image, whatever comes of it."""

    def ask() -> None:
        subprocess.run(
            [
                "curl",
                "-s",
                f"localhost:{running.port}/v2/packages/{image}/manifests/latest",
            ],
            stdout=subprocess.DEVNULL,
        )

    client = threading.Thread(target=ask)
    client.start()
    return client


def stands(running: Daemon, image: str, state: str) -> Callable[[], bool]:
    """Say whether an image's build is at some state."""
    wanted = (f"packages/{image}:latest", state)
    return lambda: wanted in [(b["image"], b["state"]) for b in builds(running)]


def started(by: Path) -> list[int]:
    """
    List what the registries of this test started and that is there.

    :param by: the test's directory: ``HOLD`` tells nix of it, and ``salt`` builders.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_registry = b"forge-registry" in (process / "cmdline").read_bytes()
            if not is_registry and bytes(by) in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


@pytest.fixture
def settled(tmp_path: Path, store: Path) -> Callable[..., Any]:
    """Give what runs a registry, each time on the same state."""
    flake = daemon.flake(ROOT / "tests" / "flakes" / "sleepy", tmp_path / "flake")
    (tmp_path / "flake" / "salt").write_text(str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nix").write_text(SLOW_LOOKUP)
    (tmp_path / "bin" / "nix").chmod(0o755)
    path = f"{tmp_path}/bin:{daemon.environment()['PATH']}"

    def start(*options: str) -> Any:
        return daemon.registry(
            tmp_path, flake, "--store", str(store), "--max-builds", "1", *options,
            PATH=path, HOLD=str(tmp_path / "hold"),
        )  # fmt: skip

    return start


def get_to(running: Daemon, state: str) -> list[threading.Thread]:
    """Have a build get to a state, and stay there."""
    clients = []
    if state == "queued":
        clients.append(asked(running, "sleep-45"))
        eventually(stands(running, "sleep-45", "building"), PATIENCE_SECONDS)
    clients.append(asked(running, IMAGES[state]))
    eventually(stands(running, IMAGES[state], state), PATIENCE_SECONDS)
    return clients


@pytest.mark.parametrize("state", IMAGES)
def test_killed(settled: Callable[..., Any], tmp_path: Path, state: str) -> None:
    """After kill -9 at any stage a build is marked, and started again only if asked."""
    hold = tmp_path / "hold"
    if state == "locking":
        hold.touch()  # before the registry itself has a look at the flake
    with settled() as running:
        clients = get_to(running, state)
        running.kill()
        for client in clients:
            client.join()
    hold.unlink(missing_ok=True)
    eventually(lambda: not started(tmp_path), PATIENCE_SECONDS)
    with settled() as running:
        image = f"packages/{IMAGES[state]}:latest"
        eventually(stands(running, IMAGES[state], "interrupted"))
        (build,) = [b for b in builds(running) if b["image"] == image]
        assert "pull again" in build["error"]
        assert " build --json" not in running.logged()
        assert list((running.state / "partial").iterdir()) == []
        assert running.ask("/v2/packages/many-1/manifests/latest").status == 200


@pytest.mark.parametrize("state", IMAGES)
def test_cancelled(settled: Callable[..., Any], tmp_path: Path, state: str) -> None:
    """Whatever a build is at, an operator can end it, and the next one works."""
    hold = tmp_path / "hold"
    if state == "locking":
        hold.touch()  # before the registry itself has a look at the flake
    with settled() as running:
        clients = get_to(running, state)
        image = f"packages/{IMAGES[state]}:latest"
        for build in builds(running):
            if build["finished_at"] is None:
                path = f"/-/api/builds/{build['id']}/cancel"
                assert running.ask(path, "POST").status == 200
        for client in clients:
            client.join()
        assert {b["state"] for b in builds(running)} == {"cancelled"}
        hold.unlink(missing_ok=True)
        if state != "locking":  # it is everybody's, and ends by itself
            eventually(lambda: not started(tmp_path), PATIENCE_SECONDS)
            assert running.ask("/v2/packages/many-2/manifests/latest").status == 200
        assert image in [b["image"] for b in builds(running)]


def test_nix_is_killed(settled: Callable[..., Any], tmp_path: Path) -> None:
    """When somebody kills nix, the build has failed, and can be tried again at once."""
    with settled() as running:
        client = asked(running, "sleep-10")
        eventually(stands(running, "sleep-10", "building"))
        eventually(running.children)
        (nix,) = running.children()
        subprocess.run(["kill", "-9", str(nix)], check=True)
        client.join()
        (build,) = builds(running)
        assert build["state"] == "failed"
        assert "nix was ended" in build["error"]
        assert running.ask("/v2/packages/sleep-10/manifests/latest").status == 200
