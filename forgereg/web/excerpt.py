"""
The part of a build's log that somebody asks for, as a page shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from attrs import frozen
from twisted.web.server import Request

from forgereg.records.loglines import LogLine, LogLines, Stretch
from forgereg.web.answer import header
from forgereg.web.arguments import digits, word
from forgereg.web.colours import Pieces, pieces


@frozen
class Excerpt:
    """
    Lines as a page has them.

    :ivar lines: each with its number, where that is known, and its pieces.
    :ivar left_out: from where something is missing before them, in bytes.
    """

    lines: Sequence[tuple[LogLine, int | None, Pieces]]
    start: int = 0
    stop: int = 0
    size: int = 0
    left_out: int | None = None


def excerpt(stretch: Stretch, since: int | None = None) -> Excerpt:
    """
    Cut lines into pieces.

    :param since: where what was shown before them ends, in bytes.
    """
    is_whole = since is None or stretch.start <= since
    return Excerpt(
        [(line, None, pieces(line.text, line.is_cut)) for line in stretch.lines],
        stretch.start,
        stretch.stop,
        stretch.size,
        None if is_whole else since,
    )


def numbered(found: dict[int, LogLine]) -> Sequence[tuple[LogLine, int | None, Pieces]]:
    """Cut lines that were found into pieces, each with its number."""
    return [
        (line, number, pieces(line.text, line.is_cut)) for number, line in found.items()
    ]


def chosen(request: Request, lines: LogLines) -> Callable[[], Stretch]:
    """Say which lines are asked for; the last ones where that makes no sense."""
    for name, read in (
        ("before", lines.before),
        ("from", lines.since),
        ("at", lines.around),
    ):
        offset = digits(word(request, name))
        if offset is not None:
            return partial(read, offset)
    return lines.last


def resumed_at(request: Request) -> int:
    """Say from where on a log is wanted: where it broke off, if it did."""
    said = digits(header(request, "last-event-id") or "")
    if said is not None:
        return said
    return digits(word(request, "from")) or 0
