"""A registry whose disk has no room for an image says so, and serves all others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import daemon
from tests.live.clients import Podman
from tests.live.large import large_image

LAYER_BYTES = 64 * 2**20
DISK_BYTES = 32 * 2**20
LARGE = "/v2/packages/large/manifests/latest"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory whose state lies on a small disk."""
    state = tmp_path / "state"
    state.mkdir()
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", state], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", state], check=True)


def test_no_room_for_an_image(
    small_disk: Path, example: str, store: Path, podman: Podman
) -> None:
    """The person reads that the disk is full; nothing is left there, and others pull."""
    flake, _ = large_image(small_disk / "flake", LAYER_BYTES)
    others = f'{{example = "{example}"}}'
    options = ("--store", str(store), "--flakes", others)
    with daemon.registry(small_disk, flake, *options) as running:
        for _ in range(2):
            answer = running.ask(LARGE)
            assert (answer.status, answer.json["errors"][0]["code"]) == (507, "UNKNOWN")
            assert "no room" in answer.message
            assert list((running.state / "partial").iterdir()) == []
        states = [b["state"] for b in running.ask("/-/api/builds").json["builds"]]
        assert states == ["failed"] * 2
        outcome = podman.run(running.ref("example/packages/hello:latest"))
        assert "Hello, world!" in outcome.out, outcome.text


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
