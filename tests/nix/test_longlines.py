"""Tests for `forgereg.nix.longlines`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.nix import longlines
from forgereg.nix.longlines import LineCutter, shortened, without_mark

PIECES = st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"x", b"\n")))


@given(PIECES)
def test_lines_are_whole(pieces: list[bytes]) -> None:
    """However output comes in pieces, its lines are what they are."""
    cutter = LineCutter()
    lines = [line for piece in pieces for line in cutter.feed(piece)]
    assert [*lines, cutter.rest()] == b"".join(pieces).split(b"\n")


@given(PIECES, st.integers(1, 30))
def test_long_lines_are_cut(pieces: list[bytes], most: int) -> None:
    """What is left out of a line that is too long is counted, to the byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(longlines, "MAX_LINE", most)
        cutter = LineCutter()
        lines = [line for piece in pieces for line in cutter.feed(piece)]
        told = [without_mark(line) for line in [*lines, cutter.rest()]]
    whole = b"".join(pieces).split(b"\n")
    assert told == [(line[:most], max(0, len(line) - most)) for line in whole]


def test_mark() -> None:
    """What is cut twice says once how much is missing in all."""
    assert shortened("hello", 5) == ("hello", "")
    assert shortened("hello", 2, 10) == ("he", "… (13 characters left out)")
