"""A flake whose one image has one large layer."""

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


def large_archive(layer_bytes: int) -> tuple[bytes, str]:
    """Give an archive with one layer of at least that size, and the layer's digest."""
    block = os.urandom(2**20)
    busybox = Path("/bin/busybox").read_bytes()
    layer = archives.layer_of(
        archives.tar(
            [
                Entry("bin/busybox", busybox, mode=0o755),
                Entry("ballast", block * (layer_bytes // len(block))),
            ]
        )
    )
    command = ["/bin/busybox", "echo", SAYS.strip()]
    recipe = archives.Recipe((layer,), more={"config": {"Cmd": command}})
    archive = archives.tar(archives.build_layered_image(recipe))
    return archive, f"sha256:{layer.diff_id}"


def large_image(
    folder: Path, layer_bytes: int, pack: Pack = archives.plain
) -> tuple[str, str]:
    """
    Write the flake; its package is ``large``.

    :param pack: how the archive is packed; a plain one is served as it lies in the
        Nix store.
    :returns: flake ref, and digest of the layer.
    """
    reference = daemon.flake(ROOT / "tests" / "flakes" / "archives", folder)
    (folder / "archives").mkdir()
    archive, digest = large_archive(layer_bytes)
    (folder / "archives" / "large").write_bytes(pack(archive))
    return reference, digest
