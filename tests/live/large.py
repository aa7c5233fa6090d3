"""A flake whose one image is large."""

from __future__ import annotations

import os
from pathlib import Path

from isal import igzip

from tests import archives, daemon
from tests.archives import Entry, Pack
from tests.daemon import ROOT

#: What its container prints.
SAYS = "this is large\n"


def quick_gz(data: bytes) -> bytes:
    """Compress with gzip, in no time."""
    packed: bytes = igzip.compress(data, 0)
    return packed


def large_archive(layer_bytes: int, count: int = 1) -> tuple[bytes, str]:
    """Give an archive with layers of at least that size, and the first one's digest."""
    busybox = Path("/bin/busybox").read_bytes()
    layers = []
    for number in range(count):
        block = os.urandom(2**20)
        entries = [
            Entry(f"bin/busybox-{number}", busybox, mode=0o755),
            Entry(f"ballast-{number}", block * (layer_bytes // len(block))),
        ]
        layers.append(archives.layer_of(archives.tar(entries)))
    command = ["/bin/busybox-0", "echo", SAYS.strip()]
    recipe = archives.Recipe(tuple(layers), more={"config": {"Cmd": command}})
    archive = archives.tar(archives.build_layered_image(recipe))
    return archive, f"sha256:{layers[0].diff_id}"


def large_image(
    folder: Path, layer_bytes: int, pack: Pack = archives.plain, count: int = 1
) -> tuple[str, str]:
    """
    Write the flake; its package is ``large``.

    :param pack: how the archive is packed; a plain one is served as it lies in the
        Nix store.
    :returns: flake ref, and digest of the first layer.
    """
    reference = daemon.flake(ROOT / "tests" / "flakes" / "archives", folder)
    (folder / "archives").mkdir()
    archive, digest = large_archive(layer_bytes, count)
    (folder / "archives" / "large").write_bytes(pack(archive))
    return reference, digest
