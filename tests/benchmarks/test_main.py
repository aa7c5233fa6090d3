"""Tests for the command line of the benchmark."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from benchmarks.__main__ import GROUPS, SHAPES, main, read_notes, write
from benchmarks.table import Mark, Row, Run

RUN = Run((Row("blob", "a blob", "nginx", 1.0, 2.0, mark=Mark(1.0)),), (), {})


def test_groups() -> None:
    """Whoever asks for what is not measured is told what is."""
    answer = CliRunner().invoke(main, ["--only", "bolbs"])
    assert answer.exit_code == 2
    assert all(name in answer.output for name in [*GROUPS, SHAPES])


def test_page_and_pictures(tmp_path: Path) -> None:
    """The page lies beside a folder with the pictures that it shows."""
    page = tmp_path / "docs" / "benchmarks.md"
    write(RUN, page)
    assert "](benchmarks/marks.svg)" in page.read_text()
    assert (tmp_path / "docs" / "benchmarks" / "marks.svg").exists()


def test_notes_can_be_read() -> None:
    """The notes that are kept by hand are sentences."""
    assert all(note.endswith((".", ")")) for note in read_notes().values())
