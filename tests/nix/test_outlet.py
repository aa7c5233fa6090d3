"""Tests for `forgereg.nix.outlet`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.nix import outlet
from forgereg.nix.outlet import Outlet


@given(st.lists(st.binary(min_size=1)), st.integers(1, 100))
def test_bytes_arrive(pieces: list[bytes], size: int) -> None:
    """However a child writes and whatever is asked for, its bytes arrive in order."""
    with Outlet() as out:
        with out.inlet() as writing:
            for piece in pieces:
                os.write(writing, piece)
        read = []
        while chunk := out.read(size):
            read.append(chunk)
        assert b"".join(read) == b"".join(pieces) and out.at_end


def test_held_open() -> None:
    """What a dead child wrote has an end, though somebody holds its pipe open."""
    with Outlet() as out, ExitStack() as held:
        held.callback(os.close, written(out, b"all"))
        assert out.read(3) == b"all" and not out.at_end
        out.finish()
        assert out.read() == b"" and out.at_end


def test_finished_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for more is told that there will be none."""
    monkeypatch.setattr(outlet, "_NOTICE_MILLISECONDS", 1)
    with Outlet() as out, ExitStack() as held, ThreadPoolExecutor() as pool:
        held.callback(os.close, written(out, b"all"))
        reading = pool.submit(out.read)
        out.finish()
        assert reading.result(30) == b"all" and out.at_end


def test_abandoned_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads what was abandoned reads no more, and nothing of another file."""
    monkeypatch.setattr(outlet, "_NOTICE_MILLISECONDS", 1)
    with ExitStack() as held, ThreadPoolExecutor() as pool:
        out = Outlet()
        held.callback(os.close, written(out, b"all"))
        reading = pool.submit(out.read)
        out.abandon()
        assert isinstance(reading.exception(30), ValueError | None)
        assert out.closed and not out.at_end


def test_abandoned_before_it_is_read() -> None:
    """What nobody reads is closed at once, and the child is told so when it writes."""
    out = Outlet()
    writing = written(out, b"all")
    out.abandon()
    out.abandon()
    assert out.closed
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"more")
    os.close(writing)


def test_never_begun() -> None:
    """A child that could not be started has written nothing."""
    with Outlet() as out:
        assert out.read() == b"" and out.at_end


def written(out: Outlet, data: bytes) -> int:
    """Write, and give a descriptor that somebody else holds open."""
    with out.inlet() as writing:
        os.write(writing, data)
        return os.dup(writing)
