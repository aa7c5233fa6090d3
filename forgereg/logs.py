"""
Let through what is loud enough.

Every room logs to a logger of its own; all of them pass this one gate on the way to
wherever twistd writes.
"""

from __future__ import annotations

from collections import deque
from threading import Lock

from attrs import define, evolve, field, frozen
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)
from zope.interface import implementer

from forgereg.lines import message, shown

#: How many warnings and errors are remembered, and how much of each, in characters.
_MOST_RECENT, _MOST_TEXT = 100, 1000

_levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)


def logger(namespace: str) -> Logger:
    """Make a room's logger."""
    observer = FilteringLogObserver(globalLogPublisher, [_levels])
    return Logger(namespace, observer=observer)


def set_level(name: str) -> None:
    """
    Say how loud is loud enough.

    :param name: of one of Twisted's log levels.
    """
    _levels.setLogLevelForNamespace("", LogLevel.levelWithName(name))


@frozen
class Entry:
    """
    A warning or an error.

    :ivar at: when it was said last, in seconds since the epoch.
    :ivar level: warn, error or critical.
    :ivar text: one line, bounded, without secrets.
    :ivar times: how often it was said in a row.
    """

    at: float
    level: str
    namespace: str
    text: str
    times: int = 1


@implementer(ILogObserver)
@define(eq=False)
class Recent:
    """The last warnings and errors, for people who do not see the log."""

    _entries: deque[Entry] = field(
        init=False, factory=lambda: deque(maxlen=_MOST_RECENT)
    )
    _lock: Lock = field(init=False, factory=Lock)

    @property
    def entries(self) -> list[Entry]:
        """What is remembered, the newest first."""
        with self._lock:
            return list(reversed(self._entries))

    def __call__(self, event: LogEvent) -> None:
        """Take note of an event, in whatever thread."""
        level = event.get("log_level", LogLevel.info)
        if level < LogLevel.warn:
            return
        namespace = shown(str(event.get("log_namespace", "-")), _MOST_TEXT)
        text = message(event, _MOST_TEXT)
        entry = Entry(event.get("log_time", 0.0), level.name, namespace, text)
        with self._lock:
            if self._entries:
                last = self._entries[-1]
                if evolve(last, at=entry.at, times=1) == entry:
                    entry = evolve(entry, times=last.times + 1)
                    self._entries.pop()
            self._entries.append(entry)
