"""Images in all the ways that a flake can build them, and what clients get of them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from twisted.internet.defer import Deferred

from forgereg.flow.registry import Blob
from forgereg.oci.reference import Digest, Name
from tests.archives import Entry, Recipe, build_layered_image, layer_of, write_folder
from tests.client import Connection
from tests.deferreds import begin
from tests.doubles import Output, Package, Part, store_path
from tests.registry import Served, digest_of

NAME = "packages/big"
STEP = 2**16
#: A layer of many steps, and one of less than a step.
DATA = b"".join(n.to_bytes(4, "big") for n in range(STEP))
SMALL = b"small" * 100
DIGEST = digest_of(DATA)
RECIPE = Recipe((layer_of(SMALL), layer_of(DATA)))
ENTRIES = build_layered_image(RECIPE)


def put(served: Served, data: bytes) -> str:
    """Have the flake build a file with this content; give its path in the store."""
    output = served.store.file("big.tar.gz", data)
    served.nix.packages["big"] = Package("1", {"image": output})
    return output.path


def put_script(served: Served, data: bytes) -> str:
    """Have the flake build a script that writes this."""
    path = put(served, b"#!/bin/sh\n")
    output = served.nix.packages["big"].outputs["image"]

    def make() -> None:
        output.make()
        os.chmod(served.store.real(path), 0o755)

    made = Output(path, make, output.derivation)
    served.nix.packages["big"] = Package("1", {"image": made})
    served.scripts.parts[path] = Part(data)
    return path


def put_folder(served: Served, entries: Iterable[Entry], salt: str = "") -> str:
    """Have the flake build a directory with this content."""
    path, entries = store_path("big", salt), list(entries)

    def make() -> None:
        served.store.real(path).mkdir(parents=True)
        write_folder(entries, served.store.real(path))

    output = Output(path, make, store_path("big.drv", salt))
    served.nix.packages["big"] = Package("1", {"image": output})
    return path


def delete_blobs(served: Served) -> None:
    """Have the blob store be empty."""
    for path in (served.state / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()


def url(digest: str = DIGEST) -> str:
    """Give the path at which clients ask for a blob."""
    return f"/v2/{NAME}/blobs/{digest}"


def received(connection: Connection) -> bytes:
    """Give what has come of a body that is as it is."""
    body: bytes = connection.wire.value().partition(b"\r\n\r\n")[2]
    return body


def opened(served: Served, digest: str = DIGEST) -> Deferred[Blob]:
    """Open a blob."""
    wanted = Digest("sha256", digest.partition(":")[2])
    return begin(served.registry.blob(Name(NAME), wanted))
