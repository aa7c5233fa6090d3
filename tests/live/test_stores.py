"""Nix stores of every kind: nix's own, below another root, behind a daemon."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests import daemon
from tests.daemon import Daemon, eventually
from tests.live.clients import Podman


@contextlib.contextmanager
def nix_daemon(tmp: Path) -> Iterator[str]:
    """Run nix's daemon for a store of its own; give what ``--store`` has to say."""
    socket, store = tmp / "socket", tmp / "store"
    env = daemon.environment(
        NIX_DAEMON_SOCKET_PATH=str(socket), XDG_CACHE_HOME=str(tmp / "cache")
    )
    process = subprocess.Popen(["nix-daemon", "--store", str(store)], env=env)
    try:
        eventually(socket.exists)
        yield f"unix://{socket}?root={store}"
    finally:
        process.terminate()
        process.wait()
        subprocess.run(["chmod", "-R", "u+w", store], check=True)
        shutil.rmtree(store)


def runs(running: Daemon, podman: Podman) -> None:
    """Check that podman runs an image, and that nix's collector will not take it."""
    outcome = podman.run(running.ref("packages/hello:latest"))
    assert outcome.status == 0, outcome.text
    (link,) = (running.state / "roots").iterdir()
    assert os.readlink(link).endswith("-docker-image-hello.tar.gz")
    assert os.readlink(link).startswith("/nix/store/")


def test_behind_a_daemon(tmp_path: Path, example: str, podman: Podman) -> None:
    """The registry works where nix's daemon builds."""
    with nix_daemon(tmp_path) as store:
        with daemon.registry(tmp_path, example, "--store", store) as running:
            runs(running, podman)


def test_own_store(tmp_path: Path, example: str, podman: Podman) -> None:
    """The registry works with the store that nix has without any setting."""
    with daemon.registry(tmp_path, example) as running:
        runs(running, podman)


def test_store_by_url(tmp_path: Path, example: str, podman: Podman) -> None:
    """A store below another root can be named as a URL."""
    root = tmp_path / "root"
    with daemon.registry(tmp_path, example, "--store", f"local?root={root}") as running:
        runs(running, podman)
        assert list((root / "nix" / "store").glob("*-docker-image-hello.tar.gz"))
    subprocess.run(["chmod", "-R", "u+w", root], check=True)
