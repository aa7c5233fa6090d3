"""What a registry knew is still known after it was ended, however that was done."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import ROOT, Daemon, collect_garbage, eventually

HELLO = "/v2/packages/hello/manifests/latest"


def pull(running: Daemon) -> subprocess.Popen[bytes]:
    """Ask for the image that takes its time, with a client that waits."""
    url = f"http://127.0.0.1:{running.port}/v2/packages/slow/manifests/latest"
    return subprocess.Popen(["curl", "-s", url], stdout=subprocess.PIPE)


def served(running: Daemon, path: str) -> dict[str, bytes]:
    """Fetch a manifest and all that it names; each checked against its digest."""
    manifest = running.ask(path)
    assert manifest.status == 200, manifest.body
    name = path.partition("/manifests/")[0]
    blobs = [manifest.json["config"], *manifest.json["layers"]]
    found = {manifest.headers["docker-content-digest"]: manifest.body}
    for blob in blobs:
        found[blob["digest"]] = running.ask(f"{name}/blobs/{blob['digest']}").body
    for digest, body in found.items():
        assert f"sha256:{hashlib.sha256(body).hexdigest()}" == digest
    return found


def test_after_a_crash_everything_is_there(
    tmp_path: Path, example: str, store: Path
) -> None:
    """After kill -9 the next start serves what was served before, and builds nothing."""
    options = ("--store", str(store))
    with daemon.registry(tmp_path, example, *options) as first:
        before = served(first, HELLO)
        first.kill()
    with daemon.registry(tmp_path, example, *options) as second:
        assert served(second, HELLO) == before
        digest = next(iter(before))
        assert served(second, f"/v2/packages/hello/manifests/{digest}") == before
        assert " eval " not in second.logged() and " build " not in second.logged()


def test_crashes_at_any_moment(tmp_path: Path, example: str, store: Path) -> None:
    """Whenever the registry is killed, the next one has all it served, and no halves."""
    names = ("hello", "hello-single", "hello-plain", "dotted.name")
    before: dict[str, dict[str, bytes]] = {}
    moments = random.Random(1)
    for _ in range(8):
        with daemon.registry(tmp_path, example, "--store", str(store)) as running:
            assert list((running.state / "partial").iterdir()) == []
            for name, known in before.items():
                path = f"/v2/packages/{name}/manifests/{next(iter(known))}"
                assert served(running, path) == known
            for blob in (running.state / "blobs").glob("*/*/*"):
                assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
            killer = threading.Timer(moments.uniform(0.05, 0.6), running.kill)
            killer.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                for name in names:
                    path = f"/v2/packages/{name}/manifests/latest"
                    before[name] = served(running, path)
            killer.join()
    assert before


def test_a_crash_while_building(tmp_path: Path, faults: str, store: Path) -> None:
    """When the registry is killed during a build, nix and its builders end with it."""
    with daemon.registry(tmp_path, faults, "--store", str(store)) as running:
        client = pull(running)
        running.wait_for("packages/slow:latest: started")
        (nix,) = running.children()
        running.kill()
        client.communicate()
        eventually(lambda: not Path(f"/proc/{nix}").exists())
        eventually(lambda: not sleeping("1000"))


def test_stopping_while_building(tmp_path: Path, faults: str, store: Path) -> None:
    """When the registry is stopped during a build, nix ends first and clients are told."""
    with daemon.registry(tmp_path, faults, "--store", str(store)) as running:
        client = pull(running)
        running.wait_for("packages/slow:latest: started")
        assert running.stop() == -signal.SIGTERM
        assert b"shutting down" in client.communicate()[0]
        assert not sleeping("1000")


def test_nix_killed_by_someone_else(tmp_path: Path, faults: str, store: Path) -> None:
    """When somebody kills nix, the pull fails with a reason, and the next one works."""
    with daemon.registry(tmp_path, faults, "--store", str(store)) as running:
        for _ in range(2):
            client = pull(running)
            eventually(lambda: sleeping("1000"))
            (nix,) = running.children()
            os.kill(nix, signal.SIGTERM)
            assert b"build of packages/slow:latest failed" in client.communicate()[0]
            eventually(lambda: not sleeping("1000"))


def sleeping(seconds: str) -> bool:
    """Whether the slow image's builder is there."""
    listed = subprocess.run(
        ["pgrep", "-fx", f"sleep {seconds}"], stdout=subprocess.PIPE
    )
    return bool(listed.stdout)


def test_deleted_layers_come_back(tmp_path: Path, example: str, store: Path) -> None:
    """An operator may delete the unpacked layers at any time."""
    with daemon.registry(tmp_path, example, "--store", str(store)) as running:
        before = served(running, HELLO)
        shutil.rmtree(running.state / "blobs" / "sha256")
        assert served(running, HELLO) == before


@pytest.mark.parametrize("flake_changed", [False, True])
def test_collected_archives_come_back(
    tmp_path: Path, example: str, flake_changed: bool
) -> None:
    """What was pulled once can be pulled by digest after Nix has deleted it."""
    store = tmp_path / "store"
    reference = (
        f"path:{shutil.copytree(example.removeprefix('path:'), tmp_path / 'flake')}"
    )
    options = ("--store", str(store), "--tag-ttl", "0")
    try:
        with daemon.registry(tmp_path, reference, *options) as running:
            before = served(running, HELLO)
            digest = next(iter(before))
            collect_garbage(store)
            archives = list(
                (store / "nix" / "store").glob("*-docker-image-hello.tar.gz")
            )
            assert len(archives) == 1, "a pulled image is a root of Nix's collector"
            for link in (running.state / "roots").iterdir():
                link.unlink()
            collect_garbage(store)
            shutil.rmtree(running.state / "blobs" / "sha256")
            if flake_changed:
                # The locked source is gone from the store too, and what was locked
                # is no more: the one thing that cannot come back.
                with (tmp_path / "flake" / "flake.nix").open("a") as file:
                    file.write("# changed\n")
                answer = running.ask(f"/v2/packages/hello/manifests/{digest}")
                assert answer.body == before[digest]
                layer = answer.json["layers"][0]["digest"]
                answer = running.ask(f"/v2/packages/hello/blobs/{layer}")
                assert answer.status == 422
                assert "NAR hash mismatch" in answer.message
            else:
                assert served(running, HELLO) == before
    finally:
        subprocess.run(["chmod", "-R", "u+w", store], check=True)


@pytest.mark.parametrize("kind", ["path", "git"])
def test_a_flake_that_is_being_written(tmp_path: Path, kind: str, store: Path) -> None:
    """Who writes a flake on this machine pulls what they have just added to it."""
    folder = tmp_path / "flake"
    reference = daemon.flake(ROOT / "examples" / "forge", folder)
    if kind == "git":
        reference = f"git+file://{folder}"
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        subprocess.run(["git", "add", "--force", "."], cwd=folder, check=True)
    with daemon.registry(tmp_path, reference, "--store", str(store)) as running:
        assert running.ask(HELLO).status == 200
        text = (folder / "flake.nix").read_text()
        added = text.replace("inherit hello;", "inherit hello; added = hello;")
        (folder / "flake.nix").write_text(added)
        assert running.ask("/v2/packages/added/manifests/latest").status == 200
        (folder / "flake.nix").write_text(added.replace("echo single", "echo double"))
        before = running.ask(HELLO)
        single = running.ask("/v2/packages/hello-single/manifests/latest")
        assert single.status == 200
        assert running.ask(HELLO).body == before.body
