"""
What lies at a path of the Nix store, and how its bytes are come by.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from errno import ENOENT
from pathlib import Path
from stat import S_ISREG
from threading import Lock
from typing import BinaryIO

from attrs import define, field, frozen

from forgereg.archive.nix2container import MAX_TEXT, open_blob
from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.archive.unpack import BROKEN, open_unpacked
from forgereg.flow.cutting import Opened
from forgereg.flow.errand import Errand
from forgereg.flow.threads import InThread, or_drop
from forgereg.nix.store import Store
from forgereg.nix.stream import Scripts
from forgereg.oci.descriptor import Place
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.reference import Digest
from forgereg.records.records import KnownBlob, Source

_SCRIPTS = (Kind.SCRIPT, Kind.PROGRAM)


@frozen
class Found:
    """
    What lies at a path of the store.

    :ivar path: links followed, as is where it really lies.
    :ivar kind: by its first bytes; None for a directory.
    """

    path: str
    real: Path
    kind: Kind | None
    status: os.stat_result

    @property
    def is_script(self) -> bool:
        """Whether it has to be run."""
        return self.kind in _SCRIPTS and bool(self.status.st_mode & 0o111)

    @property
    def stamp(self) -> str:
        """What tells it from another file or directory that takes its place."""
        return _stamp(self.status)

    def text(self) -> bytes:
        """Read what should be nix2container's JSON. Blocking."""
        with self.real.open("rb") as file:
            return file.read(MAX_TEXT + 1)  # more than that is refused


@define
class Contents:
    """
    What nix has built, as files.

    :ivar store: where it lies.
    :ivar in_reader: where archives are unpacked: as many at a time as there are cores.
    :ivar in_script: where what scripts write is waited for: they may take for ever.
    """

    store: Store
    scripts: Scripts
    _in_thread: InThread
    _in_reader: InThread
    _in_script: InThread

    def look(self, archive: str) -> Found:
        """Say what an archive is. Blocking."""
        path, real = self.store.locate(archive)
        status = real.stat()
        kind = None
        if S_ISREG(status.st_mode):
            with real.open("rb") as file:
                kind = sniff(file.read(HEAD_BYTES))
        return Found(path, real, kind, status)

    def open_plain(self, source: Source, place: Place) -> BinaryIO | None:
        """
        Open the file that has a blob's bytes as they are. Blocking.

        :returns: None where the archive is not what was read.
        """
        try:
            real = self.store.locate(source.archive)[1]
            if _stamp(real.stat()) != source.stamp:
                return None
            if place.path:
                path = posixpath.join(source.archive, place.path)
                real = self.store.locate(path)[1]
            return real.open("rb", buffering=0)
        except (OSError, ArchiveInvalid):
            return None

    async def open(self, errand: Errand, blob: KnownBlob) -> Opened:
        """
        Open what has a blob at its place, when it is unpacked.

        A script takes no build's place: it waits for whoever reads.

        :raises FileNotFoundError: it is gone, and maybe another one is there.
        :raises RegistryError: it cannot be opened.
        """
        source = blob.source
        found = await self._in_thread(self.look, source.archive)
        if source.stamp not in ("", found.stamp):
            raise FileNotFoundError(ENOENT, "another one is there", source.archive)
        if found.is_script:
            stream = await self.scripts.open(errand, found.path)
            return _Opened(stream.file, self._in_script, self._in_thread, stream.close)
        opening = self._in_thread(self._unpacked, found, blob.digest)
        file = await or_drop(opening, lambda each: each.close())
        return _Opened(file, self._in_reader, self._in_thread)

    def _unpacked(self, found: Found, digest: Digest) -> BinaryIO:
        """Blocking."""
        if found.kind is Kind.JSON:
            return open_blob(found.text(), digest, self.store.real)
        return open_unpacked(found.real)


def _ignore() -> None:
    pass


@define(eq=False)
class _Opened:
    """A file that is read in one thread and closed in another."""

    _file: BinaryIO
    in_reader: InThread
    _in_thread: InThread
    _on_close: Callable[[], object] = _ignore
    _closed: bool = field(init=False, default=False)
    _lock: Lock = field(init=False, factory=Lock)

    def read(self, size: int) -> bytes:
        with self._lock:
            try:
                return b"" if self._closed else self._file.read(size)
            except BROKEN as e:
                raise ArchiveInvalid(f"the archive is damaged: {e}") from e
            except OSError as e:
                raise ArchiveInvalid(f"the archive cannot be read: {e}") from e

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._on_close()
            self._in_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._file.close()


def _stamp(status: os.stat_result) -> str:
    """
    Tell a file or directory from another one that takes its place.

    Source: whatever is put into the Nix store has the same time of modification.
    """
    return f"{status.st_ino}-{status.st_size}-{status.st_ctime_ns}"
