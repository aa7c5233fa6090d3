"""What `forgereg.archive.unpack` unpacks, and that it does so in bounded memory."""

from __future__ import annotations

import lzma
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.archive.unpack import BROKEN, open_unpacked
from tests.archive.reading import ARCHIVE, FOUND, read, refused
from tests.archives import PACKS, Pack, xz

packs = pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())


@packs
def test_file_is_unpacked_from_its_beginning(pack: Pack, tmp_path: Path) -> None:
    """However a file is packed, what it unpacks to is read; a plain one is as it is."""
    data = ARCHIVE + os.urandom(3_000_000)
    path = tmp_path / "packed"
    path.write_bytes(pack(data))
    open_files = len(os.listdir("/proc/self/fd"))
    with open_unpacked(path) as file:
        assert file.read(1000) == data[:1000]
        assert file.read() == data[1000:]
    assert len(os.listdir("/proc/self/fd")) == open_files


@packs
def test_damaged_file_is_told(pack: Pack, tmp_path: Path) -> None:
    """A packed file that was cut fails where it ends."""
    path = tmp_path / "packed"
    path.write_bytes(pack(ARCHIVE)[:-30])
    with open_unpacked(path) as file:
        if pack is PACKS["tar"]:
            assert file.read() == ARCHIVE[:-30]
        else:
            with pytest.raises(BROKEN):
                file.read()


def test_file_that_is_gone(tmp_path: Path) -> None:
    """A file that was garbage-collected is told from one that is damaged."""
    with pytest.raises(FileNotFoundError):
        open_unpacked(tmp_path / "gone")


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=9), max_size=4), st.integers(0, 9))
def test_xz_of_several_streams(parts: list[bytes], padding: int) -> None:
    """An xz file may have several streams, and padding between and after them."""
    packed = b"".join(xz(part) + bytes(4 * padding) for part in [*parts, ARCHIVE * 9])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "packed"
        path.write_bytes(packed)
        with open_unpacked(path) as file:
            assert file.read() == b"".join([*parts, ARCHIVE * 9])


def test_xz_that_wants_much_memory() -> None:
    """An xz file that needs more memory than `xz -9` asks for is refused."""
    filters: list[dict[str, Any]] = [
        {"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**28}
    ]
    assert "damaged" in refused(lzma.compress(ARCHIVE, filters=filters))
    filters[0]["dict_size"] = 2**26
    assert read(lzma.compress(ARCHIVE, filters=filters)) == FOUND
