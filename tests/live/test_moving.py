"""What is taken to another machine, and what that one needs to serve the same."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from tests import daemon

HELLO = "/v2/packages/hello/manifests/"

#: A flake whose one package is another flake's.
OUTER = """
{{
  inputs.inner.url = "path:{inner}";
  outputs = {{ self, inner }}: {{ packages = inner.packages; }};
}}
"""


def pull(running: daemon.Daemon, reference: str) -> str:
    """Fetch a manifest and all its layers, each checked; give its digest."""
    manifest = running.ask(HELLO + reference)
    assert manifest.status == 200, manifest.body
    for layer in manifest.json["layers"]:
        blob = running.ask(f"/v2/packages/hello/blobs/{layer['digest']}")
        assert f"sha256:{hashlib.sha256(blob.body).hexdigest()}" == layer["digest"]
    return manifest.headers["docker-content-digest"]


def nix(tmp: Path, *words: str) -> None:
    """Run a command of nix."""
    subprocess.run(
        ["nix", "--extra-experimental-features", "nix-command flakes", *words],
        check=True,
        env=daemon.environment(XDG_CACHE_HOME=str(tmp / "cache")),
    )


def test_records_alone(tmp_path: Path, example: str) -> None:
    """A registry that has only the records' copy left answers by digest all the same."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (second / "state").mkdir(parents=True)
    with daemon.registry(first, example, "--store", str(first / "store")) as running:
        digest = pull(running, "latest")
        with (
            closing(sqlite3.connect(running.state / "registry.sqlite")) as source,
            closing(sqlite3.connect(second / "state" / "registry.sqlite")) as copy,
        ):
            source.backup(copy)
    with daemon.registry(second, example, "--store", str(second / "store")) as running:
        assert pull(running, digest) == digest
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=True)


def test_without_a_network(tmp_path: Path, example: str) -> None:
    """A flake that was archived with its inputs is served where those cannot be had."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    shutil.copytree(example.removeprefix("path:"), inner)
    outer.mkdir()
    (outer / "flake.nix").write_text(OUTER.format(inner=inner))
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    carried = f"file://{tmp_path}/carried"
    nix(tmp_path, "flake", "lock", "--store", here, f"path:{outer}")
    nix(tmp_path, "flake", "archive", "--store", here, "--to", carried, f"path:{outer}")
    shutil.rmtree(inner)
    nix(tmp_path, "copy", "--all", "--no-check-sigs", "--from", carried, "--to", there)
    with daemon.registry(tmp_path, f"path:{outer}", "--store", there) as running:
        assert pull(running, "latest")
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=True)
