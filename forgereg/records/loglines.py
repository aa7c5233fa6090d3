"""
Read a build's log by lines, from wherever in it. Blocking: for threads.

What is read at a time is bounded, and so is what is shown of a line, however large the
log is and however long its lines are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import define, field, frozen

from forgereg.records.buildlogs import BuildLogs

#: How many lines are read at a time, and how many bytes, lines that are longer aside.
MOST_LINES, MOST_BYTES = 2000, 2**18
#: How many lines are given of those that came faster than anybody reads.
_MOST_NEWS = 500
#: How much of a line is given, in bytes.
_MOST_OF_LINE = 2**14
#: How many lines are given before one that is asked for.
_LINES_BEFORE = 50
#: How much is searched at a time, how much of that at once, and how much is found.
_STEP, _BLOCK, _MOST_FOUND = 2**24, 2**18, 200
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


@frozen
class LogLine:
    """
    A line.

    :ivar offset: where it begins, in bytes.
    :ivar text: without its end.
    :ivar is_cut: whether there is more of it.
    """

    offset: int
    text: str
    is_cut: bool = False


@frozen
class Stretch:
    """
    Some lines that follow each other.

    :ivar start: where they begin, and ``stop`` where the next one does, in bytes.
    :ivar size: of the whole log, in bytes, as far as it has lines that have ended.
    """

    lines: tuple[LogLine, ...]
    start: int
    stop: int
    size: int


@frozen
class LogLines:
    """
    The lines of a build's log, which may be growing.

    :ivar is_over: whether what has no line end is a line, too.
    """

    _logs: BuildLogs
    _build_id: str
    _is_over: bool = True

    def last(self, most: int = MOST_LINES) -> Stretch:
        """Give the last lines."""
        return self.before(self._size(), most)

    def before(self, offset: int, most: int = MOST_LINES) -> Stretch:
        """Give the last lines that begin before an offset."""
        size = self._size()
        stop = self._begin_of_line(min(offset, size)) if offset < size else size
        start = max(0, stop - MOST_BYTES)
        if start:
            # Where a line is longer than that, it is the only one.
            start = min(self._after_line_end(start, stop - 1), stop - 1)
            start = self._begin_of_line(start)
        lines = self._cut(start, stop)[-most:]
        return Stretch(tuple(lines), lines[0].offset if lines else stop, stop, size)

    def since(self, offset: int) -> Stretch:
        """Give the first lines from the one on that an offset is in."""
        size = self._size()
        start = self._begin_of_line(min(offset, size))
        data = self._read(start, min(MOST_BYTES, size - start))
        stop = start + data.rfind(b"\n") + 1
        if stop == start:
            stop = self._after_line_end(start + len(data), size)
        lines = self._cut(start, stop)
        if len(lines) > MOST_LINES:
            stop = lines[MOST_LINES].offset
        return Stretch(tuple(lines[:MOST_LINES]), start, stop, size)

    def around(self, offset: int) -> Stretch:
        """Give the line that an offset is in, some before it and some after it."""
        before = self.before(self._begin_of_line(offset)).lines[-_LINES_BEFORE:]
        return self.since(before[0].offset if before else offset)

    def news(self, offset: int) -> Stretch:
        """Give the lines that follow an offset: if they are many, the last of them."""
        stretch = self.since(offset)
        return stretch if stretch.stop == stretch.size else self.last(_MOST_NEWS)

    def _read(self, offset: int, most: int) -> bytes:
        return self._logs.read(self._build_id, offset, most)

    def _size(self) -> int:
        """Say where the last line ends."""
        size = self._logs.size(self._build_id)
        return size if self._is_over else self._begin_of_line(size)

    def _begin_of_line(self, offset: int) -> int:
        while offset > 0:
            begin = max(0, offset - 2**16)
            found = self._read(begin, offset - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            offset = begin
        return 0

    def _after_line_end(self, offset: int, stop: int) -> int:
        while offset < stop:
            data = self._read(offset, min(2**16, stop - offset))
            found = data.find(b"\n")
            if found >= 0:
                return offset + found + 1
            offset += len(data) or stop
        return stop

    def _cut(self, start: int, stop: int) -> list[LogLine]:
        # Only a line that is alone can be longer.
        data = self._read(start, min(MOST_BYTES, stop - start))
        lines = data.removesuffix(b"\n").split(b"\n") if data else []
        return list(_lines(start, lines))


def _lines(offset: int, lines: list[bytes]) -> Iterator[LogLine]:
    for raw in lines:
        is_cut = len(raw) > _MOST_OF_LINE
        yield LogLine(offset, raw[:_MOST_OF_LINE].decode("utf-8", "replace"), is_cut)
        offset += len(raw) + 1


@define
class Search:
    """
    Look for some text in a whole log, whatever the case of its ASCII letters.

    :ivar found: the lines that have it, by number, counted from 1.
    :ivar is_cut: whether there may be more of them.
    """

    _logs: BuildLogs
    _build_id: str
    _text: str
    found: dict[int, LogLine] = field(init=False, factory=dict)
    is_cut: bool = field(init=False, default=False)
    _offset: int = field(init=False, default=0)
    _number: int = field(init=False, default=1)

    def step(self) -> bool:
        """Look through some megabytes; give whether there is more to be looked at."""
        stop = self._offset + _STEP
        while self._offset < stop:
            block = self._logs.read(self._build_id, self._offset, _BLOCK)
            block = block[: block.rfind(b"\n") + 1] or block
            if not block:
                return False
            self._look(block)
            if self.is_cut:
                return False
        return True

    def _look(self, block: bytes) -> None:
        needle, hay = self._text.encode("utf-8", "replace").lower(), block.lower()
        if b"\x1b" in hay:
            hay = _COLOUR.sub(b"", hay)
        at = hay.find(needle)
        # Hundreds of thousands of lines may lie around the few that have it.
        lines = block.split(b"\n") if at >= 0 else []
        index, seen, offset = 0, 0, self._offset
        while at >= 0:
            if len(self.found) == _MOST_FOUND:
                self.is_cut = True
                return
            passed = hay.count(b"\n", seen, at)
            offset += passed + sum(map(len, lines[index : index + passed]))
            index, seen = index + passed, at
            found = next(_lines(offset, [lines[index]]))
            self.found[self._number + index] = found
            end = hay.find(b"\n", at)
            at = hay.find(needle, end) if end >= 0 else -1
        self._number += block.count(b"\n")
        self._offset += len(block)
