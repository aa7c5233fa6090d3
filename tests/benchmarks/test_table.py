"""Tests for rows, marks and the page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.table import (
    Mark,
    Point,
    Row,
    Run,
    write_notes,
    write_page,
    write_table,
)

FAST = Row("fast", "a pull", "nginx", 1.0, 2.0, mark=Mark(1.0))
SLOW = Row("slow", "a push", "nginx", 3.0, 2.0, mark=Mark(1.1))
OFTEN = Row("often", "requests", "nginx", 600, 100, "/s", mark=Mark(5, is_least=True))
UNKNOWN = Row("unknown", "a coding", "plain", None, 2.0, remark="Not there.")


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_mark(limit: float, ratio: float) -> None:
    """A ratio that is exactly the mark meets it, and no ratio misses both kinds."""
    most, least = Mark(limit), Mark(limit, is_least=True)
    assert most.is_met(limit) and least.is_met(limit)
    assert most.is_met(ratio) or least.is_met(ratio)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [(FAST, "met"), (SLOW, "**missed**"), (OFTEN, "met"), (UNKNOWN, "not measured")],
)
def test_verdict(row: Row, verdict: str) -> None:
    """The page says of each row whether its mark was met."""
    assert row.verdict == verdict


def test_table() -> None:
    """A row shows what was measured on both sides, the ratio, the mark, the verdict."""
    lines = write_table([SLOW, OFTEN, UNKNOWN]).splitlines()[2:]
    assert lines == [
        "| a push | 3.00 s | nginx | 2.00 s | 1.50 × | ≤ 1.10 × | **missed** |",
        "| requests | 600 /s | nginx | 100 /s | 6.00 × | ≥ 5.00 × | met |",
        "| a coding | — | plain | 2.00 s | — | — | not measured |",
    ]


def test_notes() -> None:
    """What was missed is explained, and what nobody explained is admitted."""
    notes = write_notes([FAST, SLOW, UNKNOWN], {"fast": "The wire is next."})
    assert notes.splitlines() == [
        "* a pull (met): The wire is next.",
        "* a push (**missed**): Missed, and nothing is noted about why.",
        "* a coding (not measured): Not there.",
    ]


def test_page() -> None:
    """The page has the table, the pictures, the shapes and the machine."""
    run = Run((FAST,), (Point("8 GB", 8 * 10**9, 4.0),), {"cores": "2"})
    page = write_page(run, {}, {"How fast": "benchmarks/marks.svg"})
    assert "| a pull | 1.00 s |" in page
    assert "![How fast](benchmarks/marks.svg)" in page
    assert "| 8 GB | 8,000,000,000 | 4.00 | 0.50 |" in page
    assert "| cores | 2 |" in page
    assert "--quick`" not in page


def test_quick_page() -> None:
    """Numbers of a quick run are not taken for those of a whole one."""
    assert "--quick`" in write_page(Run((FAST,), (), {}, is_quick=True), {}, {})
