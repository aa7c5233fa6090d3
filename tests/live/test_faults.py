"""Archives that are damaged, or that change while the registry serves them."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import archives as writers
from tests import daemon
from tests.daemon import ROOT, Daemon, collect_garbage
from tests.live.clients import Podman
from tests.live.large import SAYS, large_archive, large_image, quick_gz
from tests.live.test_stopping import Download

LAYER_BYTES = 16 * 2**20
LARGE = "/v2/packages/large/manifests/latest"

#: What a pull of each is told.
DAMAGED = {
    "cut-gz": "damaged",
    "cut-plain": "the archive is truncated",
    "cut-xz": "damaged",
    "cut-zst": "damaged",
    "flipped-gz": "damaged",
    "flipped-xz": "damaged",
    "flipped-zst": "damaged",
    "flipped-layout": "damaged",
    "flipped-directory": "damaged",
}


def flipped(data: bytes, position: int) -> bytes:
    """Give bytes of which one bit is another."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Daemon]:
    """A registry of damaged archives, and of one that is whole."""
    tmp = tmp_path_factory.mktemp("damaged")
    reference = daemon.flake(ROOT / "tests" / "flakes" / "archives", tmp / "flake")
    folder = tmp / "flake" / "archives"
    folder.mkdir()
    whole, digest = large_archive(2**20)
    (folder / "whole").write_bytes(whole)
    for ending, pack in writers.PACKS.items():
        packed, name = pack(whole), ending.replace("tar", "plain")
        (folder / f"cut-{name}").write_bytes(packed[: len(packed) // 2])
        (folder / f"flipped-{name}").write_bytes(flipped(packed, len(packed) // 2))
    entries = writers.oci_archive(writers.Recipe())
    layer = max(entries, key=lambda entry: len(entry.data))
    where = writers.tar(entries).index(layer.data)
    (folder / "flipped-layout").write_bytes(flipped(writers.tar(entries), where))
    writers.write_folder(entries, folder / "flipped-directory")
    (folder / "flipped-directory" / layer.name).write_bytes(flipped(layer.data, 0))
    with daemon.registry(tmp, reference, "--store", str(store)) as running:
        yield running


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(damaged: Daemon, podman: Podman, name: str) -> None:
    """Whoever pulls a damaged archive is told so, and others pull what is whole."""
    podman.forget()
    outcome = podman.pull(damaged.ref(f"packages/{name}:latest"))
    assert outcome.status != 0
    assert DAMAGED[name] in outcome.err
    assert podman.run(damaged.ref("packages/whole:latest")).out == SAYS


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[Path]:
    """A Nix store that a test may damage."""
    store = tmp_path / "store"
    yield store
    subprocess.run(["chmod", "-R", "u+w", store], check=True)
    shutil.rmtree(store)


PACKS = {"plain": writers.plain, "gz": quick_gz}


@pytest.mark.parametrize("pack", PACKS)
def test_deleted_while_it_is_served(tmp_path: Path, own_store: Path, pack: str) -> None:
    """Who is in the middle of a layer when Nix deletes its archive gets all of it."""
    flake, digest = large_image(tmp_path / "flake", LAYER_BYTES, PACKS[pack])
    with daemon.registry(tmp_path, flake, "--store", str(own_store)) as running:
        assert running.ask(LARGE).status == 200
        shutil.rmtree(running.state / "blobs" / "sha256", ignore_errors=True)
        client = Download(running, digest)
        for link in (running.state / "roots").iterdir():
            link.unlink()
        collect_garbage(own_store)
        assert list((own_store / "nix" / "store").glob("*-image-large")) == []
        assert client.finish() == digest
        shutil.rmtree(running.state / "blobs" / "sha256", ignore_errors=True)
        assert Download(running, digest).finish() == digest


def fetched(running: Daemon, path: str) -> str | None:
    """Give the digest of a blob that came whole; None where no client would think so."""
    try:
        answer = running.ask(path)
    except (ConnectionError, http.client.IncompleteRead):
        return None
    if answer.status != http.HTTPStatus.OK:
        assert answer.message
        return None
    return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("how", ["a bit is flipped", "replaced", "truncated"])
def test_changed(tmp_path: Path, own_store: Path, pack: str, how: str) -> None:
    """Of an archive that is not what it was nobody gets wrong bytes unknowingly."""
    flake, digest = large_image(tmp_path / "flake", LAYER_BYTES, PACKS[pack])
    path = f"/v2/packages/large/blobs/{digest}"
    options = ("--store", str(own_store), "--failure-ttl", "0")
    with daemon.registry(tmp_path, flake, *options) as running:
        assert running.ask(LARGE).status == 200
        shutil.rmtree(running.state / "blobs" / "sha256", ignore_errors=True)
        (archive,) = (own_store / "nix" / "store").glob("*-image-large")
        right = archive.read_bytes()
        if how == "a bit is flipped":
            wrong = flipped(right, len(right) // 2)
        elif how == "replaced":
            wrong = PACKS[pack](large_archive(LAYER_BYTES)[0])
        else:
            wrong = right[: len(right) // 2]
        archive.chmod(0o644)
        archive.write_bytes(wrong)
        for _ in range(3):
            assert fetched(running, path) is None
        archive.write_bytes(right)
        assert fetched(running, path) == digest
        assert "Traceback" not in running.logged()
