"""Put blobs into a store, and look at what is there."""

from __future__ import annotations

import os

from forgereg.blobs.stage import Partial, Stage
from forgereg.blobs.store import BlobStore
from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Digest

DATA = b"the bytes of a layer"
DIGEST = sha256(DATA)


def files(store: BlobStore) -> list[str]:
    """Name every file below the store's directory, relative to it."""
    return sorted(
        str(path.relative_to(store.root))
        for path in store.root.rglob("*")
        if not path.is_dir()
    )


def write(stage: Stage, data: bytes = DATA) -> Partial:
    """Write a file, and keep it open."""
    partial = stage.partial()
    partial.write(data)
    return partial


def put(
    store: BlobStore, data: bytes = DATA, coding: str = "", encoded: bytes = b""
) -> Digest:
    """Keep a blob, or an encoded form of it; give its digest."""
    with store.stage() as stage:
        write(stage, encoded or data).keep(sha256(data), coding)
    return sha256(data)


def content(
    store: BlobStore, digest: Digest, size: int | None, coding: str = ""
) -> bytes | None:
    """Pull a blob."""
    file = store.open(digest, size, coding)
    if file is None:
        return None
    with file:
        return file.read()


def damage(store: BlobStore, name: str) -> None:
    """Flip a bit in the middle of a file, as a bad disk does, and keep its times."""
    path = store.root / "blobs" / name
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
