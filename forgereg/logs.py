"""
Let through what is loud enough, and write it where twistd writes, as text or JSON.

Every room logs to a logger of its own; all of them pass one gate. What Twisted itself
says, warnings and what is printed come beside it, and are written by the same observer.
"""

from __future__ import annotations

import sys
import syslog
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from io import TextIOWrapper
from threading import Lock
from types import MappingProxyType

from attrs import define, evolve, field, frozen
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)
from zope.interface import implementer

from forgereg.lines import json_line, message, summary, text_line, visible

#: How many warnings and errors are remembered, and how much of each, in characters.
_MOST_RECENT, _MOST_TEXT = 100, 1000

_PRIORITIES = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}
_write: Callable[[LogEvent, Mapping[str, str]], str] = text_line
_marks: ContextVar[Mapping[str, str]] = ContextVar(
    "marks", default=MappingProxyType({})
)
_levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)


def logger(namespace: str) -> Logger:
    """Make a room's logger."""
    observer = FilteringLogObserver(globalLogPublisher, [_levels])
    return Logger(namespace, observer=observer)


def set_format(name: str) -> None:
    """
    Say how lines are written from now on.

    :param name: text or json.
    """
    global _write
    _write = {"text": text_line, "json": json_line}[name]


def writing(usual: object) -> ILogObserver:
    """
    Have a log written in our format.

    :param usual: what twistd would write it with, which knows where: Twisted's observer
        for files and streams; whatever else it is stands for syslog, opened.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if not isinstance(usual, FileLogObserver):
        return _Syslog()
    usual.formatEvent = lambda event: (line := _line(event)) and f"{line}\n"
    return usual


@implementer(ILogObserver)
class _Syslog:
    """Writes to syslog, each event with the priority of its level."""

    def __call__(self, event: LogEvent) -> None:
        priority = _PRIORITIES[event.get("log_level") or LogLevel.info]
        for part in _line(event).splitlines():
            syslog.syslog(priority, part)


def _line(event: LogEvent) -> str:
    return _write(event, _marks.get())


def mark(**marks: str) -> Token[Mapping[str, str]]:
    """
    Say what all that is logged from here on is a part of, also what is awaited here.

    :returns: what `unmark` takes, where the next event comes from somewhere else.
    """
    return _marks.set({**_marks.get(), **marks})


def unmark(token: Token[Mapping[str, str]]) -> None:
    """Say that what comes now is a part of it no more."""
    _marks.reset(token)


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
    :ivar text: one line or several, bounded, without secrets.
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
        level = event.get("log_level") or LogLevel.info
        if level < LogLevel.warn:
            return
        namespace = visible(str(event.get("log_namespace", "-")))
        text = message(event, _MOST_TEXT, "\n")
        failure = event.get("log_failure")
        if failure is not None:
            text += ": " + summary(failure, _MOST_TEXT, "\n")
        entry = Entry(event.get("log_time", 0.0), level.name, namespace, text)
        with self._lock:
            if self._entries:
                last = self._entries[-1]
                if evolve(last, at=entry.at, times=1) == entry:
                    entry = evolve(entry, times=last.times + 1)
                    self._entries.pop()
            self._entries.append(entry)
