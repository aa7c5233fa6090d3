"""Tests for `forgereg.flow.cutting`: blobs that are read out of their archive."""

from __future__ import annotations

import io

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from forgereg.flow.cutting import Straight
from forgereg.oci.descriptor import Place
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.manifest import sha256
from forgereg.records.records import KnownBlob, Source
from tests.deferreds import begin, result_of
from tests.doubles import Threads

DATA = bytes(range(256)) * 4
BEFORE, AFTER = b"before" * 99, b"after" * 99


class Tape(io.BytesIO):
    """
    What is read of an archive.

    :ivar in_reader: where that is done.
    """

    in_reader: Threads


@define
class Unpacked:
    """
    An archive in memory.

    :ivar opened: each time that it was opened.
    """

    data: bytes = BEFORE + DATA + AFTER
    opened: list[Tape] = field(factory=list)
    failed: list[Exception] = field(factory=list)
    threads: Threads = field(factory=Threads)

    async def open(self) -> Tape:
        """Open it."""
        tape = Tape(self.data)
        tape.in_reader = self.threads
        self.opened.append(tape)
        return tape

    def straight(self) -> Straight:
        """Give the blob in it."""
        source = Source("", "", "", "/nix/store/x")
        place = Place(len(BEFORE))
        known = KnownBlob(sha256(DATA), len(DATA), source, place)
        return Straight(known, self.open, self.failed.append)


async def read(straight: Straight, start: int, stop: int) -> bytes:
    got = b""
    while start + len(got) < stop:
        data = await straight.read(start + len(got), stop - start - len(got))
        if not data:
            break
        got += data
    return got


@given(
    st.lists(
        st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA) + 9)), max_size=5
    )
)
def test_any_stretches(stretches: list[tuple[int, int]]) -> None:
    """Any stretches in any order are those of the blob; it is opened again to go back."""
    archive = Unpacked()
    straight = archive.straight()
    at, most = 0, 1
    for start, stop in stretches:
        assert result_of(read(straight, start, stop)) == DATA[start:stop]
        if start < stop:
            most += start < at
            at = min(stop, len(DATA))
    assert len(archive.opened) <= most
    straight.close()
    assert all(each.closed for each in archive.opened)


@pytest.mark.parametrize(
    "data",
    [BEFORE + DATA[::-1] + AFTER, BEFORE + DATA[:-1], BEFORE, b"", BEFORE[1:] + DATA],
    ids=["other", "short", "none", "empty", "moved"],
)
@pytest.mark.parametrize("start", [0, 5, len(DATA) - 1])
def test_lies(data: bytes, start: int) -> None:
    """What is not the blob is never read to its end, wherever that began."""
    archive = Unpacked(data)
    straight = archive.straight()
    with pytest.raises(ArchiveInvalid):
        result_of(read(straight, start, len(DATA)))
    assert len(archive.failed) == 1
    straight.close()


def test_closing_while_it_reads() -> None:
    """A client that leaves during a read closes the archive, and nobody is blamed."""
    archive = Unpacked()
    straight = archive.straight()
    archive.threads.pause()
    reading = begin(straight.read(0, 9))
    straight.close()
    archive.threads.resume()
    reading.addErrback(lambda _: None)
    assert archive.opened[0].closed
    assert archive.failed == []
