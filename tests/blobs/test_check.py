"""Damage is found, wherever it is, and the page cache is left alone."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from forgereg.blobs.check import Check
from forgereg.oci.manifest import sha256

PACKS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "gzip": gzip.compress,
    "zstd": lambda data: zstd.compress(
        data, options={zstd.CompressionParameter.checksum_flag: 1}
    ),
}
codings = st.sampled_from(sorted(PACKS))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("check") / "file"


def check(path: Path, written: bytes, data: bytes, coding: str) -> bool:
    """Say whether a file with these bytes is found to hold the data."""
    path.write_bytes(written)
    with path.open("rb", buffering=0) as file:
        checking = Check(file, sha256(data), coding)
        while checking.is_right is None:
            checking.go_on(7)
        return checking.is_right


@given(st.binary(max_size=300), codings)
def test_what_is_right(path: Path, data: bytes, coding: str) -> None:
    """A file that was not damaged is right, however its blob is encoded."""
    assert check(path, PACKS[coding](data), data, coding)


@given(st.binary(min_size=1, max_size=300), codings, st.data())
def test_cut_short(path: Path, data: bytes, coding: str, more: st.DataObject) -> None:
    """A file that has lost its end is not right."""
    packed = PACKS[coding](data)
    length = more.draw(st.integers(0, len(packed) - 1))
    assert not check(path, packed[:length], data, coding)


@given(st.binary(min_size=1, max_size=300), codings, st.data())
def test_flipped_bit(path: Path, data: bytes, coding: str, more: st.DataObject) -> None:
    """A file in which one bit is another one decodes to its blob, or is not right."""
    packed = bytearray(PACKS[coding](data))
    place = more.draw(st.integers(0, len(packed) * 8 - 1))
    packed[place // 8] ^= 1 << place % 8
    is_found_right = check(path, bytes(packed), data, coding)
    assert not (is_found_right and coding == "")
    if is_found_right and coding == "gzip":
        assert gzip.decompress(packed) == data


def test_step_by_step(tmp_path: Path) -> None:
    """A large file is checked in steps, also where it decodes to far more."""
    data = bytes(5 * 2**20)
    (tmp_path / "file").write_bytes(gzip.compress(data))
    with (tmp_path / "file").open("rb", buffering=0) as file:
        checking = Check(file, sha256(data), "gzip")
        for _ in range(5):
            assert checking.go_on(2**20) == 2**20
            assert checking.is_right is None
        assert checking.go_on(2**20) == 0
        assert checking.is_right
        assert checking.read_bytes == len(gzip.compress(data))
