"""What `forgereg.archive.readahead` gives of a file, and what it leaves behind."""

from __future__ import annotations

import io
import os
import threading
import time
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.archive.readahead import CHUNK, ReadAhead


class Source(io.RawIOBase):
    """A file that gives its pieces one by one, or without end, and may fail."""

    def __init__(self, *pieces: bytes | Exception, endless: bool = False) -> None:
        self.pieces = list(pieces)
        self.endless = endless
        self.reads = 0

    def read(self, size: int = -1) -> bytes:
        assert size == CHUNK
        self.reads += 1
        if self.endless:
            return b"x"
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece


def opened(
    *pieces: bytes | Exception, endless: bool = False
) -> tuple[Source, BinaryIO]:
    source = Source(*pieces, endless=endless)
    return source, cast(BinaryIO, source)


def whole(ahead: ReadAhead, limit: int) -> bytes:
    parts = []
    while piece := ahead.some(limit):
        assert len(piece) <= limit
        parts.append(bytes(piece))
    return b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 6 * CHUNK + 7])
@pytest.mark.parametrize("limit", [512 * 3, CHUNK, 10 * CHUNK])
def test_bytes_come_as_they_are_in_the_file(size: int, limit: int) -> None:
    """A file of any size comes whole and in order."""
    data = os.urandom(size)
    with ReadAhead(io.BytesIO(data)) as ahead:
        assert whole(ahead, limit) == data


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.integers(1, 10))
def test_pieces_do_not_depend_on_how_the_file_is_read(
    pieces: list[bytes], limit: int
) -> None:
    """A file that gives few bytes at a time comes whole and in order, too."""
    with ReadAhead(opened(*pieces)[1]) as ahead:
        assert whole(ahead, limit) == b"".join(pieces)


def test_end_of_the_file_stays_its_end() -> None:
    """Asking again after the end gives nothing again."""
    with ReadAhead(io.BytesIO(b"hello")) as ahead:
        assert whole(ahead, 10) == b"hello"
        assert [bytes(ahead.some(1)) for _ in range(10)] == [b""] * 10


def test_failure_reaches_the_reader_after_what_was_read_before() -> None:
    """A damaged archive is read up to the damage, and then the damage is told."""
    with ReadAhead(opened(b"hello", EOFError("cut"))[1]) as ahead:
        assert bytes(ahead.some(100)) == b"hello"
        with pytest.raises(EOFError, match="cut"):
            ahead.some(1)


def test_only_a_few_chunks_are_read_ahead() -> None:
    """A slow reader does not fill the memory."""
    source, file = opened(endless=True)
    with ReadAhead(file) as ahead:
        ahead.some(1)
        for _ in range(20):
            time.sleep(0.001)
        assert source.reads <= 6


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_leaving_ends_the_thread(taken: int) -> None:
    """Giving up in the middle leaves no thread behind, and the file open."""
    before = threading.active_count()
    source, file = opened(endless=True)
    with ReadAhead(file) as ahead:
        for _ in range(taken):
            ahead.some(1)
    assert threading.active_count() == before
    assert not source.closed


def test_leaving_with_an_error_ends_the_thread() -> None:
    """An error of the reader's own passes, and leaves no thread behind."""
    before = threading.active_count()
    with pytest.raises(KeyError):
        with ReadAhead(opened(endless=True)[1]) as ahead:
            ahead.some(1)
            raise KeyError
    assert threading.active_count() == before


def test_leaving_ends_the_thread_of_a_file_that_failed() -> None:
    """A failure that nobody has read leaves no thread behind."""
    before = threading.active_count()
    with ReadAhead(opened(b"a", b"b", b"c", b"d", OSError("gone"))[1]):
        pass
    assert threading.active_count() == before


def test_whoever_asks_again_after_a_failure_is_told_again() -> None:
    """A file that cannot be read fails each time, and nobody waits for ever."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("broken")

    with ReadAhead(Broken()) as ahead:
        for _ in range(2):
            with pytest.raises(OSError, match="broken"):
                ahead.some(1)
