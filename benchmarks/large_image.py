"""
How long a large image takes: `make bench`.

A gzipped archive of ten layers, 1.2 GB unpacked, made of this machine's own programs so
that it packs as real images do. Measured, after `nix build`: the first manifest against
one pass of inflating and hashing the archive, and `skopeo copy` of the whole against the
same copy from Debian's docker-registry. That has the same layers, but compressed: less
to send and to hash, for a client that only stores them as `skopeo copy` to a directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from isal import igzip

from tests import daemon
from tests.daemon import ROOT, Daemon, free_port

LAYERS = 10
LAYER_BYTES = 120 * 2**20


def seconds(work: Callable[[], object]) -> float:
    """Time some work."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def make_archive(path: Path) -> None:
    """Write the archive."""
    files = [
        Path(folder, name)
        for top in ("/usr/lib", "/usr/bin", "/usr/share")
        for folder, _, names in os.walk(top)
        for name in names
    ]
    random.Random(1).shuffle(files)
    remaining = (f for f in files if f.is_file() and not f.is_symlink())
    plain = path.with_suffix(".plain")
    names, diff_ids = [], []
    with tarfile.open(plain, "w") as archive:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        for _ in range(LAYERS):
            layer = io.BytesIO()
            with tarfile.open(fileobj=layer, mode="w") as tar:
                while layer.tell() < LAYER_BYTES:
                    file = next(remaining)
                    tar.add(file, str(file).lstrip("/"))
            digest = hashlib.sha256(layer.getvalue()).hexdigest()
            names.append(f"{digest}/layer.tar")
            diff_ids.append(f"sha256:{digest}")
            add(names[-1], layer.getvalue())
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs}
        add("config.json", json.dumps(config).encode())
        entry = {"Config": "config.json", "RepoTags": ["large:1"], "Layers": names}
        add("manifest.json", json.dumps([entry]).encode())
    with path.open("wb") as out:
        subprocess.run(["gzip", "-6", "-c", plain], stdout=out, check=True)
    plain.unlink()


def one_pass(path: Path) -> None:
    """Inflate and hash, one after the other."""
    hashed = hashlib.sha256()
    with igzip.IGzipFile(str(path)) as file:
        while chunk := file.read(2**20):
            hashed.update(chunk)


def copy(port: int, name: str, target: Path) -> None:
    """Copy an image as a person would."""
    subprocess.run(
        [
            "skopeo", "copy", "--quiet", "--src-tls-verify=false",
            f"docker://localhost:{port}/{name}", f"dir:{target}",
        ],
        check=True,
    )  # fmt: skip
    subprocess.run(["rm", "-r", target], check=True)


@contextlib.contextmanager
def peer(tmp: Path) -> Iterator[int]:
    """Run Debian's docker-registry; give its port."""
    port = free_port()
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp / "peer")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (tmp / "peer.yml").write_text(json.dumps(config))
    argv = ["docker-registry", "serve", str(tmp / "peer.yml")]
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(2)
        yield port
    finally:
        process.terminate()
        process.wait()


def measure(tmp: Path, archive: Path, running: Daemon, peer_port: int) -> None:
    """Print the table."""
    # What nix does, and what it costs to have the archive in memory, is not measured.
    manifest = "/v2/packages/large/manifests/latest"
    pass_seconds = min(seconds(lambda: one_pass(archive)) for _ in range(3))
    running.ask(manifest)
    firsts = []
    for _ in range(3):
        digest = running.ask(manifest).json["layers"][0]["digest"]
        subprocess.run(["rm", "-r", running.state / "blobs" / "sha256"], check=True)
        blob = f"/v2/packages/large/blobs/{digest}"
        firsts.append(seconds(partial(running.ask, blob, "HEAD")))
    ours = [
        seconds(lambda: copy(running.port, "packages/large:latest", tmp / "copy"))
        for _ in range(3)
    ]
    subprocess.run(
        [
            "skopeo", "copy", "--quiet", "--src-tls-verify=false",
            "--dest-tls-verify=false", "--dest-compress-format=gzip",
            f"docker://localhost:{running.port}/packages/large:latest",
            f"docker://localhost:{peer_port}/large:latest",
        ],
        check=True,
    )  # fmt: skip
    theirs = [
        seconds(lambda: copy(peer_port, "large:latest", tmp / "copy")) for _ in range(3)
    ]
    megabytes = running.resident_bytes() / 2**20
    print(f"one pass of inflate and sha256       {pass_seconds:6.2f} s")
    print(
        f"reading the archive, layers unpacked {min(firsts):6.2f} s"
        f"  {min(firsts) / pass_seconds:.2f} x one pass"
    )
    print(f"skopeo copy from docker-registry     {min(theirs):6.2f} s")
    print(
        f"skopeo copy from here                {min(ours):6.2f} s"
        f"  {min(ours) / min(theirs):.2f} x docker-registry"
    )
    print(f"resident memory, at most             {megabytes:6.0f} MB")


def main() -> None:
    """Make the image, serve it, measure."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        tmp = Path(folder)
        reference = daemon.flake(ROOT / "tests" / "flakes" / "archives", tmp / "flake")
        archive = tmp / "flake" / "archives" / "large"
        archive.parent.mkdir()
        make_archive(archive)
        options = ("--store", str(tmp / "store"))
        with daemon.registry(tmp, reference, *options) as running, peer(tmp) as port:
            measure(tmp, archive, running, port)
        subprocess.run(["chmod", "-R", "u+w", tmp / "store"], check=True)


if __name__ == "__main__":
    main()
