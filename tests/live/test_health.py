"""What a registry tells of itself on disks that hang, are full, or cannot be written."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import Daemon, eventually

FLAKE = "path:/nowhere"
DISK_BYTES = 256 * 2**20


def do(*argv: str | Path) -> None:
    """Run something that must work."""
    subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory whose state lies on a disk of its own."""
    state, image = tmp_path / "state", tmp_path / "image"
    state.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    do("mkfs.ext4", "-q", image)
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, state], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk of one's own here: {mounted.stderr.decode().strip()}")
    yield tmp_path
    do("umount", "--lazy", state)


@contextmanager
def frozen(state: Path) -> Iterator[None]:
    """Have every write to a disk wait, as one that is gone over a network does."""
    do("fsfreeze", "--freeze", state)
    try:
        yield
    finally:
        do("fsfreeze", "--unfreeze", state)


def failed(running: Daemon) -> dict[str, str]:
    """Give what keeps a registry from serving, and why."""
    answer = running.ask("/readyz?format=json")
    checks = [each for each in answer.json["checks"] if each["is_required"]]
    wrong = {each["name"]: each["detail"] for each in checks if not each["is_ok"]}
    assert answer.status == (503 if wrong else 200)
    return wrong


def test_disk_that_hangs(disk: Path) -> None:
    """A disk that hangs is named within seconds; the registry is alive, and recovers."""
    with daemon.registry(disk, FLAKE) as running:
        assert failed(running) == {}
        with frozen(running.state):
            eventually(lambda: "disk" in failed(running))
            begun = time.monotonic()
            assert failed(running)["disk"].startswith("no answer for ")
            assert time.monotonic() - begun < 15
            assert running.ask("/healthz").status == 200
        eventually(lambda: failed(running) == {})
        assert "disk is well again" in running.logged()


def test_disk_that_is_full(disk: Path) -> None:
    """Before records are lost, a registry says that its disk is full."""
    with daemon.registry(disk, FLAKE) as running:
        ballast = running.state / "ballast"
        do("fallocate", "--length", str(DISK_BYTES - 48 * 2**20), ballast)
        eventually(lambda: "MiB are free" in failed(running).get("disk", ""))
        ballast.unlink()
        eventually(lambda: failed(running) == {})


def test_disk_that_cannot_be_written(disk: Path) -> None:
    """A disk that the kernel lets nobody write any more is told as that."""
    with daemon.registry(disk, FLAKE) as running:
        assert failed(running) == {}
        # What the registry has open keeps it from being remounted; the kernel's own
        # way after an error does not ask.
        do("mount", "-o", "remount,abort", running.state)
        eventually(lambda: "disk" in failed(running))
        assert "cannot be written" in failed(running)["disk"]
        assert running.ask("/healthz").status == 200
