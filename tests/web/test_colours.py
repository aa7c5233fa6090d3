"""Tests for `forgereg.web.colours`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.lines import HARMLESS, visible
from forgereg.web.colours import MOST_SHOWN, pieces


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", [("plain", "")]),
        ("", []),
        (
            "\x1b[1;31merror:\x1b[0m no",
            [("error:", "ink-1 bold"), (" no", "")],
        ),
        ("\x1b[92mb\x1b[m", [("b", "ink-10")]),
        ("\x1b[38;5;196mr\x1b[0m", [("r", "ink-1")]),
        ("\x1b[38;2;1;1;200mt", [("t", "ink-4")]),
        ("\x1b[41;37mx", [("x", "ink-7 sheet-1")]),
        ("\x1b[7mx", [("x", "turned")]),
        ("\x1b[7;31mx", [("x", "sheet-1")]),
        ("\x1b[2;3;4;9mx", [("x", "dim italic underline strike")]),
        ("\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07", [("click", "")]),
        ("\x1b[2J\x1b[Hcleared\x07", [("cleared", "")]),
        ("10 %\r100 %\r", [("100 %", "")]),
        ("\u202eevil\u2066", [("\\u202eevil\\u2066", "")]),
        ("\x1b[31m\u2028x", [("\\u2028x", "ink-1")]),
        ("\x1b[99999999999m\x1b[38;5mx", [("x", "")]),
    ],
)
def test_colours(line: str, shown: list[tuple[str, str]]) -> None:
    """Colours are shown, the nearest of sixteen, and nothing else is obeyed."""
    assert pieces(line) == shown


@given(st.text(st.sampled_from("\x1b[]0;13m78\r\x9b\u202e<a ")))
def test_harmless(line: str) -> None:
    """Whatever a builder writes, text comes of it, and classes that are known."""
    for text, classes in pieces(line):
        assert text.isprintable()
        assert all(c.isalnum() or c in "- " for c in classes)


def test_long_line() -> None:
    """A line is shown as far as anybody reads, however many colours it has, and a mark."""
    (shown, _), mark = pieces("x" * 10**6)
    assert len(shown) == MOST_SHOWN and "the file has the rest" in mark[0]
    assert pieces("short", is_cut=True) == [("short", ""), mark]
    *coloured, last = pieces("\x1b[31mx\x1b[0m" * 2 * MOST_SHOWN)
    assert last == mark
    assert sum(len(text) for text, _ in coloured) == MOST_SHOWN
    assert len(coloured) <= 100  # each of which is an element of the page


def test_visible() -> None:
    """Text of several lines stays so, and marks that turn it around are written out."""
    assert visible("one\n\ttwo\u200f", HARMLESS) == "one\n\ttwo\\u200f"
