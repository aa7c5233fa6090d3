"""
Read what lies there unpacked: a plain tar archive, or a directory. Blocking.

Nothing is written. Only what is asked for is read, several files at a time: reading and
hashing release the interpreter's lock.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from stat import S_ISREG
from threading import Lock
from typing import BinaryIO

from attrs import define, field, frozen

from forgereg.archive.members import (
    CHUNK,
    MAX_JSON,
    MAX_JSON_IN_ALL,
    Limits,
    Link,
    Member,
    blob_digest,
    follow,
    measure,
)
from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.archive.tar import Extent, Tape, walk
from forgereg.oci.descriptor import Place
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.reference import shown


@frozen
class _Span:
    """Where a file's bytes lie, while it is open."""

    fd: int
    extent: Extent
    place: Place


@define
class Seekable(ABC):
    """Files that can be read at any place; see `Members`."""

    _limits: Limits
    _json_bytes: int = field(init=False, default=0)
    _unpacked_bytes: int = field(init=False, default=0)
    _lock: Lock = field(init=False, factory=Lock)
    _given_up: bool = field(init=False, default=False)

    @abstractmethod
    def find(self, name: str) -> str | None:
        """See `Members`."""

    @abstractmethod
    def _open(self, name: str) -> AbstractContextManager[_Span]: ...

    def json(self, name: str) -> bytes:
        """See `Members`."""
        with self._open(name) as span:
            size = span.extent.size
            if size <= MAX_JSON:
                data = os.pread(span.fd, size, span.extent.offset)
                if sniff(data[:HEAD_BYTES]) is Kind.JSON:
                    self._json_bytes += size
                    if self._json_bytes > MAX_JSON_IN_ALL:
                        raise ArchiveInvalid("the archive has too much JSON")
                    return data
        raise ArchiveInvalid(f"{shown(name)} in the archive is not JSON, or too large")

    def measure(self, names: Collection[str]) -> Mapping[str, Member]:
        """See `Members`; in as many threads as there are cores."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            futures = {name: pool.submit(self._measure, name) for name in set(names)}
            try:
                done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
                for each in done:
                    each.result()
            except BaseException:
                self._given_up = True
                pool.shutdown(cancel_futures=True)
                raise
        return {name: each.result() for name, each in futures.items()}

    def _measure(self, name: str) -> Member:
        with self._open(name) as span:
            pieces = self._pieces(span)
            return measure(name, pieces, span.place, _drop, self._count_unpacked)

    def _pieces(self, span: _Span) -> Iterator[memoryview]:
        position, rest = span.extent.offset, span.extent.size
        buffer = memoryview(bytearray(min(CHUNK, rest)))
        while rest:
            self._limits.check(0)
            size = os.preadv(span.fd, [buffer[:rest]], position)
            if not size or self._given_up:
                raise ArchiveInvalid("the archive is truncated")
            yield buffer[:size]
            position += size
            rest -= size

    def _count_unpacked(self, size: int) -> None:
        with self._lock:
            self._unpacked_bytes += size
        self._limits.check(self._unpacked_bytes)


def _drop(piece: memoryview) -> None:
    """Write nothing."""


@define
class PlainTar(Seekable):
    """A tar archive that is not packed."""

    _file: BinaryIO
    _entries: dict[str, Extent | Link] = field(init=False, factory=dict)

    def read(self) -> None:
        """
        Read the headers.

        :raises ArchiveInvalid: as `walk`, which also says what else.
        """
        tape = _SeekingTape(self._limits, self._file)
        for name, found in walk(tape):
            if isinstance(found, Extent) and found.offset + found.size > tape.size:
                raise ArchiveInvalid("the archive is truncated")
            self._entries[name] = found

    def find(self, name: str) -> str | None:
        """See `Members`."""
        found = follow(self._entries, name)
        return None if found is None else found[0]

    @contextmanager
    def _open(self, name: str) -> Iterator[_Span]:
        extent = self._entries[name]
        assert isinstance(extent, Extent)
        place = Place(extent.offset, is_plain=True)
        yield _Span(self._file.fileno(), extent, place)


@define
class Directory(Seekable):
    """
    An OCI layout as a directory.

    :ivar open_below: opens a file of it for reading; raises OSError where there is
        none, and must not follow links to where it should not.
    """

    _open_below: Callable[[str], BinaryIO]
    _total_bytes: int = field(init=False, default=0)

    def find(self, name: str) -> str | None:
        """See `Members`; no file is opened but those of an OCI layout."""
        if name != "index.json" and blob_digest(name) is None:
            return None
        try:
            with self._open_below(name) as file:
                return name if S_ISREG(os.fstat(file.fileno()).st_mode) else None
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    @contextmanager
    def _open(self, name: str) -> Iterator[_Span]:
        with self._open_below(name) as file:
            size = os.fstat(file.fileno()).st_size
            yield _Span(file.fileno(), Extent(0, size), Place(0, name, is_plain=True))

    def measure(self, names: Collection[str]) -> Mapping[str, Member]:
        """See `Members`."""
        for name in names:
            with self._open(name) as span:
                self._total_bytes += span.extent.size
                self._limits.check(self._total_bytes)
        return super().measure(names)


class _SeekingTape(Tape):
    """A tar archive whose files are passed over."""

    def __init__(self, limits: Limits, file: BinaryIO) -> None:
        super().__init__(limits)
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        limits.check(self.size)
        file.seek(0)

    def some(self, limit: int) -> bytes:
        self.limits.check(self.position)
        piece = self._file.read(limit)
        self.position += len(piece)
        return piece

    def skip(self, size: int) -> None:
        size = min(size, self.size - self.position)
        if size > 0:
            self.position += size
            self._file.seek(self.position)
