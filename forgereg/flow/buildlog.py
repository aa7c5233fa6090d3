"""
One build's log while it is written.

Lines come as fast as nix says them; what goes to disk is the beginning, up to a limit,
and the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred

from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.longlines import shortened
from forgereg.oci.errors import DiskFull

_log = logger(__name__)

#: How many of the last lines are kept in memory, and how much of each, in characters.
LAST_LINES, _CHARACTERS = 100, 2000
#: How much may wait for the disk, in bytes.
_MOST_WAITING = 2**20


class Append(Protocol):
    """Add to a log, blocking: `forgereg.records.buildlogs.BuildLogs.append`."""

    def __call__(self, build_id: str, data: bytes) -> None: ...


@define(eq=False)
class BuildLog:
    """
    Take lines without waiting, and have a thread append them.

    :ivar is_full: whether the rest is left out, but for the last lines.
    """

    _build_id: str
    _append: Append
    _in_thread: InThread
    _max_bytes: int
    is_full: bool = field(init=False, default=False)
    _taken: int = field(init=False, default=0)
    _waiting: bytearray = field(init=False, factory=bytearray)
    #: Lines since the last one that was taken.
    _missing: int = field(init=False, default=0)
    _last: deque[str | Callable[[], str]] = field(
        init=False, factory=lambda: deque(maxlen=LAST_LINES)
    )
    _writing: bool = field(init=False, default=False)
    _broken: bool = field(init=False, default=False)
    _closed: bool = field(init=False, default=False)
    _closing: list[Deferred[None]] = field(init=False, factory=list)

    def write(self, line: str) -> None:
        """Take a line, or several with line ends between them."""
        if self._closed:
            return
        for each in line.removesuffix("\n").split("\n"):
            self._last.append(_short(each))
            self._take(_encoded(each))
        self._write()

    def skip(self, read: Callable[[], str]) -> None:
        """
        Take a line that need not be read unless it is one of the last.

        :param read: gives it.
        """
        if not self.is_full:
            self.write(read())
        elif not self._closed:
            self._last.append(read)
            self._missing += 1

    def tail(self, n: int) -> list[str]:
        """Give the last lines, at most so many."""
        lines = list(self._last)[-n:] if n > 0 else []
        return [line if isinstance(line, str) else _short(line()) for line in lines]

    def close(self) -> Deferred[None]:
        """
        End the log with its last lines; what is written later is dropped.

        :returns: fires when all is on disk, or cannot be; cancelling changes nothing.
        """
        if not self._closed:
            self._closed = True
            last = self.tail(min(self._missing, LAST_LINES))
            self._missing -= len(last)
            self._tell_missing()
            self._waiting += b"".join(map(_encoded, last))
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        self._write()
        return closed

    def _take(self, data: bytes) -> None:
        if self._taken + len(data) > self._max_bytes:
            self.is_full = True
        # What comes after a gap waits until the gap can be told of.
        if self.is_full or self._missing or self._broken:
            self._missing += 1
        elif self._waiting and len(self._waiting) + len(data) > _MOST_WAITING:
            self._missing += 1
        else:
            self._taken += len(data)
            self._waiting += data

    def _write(self) -> None:
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        try:
            while self._waiting and not self._broken:
                if not self.is_full:
                    self._tell_missing()
                data = bytes(self._waiting)
                self._waiting.clear()
                await self._in_thread(self._append, self._build_id, data)
        except (DiskFull, OSError) as e:
            self._broken = True
            self._waiting.clear()
            _log.warn(
                "the log of build {build} ends here: {reason}",
                build=self._build_id,
                reason=str(e),
            )
        finally:
            self._writing = False
            closing, self._closing = self._closing, []
            for closed in closing:
                closed.callback(None)

    def _tell_missing(self) -> None:
        if not self._missing:
            return
        why = "the disk is too slow"
        if self.is_full:
            why = (
                f"the log is limited to {self._max_bytes} bytes (FORGE_BUILD_LOG_SIZE)"
            )
        note = _encoded(f"[… {self._missing} lines left out: {why} …]")
        self._waiting += note
        self._taken += len(note)
        self._missing = 0


def _short(line: str) -> str:
    return "".join(shortened(line, _CHARACTERS))


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "replace") + b"\n"
