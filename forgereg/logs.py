"""
Let through what is loud enough.

Every room logs to a logger of its own; all of them pass this one gate on the way to
wherever twistd writes.
"""

from __future__ import annotations

from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)

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
