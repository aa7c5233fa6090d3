"""
What was measured, as rows, and as a page. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen


@frozen
class Mark:
    """
    What a ratio is to be.

    :ivar limit: the largest ratio that meets it, or the smallest.
    """

    limit: float
    is_least: bool = False

    def is_met(self, ratio: float) -> bool:
        """Say whether a ratio is as good as this."""
        return ratio >= self.limit if self.is_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {_number(self.limit)} ×"


@frozen
class Row:
    """
    One thing that was measured.

    :ivar key: by which notes name it.
    :ivar peer: what it is compared with.
    :ivar ours: in ``unit``; None where it could not be had.
    :ivar theirs: the peer's, in the same.
    :ivar mark: None where there is none, only the number.
    :ivar remark: what else the run has to say about it.
    """

    key: str
    work: str
    peer: str
    ours: float | None
    theirs: float | None
    unit: str = "s"
    mark: Mark | None = None
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return self.ours / self.theirs if self.ours and self.theirs else None

    @property
    def verdict(self) -> str:
        """Say whether the mark was met."""
        if self.ratio is None:
            return "not measured"
        if self.mark is None:
            return ""
        return "met" if self.mark.is_met(self.ratio) else "**missed**"


@frozen
class Point:
    """
    How long an archive took to be read.

    :ivar size: in bytes, unpacked.
    """

    archive: str
    size: int
    seconds: float


def _number(value: float) -> str:
    """Write three digits, or more where they are before the point."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def _amount(value: float | None, unit: str) -> str:
    return "—" if value is None else f"{_number(value)} {unit}"


def _lines(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    rule = tuple("---" for _ in header)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def write_table(rows: Iterable[Row]) -> str:
    """Write rows as a table of Markdown."""
    return _lines(
        ("work", "ours", "peer", "", "ratio", "mark", ""),
        (
            (
                row.work,
                _amount(row.ours, row.unit),
                row.peer,
                _amount(row.theirs, row.unit),
                "—" if row.ratio is None else f"{_number(row.ratio)} ×",
                "—" if row.mark is None else str(row.mark),
                row.verdict,
            )
            for row in rows
        ),
    )


def write_points(points: Iterable[Point]) -> str:
    """Write how long archives took, as a table of Markdown."""
    return _lines(
        ("archive", "bytes, unpacked", "seconds", "seconds for a GB"),
        (
            (
                point.archive,
                f"{point.size:,}",
                _number(point.seconds),
                _number(point.seconds / point.size * 1e9),
            )
            for point in points
        ),
    )


def write_notes(rows: Iterable[Row], notes: Mapping[str, str]) -> str:
    """
    Write what is to be said about rows, as a list of Markdown.

    :param notes: by the keys of rows.
    """
    lines = []
    for row in rows:
        note = notes.get(row.key, "")
        if not note and row.verdict == "**missed**":
            note = "Missed, and nothing is noted about why."
        said = " ".join(text for text in (row.remark, note) if text)
        if said:
            verdict = f" ({row.verdict})" if row.verdict else ""
            lines.append(f"* {row.work}{verdict}: {said}")
    return "\n".join(lines)


@frozen
class Run:
    """
    All of one run.

    :ivar machine: what it ran on: what, and which.
    :ivar is_quick: whether all was made smaller than the marks say.
    """

    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    machine: Mapping[str, str]
    is_quick: bool = False


def write_page(run: Run, notes: Mapping[str, str], pictures: Mapping[str, str]) -> str:
    """
    Write the page.

    :param pictures: paths relative to it, by what they show.
    """
    smaller = (
        "**Made with `--quick`, on smaller images than the marks are for.**\n\n"
        if run.is_quick
        else ""
    )
    parts = [
        "# Benchmarks",
        f"""{smaller}Written by `make bench`, which measures the registry and its peers
side by side on one machine, in turns, with all that is read in the page cache; each
number is the median of its repetitions. Only the ratios carry over to other machines.
`python -m benchmarks --help` says how to run a part of it.""",
        write_table(run.rows),
        *(f"![{title}]({path})" for title, path in pictures.items()),
    ]
    if run.points:
        parts += [
            "## Archives of other shapes",
            "The first manifest of a plain archive: time grows with bytes only.",
            write_points(run.points),
        ]
    if said := write_notes(run.rows, notes):
        parts += ["## Notes", said]
    parts += ["## Machine", _lines(("", ""), run.machine.items())]
    return "\n\n".join(parts) + "\n"
