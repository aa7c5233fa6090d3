"""
Read what a child writes on its standard output. Blocking: for one thread.

Closing a descriptor that another thread reads frees its number for some other file,
which that thread would read then: so whoever is not the reader abandons instead.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

#: How much may wait in the pipe, and is read at a time; in bytes. More needs rights.
_CAPACITY = 2**20
#: How soon a reader notices that nothing more will come from whoever holds the other
#: end open, in milliseconds. Where nobody does, it notices at once.
_NOTICE_MILLISECONDS = 500


class Outlet(io.BufferedReader):
    """
    The end of a pipe that a child writes into.

    Ends when the child has ended, whoever else may hold the other end open.
    """

    def __init__(self, descriptor: int = -1) -> None:
        """:param descriptor: of what is read, if it is there already."""
        self._end = _End(descriptor)
        super().__init__(self._end, _CAPACITY)

    @property
    def at_end(self) -> bool:
        """Whether all that the child wrote has been taken out of the pipe."""
        return self._end.at_end

    @contextmanager
    def inlet(self) -> Iterator[int]:
        """
        Make the pipe, and give the descriptor of its other end, open within.

        :raises OSError: there are no more descriptors.
        """
        self._end.descriptor, writing = os.pipe()
        try:
            with suppress(OSError):
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _CAPACITY)
            yield writing
        finally:
            os.close(writing)

    def finish(self) -> None:
        """Tell the reader that what is in the pipe by now is all."""
        self._end.is_over = True

    def abandon(self) -> None:
        """Close it, at once or as soon as no thread reads it; from any thread."""
        self._end.abandon()


class _End(io.RawIOBase):
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.at_end = self.is_over = self._is_abandoned = False
        self._lock = Lock()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            with self._lock:
                return self._read(buffer)
        finally:
            if self._is_abandoned:
                self.close()

    def _read(self, buffer: Any) -> int:
        if self.descriptor < 0:
            self.at_end = not self._is_abandoned
            return 0
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while not self._is_abandoned:
            is_over = self.is_over  # asked first: what came before its end is there
            if poll.poll(0 if is_over else _NOTICE_MILLISECONDS):
                size = os.readv(self.descriptor, [buffer])
                self.at_end = size == 0
                return size
            if is_over:
                self.at_end = True
                break
        return 0

    def abandon(self) -> None:
        self._is_abandoned = True
        if self._lock.acquire(blocking=False):
            self._lock.release()
            self.close()  # else the reader does, who asks once it has let go

    def close(self) -> None:
        with self._lock:
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
        super().close()
