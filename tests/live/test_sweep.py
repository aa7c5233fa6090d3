"""Images that nobody pulls are let go of, down to the Nix store, and come back."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from tests import daemon
from tests.daemon import BIN, Daemon, collect_garbage

DAY = 86400.0
HELLO = "/v2/packages/hello/manifests/latest"
PLAIN = "/v2/packages/hello-plain/manifests/latest"


def sweep(running: Daemon, *options: str) -> str:
    """Have the command line sweep; give what it says."""
    outcome = subprocess.run(
        [
            str(BIN / "forge-registry"), "sweep", *options,
            "--url", f"http://localhost:{running.port}",
        ],
        capture_output=True, text=True, timeout=60, env=daemon.environment(),
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def test_an_image_that_nobody_pulls(tmp_path: Path, example: str) -> None:
    """What nobody pulled for a day goes, Nix's collector can have it, and it comes back."""
    store = tmp_path / "store"
    options = (
        "--store",
        str(store),
        "--sweep-days",
        "1",
        "--pins",
        "packages/hello-pl*",
    )
    try:
        with daemon.registry(tmp_path, example, *options) as running:
            digests = {}
            for path in (HELLO, PLAIN):
                answer = running.ask(path)
                digests[path] = answer.headers["docker-content-digest"]
            assert "0 images" in sweep(running, "--dry-run")
            assert "0 images" in sweep(running)
        with closing(
            sqlite3.connect(tmp_path / "state" / "registry.sqlite")
        ) as records:
            records.execute("UPDATE pulls SET pulled_at = pulled_at - ?", [2 * DAY])
            records.commit()
        with daemon.registry(tmp_path, example, *options) as running:
            running.wait_for("let go of packages/hello:2.12 packages/hello:latest")
            collect_garbage(store)
            assert (archives(store, "hello"), archives(store, "hello-plain")) == (0, 1)
            gone = HELLO.replace("latest", digests[HELLO])
            assert running.ask(gone).status == 404
            assert running.ask(PLAIN.replace("latest", digests[PLAIN])).status == 200
            assert running.ask(HELLO).headers["docker-content-digest"] == digests[HELLO]
            assert running.ask(gone).status == 200
            for layer in json.loads(running.ask(gone).body)["layers"]:
                path = f"/v2/packages/hello/blobs/{layer['digest']}"
                assert len(running.ask(path).body) == layer["size"]
    finally:
        subprocess.run(["chmod", "-R", "u+w", store], check=True)


def archives(store: Path, name: str) -> int:
    """Count the archives of an image in the store."""
    found = (store / "nix" / "store").glob(f"*-docker-image-{name}.tar*")
    return len([path for path in found if path.suffix != ".drv"])
