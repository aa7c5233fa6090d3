"""A registry whose disk has no room left serves what it can, and lives."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import daemon
from tests.live.clients import Podman
from tests.live.large import SAYS, large_image, quick_gz

LAYER_BYTES = 64 * 2**20
DISK_BYTES = 8 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory whose state lies on a small disk."""
    state = tmp_path / "state"
    state.mkdir()
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", state], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", state], check=True)


def test_larger_than_the_disk(small_disk: Path, store: Path, podman: Podman) -> None:
    """An image that the disk has no room for is served all the same, time and again."""
    flake, _ = large_image(small_disk / "flake", LAYER_BYTES, quick_gz)
    with daemon.registry(small_disk, flake, "--store", str(store)) as running:
        for _ in range(2):
            podman.forget()
            outcome = podman.run(running.ref("packages/large:latest"))
            assert outcome.out == SAYS, outcome.text
            assert list((running.state / "partial").iterdir()) == []
        (build,) = running.ask("/-/api/builds").json["builds"]
        assert build["state"] == "done"
        assert "Traceback" not in running.logged()


def test_no_room_at_all(small_disk: Path, example: str, store: Path) -> None:
    """Where not a byte is left, what is there is served, and the registry lives."""
    hello = "/v2/packages/hello/manifests/latest"
    with daemon.registry(small_disk, example, "--store", str(store)) as running:
        known = running.ask(hello)
        assert known.status == 200
        with (running.state / "ballast").open("wb") as ballast:
            with pytest.raises(OSError, match="No space left"):
                while True:
                    ballast.write(b"x" * 2**16)
                    ballast.flush()
        answer = running.ask("/v2/packages/hello-single/manifests/latest")
        assert answer.status == 507, answer.body
        assert running.ask(hello).body == known.body
        (running.state / "ballast").unlink()
        answer = running.ask("/v2/packages/hello-single/manifests/latest")
        assert answer.status == 200, answer.body
        assert "Traceback" not in running.logged()
