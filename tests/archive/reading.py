"""
Read an archive of given bytes into a store of its own, and look at what is left.

Every reading, however it ends, is checked for what must hold in any case: nothing half
done stays, every blob is what its name says, no thread goes on, and an archive that is
refused leaves nothing at all.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from attrs import frozen

from forgereg.archive import scan
from forgereg.archive.layout import Packed
from forgereg.blobs.store import BlobStore
from forgereg.oci.descriptor import Image
from forgereg.oci.errors import ArchiveInvalid
from tests.archives import Recipe, build_layered_image, layer, tar

#: Where the stores are made; there are thousands of them.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@frozen
class Found:
    """
    What a reading found.

    :ivar blobs: what was kept, by the digest's hexadecimal digits.
    """

    packed: tuple[Packed, ...]
    blobs: dict[str, bytes]

    @property
    def images(self) -> list[Image]:
        """The images, in their order."""
        return [each.image for each in self.packed]


def read(
    archive: bytes,
    max_bytes: int = 2**30,
    stopping: Callable[[], bool] = lambda: False,
    stage_of: Callable[[scan.Stage], scan.Stage] = lambda stage: stage,
) -> Found:
    """
    Read an archive of these bytes.

    :param stage_of: what to put in the place of the store's own stage.
    """
    with TemporaryDirectory(dir=_MEMORY) as folder:
        path = Path(folder) / "archive"
        path.write_bytes(archive)
        return read_path(path, max_bytes, stopping, stage_of)


def read_path(
    path: Path,
    max_bytes: int = 2**30,
    stopping: Callable[[], bool] = lambda: False,
    stage_of: Callable[[scan.Stage], scan.Stage] = lambda stage: stage,
) -> Found:
    """Read the archive that lies there; else as `read`."""
    with TemporaryDirectory(dir=_MEMORY) as folder:
        store = BlobStore(Path(folder))
        store.prepare()
        threads = threading.active_count()
        packed: tuple[Packed, ...] | None = None
        try:
            with store.stage() as stage:
                packed = scan.scan(path, stage_of(stage), max_bytes, stopping)
        finally:
            blobs = {
                file.name: file.read_bytes()
                for file in (store.root / "blobs").rglob("*")
                if file.is_file()
            }
            assert list((store.root / "partial").iterdir()) == []
            assert threading.active_count() == threads
            assert all(hashlib.sha256(b).hexdigest() == n for n, b in blobs.items())
            assert blobs == {} or packed is not None
        named = {blob for each in packed for blob in each.image.blobs}
        sizes = {blob.digest.encoded: blob.size for blob in named}
        assert {name: len(blob) for name, blob in blobs.items()} == sizes
        return Found(packed, blobs)


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
