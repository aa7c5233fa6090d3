"""
Cut a child's output into lines, the long ones short, and say how much is left out. Pure.

A builder may write as much as it likes without ending its line: what is kept of one is
bounded, and nothing of it vanishes without a mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import define, field

#: How much of a line is kept, in bytes; a mark may follow.
MAX_LINE = 2**20
_MARK = re.compile(r"… \((\d+) (?:bytes|characters) left out\)\Z".encode())
_LONGEST_MARK = 64


@define(eq=False)
class LineCutter:
    """Takes pieces as they come, and gives lines, each bounded."""

    _line: bytearray = field(init=False, factory=bytearray)
    _left_out: int = field(init=False, default=0)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take a piece; give the lines that it ends, without their ends."""
        first, *lines = data.split(b"\n")
        self._add(first)
        if not lines:
            return
        yield self.rest()
        *whole, last = lines
        # Almost all of them.
        for line in whole:
            if len(line) <= MAX_LINE:
                yield line
            else:
                self._add(line)
                yield self.rest()
        self._add(last)

    def rest(self) -> bytes:
        """Give what has no line end yet, and begin anew."""
        line = bytes(self._line)
        if self._left_out:
            line += f"… ({self._left_out} bytes left out)".encode()
        self._line.clear()
        self._left_out = 0
        return line

    def _add(self, data: bytes) -> None:
        room = MAX_LINE - len(self._line)
        self._line += data[:room]
        self._left_out += max(0, len(data) - room)


def without_mark(raw: bytes) -> tuple[bytes, int]:
    """Give what was kept of a line, and how many bytes of it were left out."""
    if len(raw) <= MAX_LINE:
        return raw, 0
    mark = _MARK.search(raw, len(raw) - _LONGEST_MARK)
    return (raw[: mark.start()], int(mark[1])) if mark else (raw, 0)


def shortened(text: str, most: int, left_out: int = 0) -> tuple[str, str]:
    """
    Keep so many characters of a line.

    :param left_out: how many were left out before.
    :returns: what is kept, and the mark that follows it; empty for none.
    """
    left_out += max(0, len(text) - most)
    return text[:most], f"… ({left_out} characters left out)" if left_out else ""
