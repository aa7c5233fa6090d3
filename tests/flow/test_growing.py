"""Tests for `forgereg.flow.growing`: who follows what is being written."""

from __future__ import annotations

import os
import tempfile
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from forgereg.flow.growing import Followed, Growing
from forgereg.flow.source import FileSource
from forgereg.oci.errors import ArchiveInvalid, DiskFull, RegistryError
from tests.deferreds import begin, no_result, result_of
from tests.doubles import at_once

DATA = bytes(range(200))


def growing(size: int | None = len(DATA)) -> tuple[Growing, BinaryIO]:
    """Begin something that will be written; give its file, which has all of it."""
    file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))
    file.write(DATA)
    made = Growing(size)
    made.begin(FileSource(file, len(DATA), at_once))
    return made, file


async def receive(followed: Followed, step: int) -> bytes:
    """Receive all there is, and follow no more."""
    got = b""
    try:
        while data := (
            followed.peek(len(got), step) or await followed.read(len(got), step)
        ):
            got += data
        return got
    finally:
        followed.close()


@given(st.lists(st.integers(0, len(DATA))), st.lists(st.integers(1, 300), min_size=1))
def test_everyone_gets_everything(written: list[int], steps: list[int]) -> None:
    """Whoever follows, however much at a time, gets all bytes, each once."""
    grows, file = growing()
    followers: list[Deferred[bytes]] = []
    for size in sorted(written):
        step = steps[len(followers) % len(steps)]
        followers.append(begin(receive(Followed(grows), step)))
        grows.advance(size)
    followers.append(begin(receive(Followed(grows), steps[0])))
    grows.advance(len(DATA))
    assert not file.closed
    grows.finish()
    assert all(result_of(each) == DATA for each in followers)
    assert file.closed


@given(st.integers(0, len(DATA)), st.integers(1, 300))
def test_no_seam(lost_at: int, step: int) -> None:
    """Where the file is lost, the rest comes from elsewhere, and fits."""
    grows, file = growing()
    others = []

    async def instead() -> FileSource:
        other = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))
        other.write(DATA)
        others.append(other)
        return FileSource(other, len(DATA), at_once)

    follower = begin(receive(Followed(grows, instead), step))
    grows.advance(lost_at)
    grows.finish(DiskFull("no room"))
    assert result_of(follower) == DATA or lost_at == len(DATA)
    assert file.closed and all(other.closed for other in others)


@pytest.mark.parametrize("error", [ArchiveInvalid("it lied"), DiskFull("no room")])
def test_error(error: RegistryError) -> None:
    """Who follows what fails is told why, after what is right."""
    grows, file = growing()
    follower = begin(receive(Followed(grows), 7))
    grows.advance(70)
    no_result(follower)
    grows.finish(error)
    with pytest.raises(type(error)):
        result_of(follower)
    assert file.closed


def test_leaving() -> None:
    """Who leaves is waited for no more, and the others go on."""
    grows, file = growing()
    leaver, stayer = (begin(receive(Followed(grows), 9)) for _ in range(2))
    begun = begin(Followed(grows).begun())
    for each in (leaver, begun):
        no_result(each)
        each.cancel()
        each.addErrback(lambda failure: failure.trap(CancelledError) and None)
    grows.advance(len(DATA))
    grows.finish()
    assert result_of(stayer) == DATA
    assert file.closed


def test_one_who_makes_another_leave() -> None:
    """Who is told of more may make another leave who waits as well."""
    grows, _ = growing()
    first, second = (begin(grows.until(0)) for _ in range(2))
    first.addCallback(lambda _: second.cancel())
    second.addErrback(lambda failure: failure.trap(CancelledError) and None)
    grows.advance(1)
    assert first.called and second.called
    grows.finish()


def test_size_that_nobody_knows() -> None:
    """How large an encoded form is, is known when it is whole."""
    grows, _ = growing(None)
    followed = Followed(grows)
    grows.advance(9)
    assert (followed.size, followed.extent) == (None, None)
    grows.advance(len(DATA))
    grows.finish()
    assert followed.size == len(DATA)
    assert followed.extent is not None
    assert os.pread(followed.extent[0], 999, followed.extent[1]) == DATA
    followed.close()


def test_nothing_begun() -> None:
    """Who follows what never began is told so at once."""
    grows = Growing(9)
    begun = begin(Followed(grows).begun())
    no_result(begun)
    grows.finish(DiskFull("no room"))
    grows.finish()
    assert isinstance(result_of(begun), DiskFull)
