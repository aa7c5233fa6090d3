"""Tests for `forgereg.records.loglines`."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgereg.records.buildlogs import BuildLogs
from forgereg.records.loglines import (
    MOST_BYTES,
    MOST_LINES,
    LogLines,
    Search,
    Stretch,
)

TEXTS = st.lists(st.text("ab\u20ac", max_size=5), max_size=50)


def log(folder: Path, data: bytes, is_over: bool = True) -> LogLines:
    """Keep a log."""
    folder.mkdir(exist_ok=True)
    (folder / "b1.log").write_bytes(data)
    return LogLines(BuildLogs(folder), "b1", is_over)


def texts(stretch: Stretch) -> list[str]:
    return [line.text for line in stretch.lines]


def numbered(count: int) -> bytes:
    return b"".join(b"line %d\n" % n for n in range(count))


@given(TEXTS, st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stretches_meet(tmp_path: Path, written: list[str], offset: int) -> None:
    """Wherever one cuts a log, what is before and what follows is all of it."""
    data = "".join(f"{text}\n" for text in written).encode()
    lines = log(tmp_path, data)
    after = lines.since(offset)
    before = lines.before(after.start)
    assert texts(before) + texts(after) == written
    assert (before.start, before.stop, after.stop) == (0, after.start, len(data))
    for line in (*before.lines, *after.lines):
        assert data[line.offset :].startswith(line.text.encode())


def test_large_log(tmp_path: Path) -> None:
    """Of a large log so many lines are read that a page can have them."""
    lines = log(tmp_path, numbered(10_000))
    last = lines.last()
    assert len(last.lines) == MOST_LINES and texts(last)[-1] == "line 9999"
    earlier = lines.before(last.start)
    assert texts(earlier)[-1] == "line 7999"
    assert lines.since(earlier.start).stop == last.start


@pytest.mark.parametrize("end", [b"\n", b""])
def test_long_lines(tmp_path: Path, end: bytes) -> None:
    """A line of megabytes is one line, of which the beginning is given."""
    long = b"x" * (3 * MOST_BYTES)
    lines = log(tmp_path, b"first\n" + long + b"\n" + b"y" * MOST_BYTES + end)
    stretch = lines.since(6)
    ((line,), stop) = (stretch.lines, stretch.stop)
    assert line.is_cut and 0 < len(line.text) < MOST_BYTES
    assert stop == 6 + len(long) + 1
    assert lines.before(stop).start == 6
    assert lines.since(stop).stop == stretch.size
    assert [line.offset for line in lines.around(stop - 5).lines] == [0, 6][:1]
    assert texts(lines.before(6)) == ["first"]


def test_line_that_is_being_written(tmp_path: Path) -> None:
    """While a build runs a line is shown once it has ended."""
    assert texts(log(tmp_path, b"one\ntw", is_over=False).last()) == ["one"]
    assert texts(log(tmp_path, b"one\ntw", is_over=False).since(4)) == []
    assert texts(log(tmp_path, b"one\ntw").last()) == ["one", "tw"]


def test_news(tmp_path: Path) -> None:
    """Who is far behind is given the last lines in place of all that follow."""
    lines = log(tmp_path, numbered(MOST_LINES))
    assert texts(lines.news(7))[0] == "line 1"
    lines = log(tmp_path, numbered(3 * MOST_LINES))
    news = lines.news(7)
    assert news.start > 7 and texts(news)[-1] == f"line {3 * MOST_LINES - 1}"


def test_no_log(tmp_path: Path) -> None:
    """A build of which nothing was said has no lines."""
    lines = LogLines(BuildLogs(tmp_path), "none")
    assert lines.last() == lines.since(0) == lines.around(7) == Stretch((), 0, 0, 0)


def found(folder: Path, data: bytes, text: str) -> Search:
    log(folder, data)
    search = Search(BuildLogs(folder), "b1", text)
    while search.step():
        pass
    return search


def test_search(tmp_path: Path) -> None:
    """A line is found by a part of it, whatever the case and the colours."""
    data = numbered(50_000) + b"An \x1b[31mErr\x1b[0mor\n" + numbered(3)
    search = found(tmp_path, data, "an error")
    ((number, line),) = search.found.items()
    assert (number, search.is_cut) == (50_001, False)
    assert data[line.offset :].startswith(b"An \x1b[31mErr")


def test_search_of_much(tmp_path: Path) -> None:
    """Where too many lines have it, the first are given."""
    search = found(tmp_path, numbered(1000), "line")
    assert list(search.found) == list(range(1, 201)) and search.is_cut
    assert found(tmp_path, b"x" * 2**21, "y").found == {}


@given(TEXTS, st.text("ab", min_size=1, max_size=2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_search_finds_each(tmp_path: Path, written: list[str], text: str) -> None:
    """Each line that has it is found once, with its number and its place."""
    data = "".join(f"{line}\n" for line in written).encode()
    search = found(tmp_path, data, text)
    expected = {n: x for n, x in enumerate(written, 1) if text in x}
    assert {n: line.text for n, line in search.found.items()} == expected
    for line in search.found.values():
        assert data[line.offset :].startswith(line.text.encode())


def test_search_among_many_lines(tmp_path: Path) -> None:
    """Lines without it cost next to nothing, however many lie around one that has it."""
    tracemalloc.start()
    search = found(tmp_path, b"\n" * 2**17 + b"x\n" + b"\n" * 2**17, "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(search.found) == [2**17 + 1] and peak < 2**23
