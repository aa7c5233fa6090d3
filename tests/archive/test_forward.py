"""How `forgereg.archive` reads what goes by once: out of a pipe, or without room."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import BinaryIO

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.archive.scan import scan, scan_stream
from forgereg.oci.errors import ArchiveInvalid, ShuttingDown
from forgereg.oci.reference import Digest
from tests.archive.reading import ARCHIVE, FOUND, read, read_stream
from tests.archives import Recipe, docker_save_26, gz, layer, oci_archive, tar, zst

RECIPE = Recipe((layer("a"), layer("b", gz), layer("c", zst)))


class Pipe(io.RawIOBase):
    """A pipe that gives a few bytes at a time, as many as it likes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = io.BytesIO(data)
        self._sizes = itertools.cycle(sizes)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, next(self._sizes)))


@define
class Lost:
    """A stage where there is room for so many files, and the rest is lost."""

    room: int
    kept: dict[Digest, bytes] = field(factory=dict)

    def partial(self) -> LostPartial:
        self.room -= 1
        return LostPartial(self, self.room < 0)


@define
class LostPartial:
    stage: Lost
    is_lost: bool
    written: bytes = b""

    def write(self, data: memoryview | bytes) -> None:
        self.written += data

    def close(self) -> None:
        pass

    def keep(self, digest: Digest) -> None:
        if not self.is_lost:
            self.stage.kept[digest] = self.written


def none_below(name: str) -> BinaryIO:
    raise AssertionError(f"{name} was opened below a file")


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=5),
    st.sampled_from(
        [ARCHIVE, *(tar(w(RECIPE)) for w in (oci_archive, docker_save_26))]
    ),
)
def test_stream_is_read_as_the_file_is(sizes: list[int], archive: bytes) -> None:
    """What a script prints is the same image as the same bytes in a file."""
    assert read_stream(Pipe(archive, sizes)) == read(archive)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [b"", b"error: no space left\n" * 100, ARCHIVE[:5000], bytes(10240)]
)
def test_stream_that_is_no_archive(data: bytes) -> None:
    """A script that prints something else, or dies in the middle, is refused."""
    with pytest.raises(ArchiveInvalid):
        read_stream(io.BytesIO(data))


def test_stream_that_never_ends() -> None:
    """A script that prints for ever is given up at the limit, or when it is time."""

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    endless: io.BufferedReader = Endless()  # type: ignore[assignment]
    with pytest.raises(ArchiveInvalid, match="more than the 4194304 bytes"):
        read_stream(endless, max_bytes=2**22)
    asked = itertools.count()
    with pytest.raises(ShuttingDown):
        scan_stream(endless, Lost(9), 2**40, "linux/amd64", lambda: next(asked) > 9)


@pytest.mark.parametrize("room", range(6))
def test_image_is_found_where_there_is_no_room_for_its_layers(
    room: int, tmp_path: Path
) -> None:
    """An archive is read, and its places are known, though nothing can be written."""
    path = tmp_path / "archive"
    path.write_bytes(gz(ARCHIVE))
    stage = Lost(room)
    found = scan(path, stage, 2**30, "linux/amd64", lambda: False, none_below)
    assert found.images == FOUND.packed
    for digest, place in found.places.items():
        blob = FOUND.blobs[digest.encoded]
        assert ARCHIVE[place.offset :].startswith(blob)
        assert stage.kept.get(digest, blob) == blob
    assert len(stage.kept) == min(room, len(found.places))


def test_nothing_is_written_for_a_plain_archive(tmp_path: Path) -> None:
    """A plain archive is served where it lies, and needs no stage at all."""
    path = tmp_path / "archive"
    path.write_bytes(ARCHIVE)
    stage = Lost(0)
    scan(path, stage, 2**30, "linux/amd64", lambda: False, none_below)
    assert stage.room == 0
