"""A flake whose one image has one large layer."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from tests import daemon
from tests.daemon import ROOT


def large_image(folder: Path, layer_bytes: int) -> tuple[str, str]:
    """
    Write the flake; its package is ``large``.

    :returns: flake ref, and digest of the layer.
    """
    reference = daemon.flake(ROOT / "tests" / "flakes" / "archives", folder)
    (folder / "archives").mkdir()
    block = os.urandom(2**20)
    layer = block * (layer_bytes // len(block))
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps({"rootfs": {"diff_ids": [digest]}}).encode()
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["layer.tar"]}]
    with tarfile.open(folder / "archives" / "large", "w") as archive:
        for name, content in (
            ("layer.tar", layer),
            ("c.json", config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return reference, digest
