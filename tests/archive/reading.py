"""
Read an archive of given bytes into a store of its own, and look at what is left.

Every reading, however it ends, is checked for what must hold in any case: nothing half
done stays, every blob is what its name says, no thread goes on, and an archive that is
refused leaves nothing at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import pytest
from attrs import frozen

from forgereg.archive import scan
from forgereg.archive.reading import Packed, Reading
from forgereg.archive.unpack import open_unpacked
from forgereg.blobs.store import BlobStore
from forgereg.oci.descriptor import Descriptor, Image, Place
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.manifest import sha256
from tests.archives import Recipe, build_layered_image, layer, tar

#: Where the stores are made; there are thousands of them.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@frozen
class Found:
    """
    What a reading found.

    :ivar blobs: what was kept, or lies where the reading says, by the digest's
        hexadecimal digits.
    """

    packed: tuple[Packed, ...]
    blobs: dict[str, bytes]

    @property
    def images(self) -> list[Image]:
        """The images, in their order, as the preferred form of each has them."""
        return [
            _image(json.loads(each.forms[0].body), each.blobs) for each in self.packed
        ]


def _image(manifest: Any, blobs: frozenset[Descriptor]) -> Image:
    known = {str(blob.digest): blob for blob in blobs}
    assert all(known[d["digest"]].size == d["size"] for d in manifest["layers"])
    return Image(
        known[manifest["config"]["digest"]],
        tuple(known[d["digest"]] for d in manifest["layers"]),
    )


def read(
    archive: bytes,
    max_bytes: int = 2**30,
    stopping: Callable[[], bool] = lambda: False,
    platform: str = "linux/amd64",
) -> Found:
    """Read an archive of these bytes; a plain one in both ways, which must agree."""
    with TemporaryDirectory(dir=_MEMORY) as folder:
        path = Path(folder) / "archive"
        path.write_bytes(archive)
        return read_path(path, max_bytes, stopping, platform)


def read_path(
    path: Path,
    max_bytes: int = 2**30,
    stopping: Callable[[], bool] = lambda: False,
    platform: str = "linux/amd64",
) -> Found:
    """Read the archive, or the directory, that lies there; else as `read`."""

    def open_below(name: str) -> BinaryIO:
        return (path / name).open("rb")

    def scanned(stage: scan.Stage) -> Reading:
        return scan.scan(path, stage, max_bytes, platform, stopping, open_below)

    return check(path, scanned)


def read_stream(
    file: BinaryIO, max_bytes: int = 2**30, platform: str = "linux/amd64"
) -> Found:
    """Read an archive out of a pipe; else as `read`."""

    def scanned(stage: scan.Stage) -> Reading:
        return scan.scan_stream(file, stage, max_bytes, platform, lambda: False)

    return check(None, scanned)


def check(path: Path | None, scanned: Callable[[scan.Stage], Reading]) -> Found:
    """Let an archive be read, and look whether everything is where it should be."""
    with TemporaryDirectory(dir=_MEMORY) as folder:
        store = BlobStore(Path(folder))
        store.prepare()
        threads = threading.active_count()
        reading: Reading | None = None
        try:
            with store.stage() as stage:
                reading = scanned(stage)
        finally:
            kept = {
                file.name: file.read_bytes()
                for file in (store.root / "blobs").rglob("*")
                if file.is_file()
            }
            assert list((store.root / "partial").iterdir()) == []
            assert threading.active_count() == threads
            assert kept == {} or reading is not None
        blobs = {}
        for digest, place in reading.places.items():
            blob = kept.pop(digest.encoded, None)
            sizes = {
                b.size for p in reading.images for b in p.blobs if b.digest == digest
            }
            (size,) = sizes
            if path is None:
                assert blob is not None
            else:
                cut = cut_out(path, place, size)
                assert blob in (None, cut)
                assert (blob is None) == place.is_plain
                blob = cut
            assert hashlib.sha256(blob).hexdigest() == digest.encoded
            assert len(blob) == size
            blobs[digest.encoded] = blob
        assert kept == {}
        named = {b.digest for p in reading.images for b in p.blobs}
        assert named == set(reading.places)
        for packed in reading.images:
            for each in (*packed.forms, *packed.parts):
                assert sha256(each.body) == each.digest
        return Found(reading.images, blobs)


def cut_out(path: Path, place: Place, size: int) -> bytes:
    """Give the bytes that lie there."""
    file = (path / place.path).open("rb") if place.is_plain else open_unpacked(path)
    with file:
        for _ in range(place.offset // 2**20):
            file.read(2**20)
        file.read(place.offset % 2**20)
        return file.read(size)


def refused(archive: bytes, max_bytes: int = 2**30) -> str:
    """Read an archive that must be refused, and give the reason that a client reads."""
    with pytest.raises(ArchiveInvalid) as caught:
        read(archive, max_bytes)
    reason = str(caught.value)
    assert reason
    assert len(reason.encode()) < 1000
    return reason


def read_or_refuse(archive: bytes, max_bytes: int = 2**24) -> Found | None:
    """Read an archive that may be refused; then give None."""
    try:
        return read(archive, max_bytes)
    except ArchiveInvalid as e:
        assert len(str(e).encode()) < 1000
        return None


#: A good archive, for tests to spoil.
A = layer("a")
RECIPE = Recipe((A, layer("b")))
ENTRIES = build_layered_image(RECIPE)
ARCHIVE = tar(ENTRIES)
FOUND = read(ARCHIVE)
