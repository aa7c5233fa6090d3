"""
Read a file in a thread of its own, a few chunks ahead of whoever wants them.

Inflating and hashing both release the interpreter's lock, so they run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from threading import Event, Thread
from types import TracebackType
from typing import BinaryIO, Self

#: How much is read at a time, in bytes.
CHUNK = 2**20
#: How many chunks wait at most.
_AHEAD = 3


def _ignore() -> None:
    pass


class ReadAhead:
    """
    The bytes of a file, one after another.

    Used as a context manager: leaving it ends the thread. The file is not closed.

    :param abandon: is called, by whoever leaves before the file's end, to end a read
        that hangs.
    """

    def __init__(self, file: BinaryIO, abandon: Callable[[], object] = _ignore) -> None:
        self._file = file
        self._abandon = abandon
        self._chunks: Queue[bytes | Exception] = Queue(_AHEAD)
        self._stopped = Event()
        self._rest = memoryview(b"")
        self._thread = Thread(target=self._fetch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._abandon()
        while self._thread.is_alive():
            while not self._chunks.empty():
                self._chunks.get_nowait()
            self._thread.join(0.01)

    def some(self, limit: int) -> memoryview:
        """
        Give the next bytes: at least one and at most ``limit``, none at the end.

        :raises Exception: whatever reading the file raised.
        """
        if not self._rest:
            chunk = self._chunks.get()
            if isinstance(chunk, Exception):
                self._chunks.put(chunk)  # for whoever asks again
                raise chunk
            self._rest = memoryview(chunk)
            if not chunk:
                self._chunks.put(b"")
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    def _fetch(self) -> None:
        try:
            while not self._stopped.is_set():
                chunk = self._file.read(CHUNK)
                self._chunks.put(chunk)
                if not chunk:
                    return
        except Exception as e:  # told to the reader, who knows what it means
            self._chunks.put(e)
