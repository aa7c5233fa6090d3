"""
Go through a store's entries, round after round, and drop what has rotted. Blocking.

::

    scrubbed    the name of the last entry that was checked: a restart goes on behind it
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from attrs import define, field, frozen

from forgereg.blobs.check import Check
from forgereg.blobs.names import names, parse
from forgereg.blobs.store import BlobStore
from forgereg.logs import logger

_log = logger(__name__)

#: A step ends with a file of so many bytes, or after so many files or bytes.
_FILES, _BYTES = 100, 2**20


@frozen
class Step:
    """
    What was done.

    :ivar bytes: of files, that were read.
    :ivar is_between: whether no file is half checked.
    :ivar files: that were checked to their end.
    :ivar damaged: how many of them had rotted.
    """

    bytes: int
    is_between: bool
    files: int = 0
    damaged: int = 0


@define(eq=False)
class Scrub:
    """
    Rounds through a store, in the order of names. One thread at a time.

    Nothing of it counts as a pull, and what lies in the page cache stays there.
    """

    _store: BlobStore
    _names: Iterator[str] | None = field(init=False, default=None)
    _name: str = field(init=False, default="")
    _file: BinaryIO | None = field(init=False, default=None)
    _check: Check | None = field(init=False, default=None)

    def step(self, most: int) -> Step:
        """
        Check some more.

        :param most: how many bytes, decoded; it is fewer at the end of a file.
        """
        done = read = files = damaged = 0
        while done < most and (check := self._check or self._next()) is not None:
            before = check.read_bytes
            done += check.go_on(most - done)
            read += check.read_bytes - before
            if check.is_right is not None:
                self._finish(check.is_right)
                files += 1
                damaged += not check.is_right
                if files == _FILES or max(done, check.read_bytes) >= _BYTES:
                    break
        return Step(read, self._check is None, files, damaged)

    def close(self) -> None:
        """Leave what is half checked; another step begins it anew."""
        if self._file is not None:
            self._file.close()
            self._file = self._check = self._names = None

    def _next(self) -> Check | None:
        if self._names is None:
            self._names = names(self._store.root / "blobs", self._noted())
        for name in self._names:
            digest, coding = parse(name)
            with suppress(OSError):  # it cannot even be opened: pulls tell why
                self._file = self._store.inspect(digest, coding)
                if self._file is not None:
                    self._name = name
                    self._check = Check(self._file, digest, coding)
                    return self._check
        self._names = None
        self._note("")
        return None

    def _finish(self, is_right: bool) -> None:
        assert self._file is not None
        if not is_right:
            self._store.drop(self._name, os.fstat(self._file.fileno()).st_ino)
            _log.warn(
                "dropped {name}, which has rotted on the disk; it comes back when it"
                " is pulled",
                name=self._name,
            )
        self._file.close()
        self._file = self._check = None
        self._note(self._name)

    def _noted(self) -> str:
        try:
            return (self._store.root / "scrubbed").read_text()
        except (OSError, ValueError):
            return ""

    def _note(self, name: str) -> None:
        with suppress(OSError):  # a restart begins earlier, then
            (self._store.root / "scrubbed").write_text(name)
