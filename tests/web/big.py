"""An image with a layer that takes several reads to send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forgereg.web.stream import CHUNK
from tests.archives import Recipe, layer_of
from tests.registry import Served, digest_of, serving

#: A layer of several chunks, in which no two stretches are equal.
DATA = b"".join(n.to_bytes(4, "big") for n in range(CHUNK))
SIZE = len(DATA)
DIGEST = digest_of(DATA)
PATH = f"/v2/packages/big/blobs/{DIGEST}"


@contextmanager
def serving_big(tmp: Path) -> Iterator[Served]:
    """Run a registry that has been asked for a large image and an empty layer."""
    with serving(tmp) as served:
        recipe = Recipe((layer_of(DATA), layer_of(b"")))
        served.nix.packages["big"] = served.store.package(None, recipe, name="big")
        served.pull("packages/big")
        yield served
