"""A registry that systemd looks after: played by whoever has the socket's other end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.daemon import Daemon, registry

FLAKE = "path:/nowhere"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(30)
        yield end


def looked_after(folder: Path, **env: str) -> AbstractContextManager[Daemon]:
    """Start a registry as systemd does."""
    told = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "400000"}
    return registry(folder, FLAKE, port=None, listener=None, twistd=(), **told, **env)


def hear(manager: socket.socket, word: str) -> str:
    """Wait for a message that begins so."""
    while not (message := manager.recv(4096).decode()).startswith(word):
        pass
    return message


def test_from_start_to_stop(tmp_path: Path, manager: socket.socket) -> None:
    """systemd hears of a start, a reload and a stop, and that the reactor runs."""
    with looked_after(tmp_path) as running:
        assert "STATUS=0 builds run" in hear(manager, "READY=1")
        assert running.ask("/healthz").status == 200
        hear(manager, "WATCHDOG=1")
        running.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in hear(manager, "RELOADING=1")
        hear(manager, "READY=1")
        (tmp_path / ".env").write_text("CACHE_SIZE=much\n")
        running.process.send_signal(signal.SIGHUP)
        hear(manager, "RELOADING=1")
        hear(manager, "READY=1")
        running.process.terminate()
        assert "EXTEND_TIMEOUT_USEC=30000000" in hear(manager, "STOPPING=1")
        assert running.stop() == -signal.SIGTERM


def test_a_reactor_that_is_stuck(tmp_path: Path, manager: socket.socket) -> None:
    """systemd hears nothing of a process that does not go on."""
    with looked_after(tmp_path) as running:
        hear(manager, "WATCHDOG=1")
        running.process.send_signal(signal.SIGSTOP)
        manager.settimeout(1)
        with pytest.raises(TimeoutError):
            while True:
                manager.recv(4096)
        running.process.send_signal(signal.SIGCONT)
        hear(manager, "WATCHDOG=1")


def test_children_are_not_told(tmp_path: Path, manager: socket.socket) -> None:
    """Nothing that the registry starts can speak to systemd in its name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    nix = folder / "nix"
    nix.write_text(
        f'#!/bin/sh\nenv >> {tmp_path}/seen\nPATH=${{PATH#*:}} exec nix "$@"\n'
    )
    nix.chmod(0o755)
    with looked_after(tmp_path, PATH=f"{folder}:{os.environ['PATH']}") as running:
        running.wait_for("can be pulled until it can be read")
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen and "NOTIFY_SOCKET" not in seen and "WATCHDOG" not in seen
