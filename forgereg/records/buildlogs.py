"""
Keep what nix said during each build. Blocking: for threads.

::

    logs/<build>.log        grows while the build runs
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from forgereg.oci.errors import DiskFull

_BUILD_ID = re.compile(r"[a-z0-9-]{1,100}")


@frozen
class BuildLogs:
    """
    The logs in one directory.

    Each method raises ValueError for an id of a build that is none.

    :ivar folder: is made when it is needed.
    """

    folder: Path

    def append(self, build_id: str, data: bytes) -> None:
        """
        Add to a build's log, or begin it.

        :raises DiskFull: some of it may have been written.
        """
        path = self._path(build_id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(data)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"no room for the log of build {build_id}") from e
            raise

    def read(self, build_id: str, offset: int, most: int) -> bytes:
        """
        Read a stretch of a build's log; nothing where there is nothing.

        :param most: how long it may be, in bytes.
        """
        try:
            with self._path(build_id).open("rb") as file:
                size = file.seek(0, 2)
                begin = min(max(offset, 0), size)
                file.seek(begin)
                return file.read(min(max(most, 0), size - begin))
        except FileNotFoundError:
            return b""

    def size(self, build_id: str) -> int:
        """Give how long a build's log is by now, in bytes."""
        try:
            return self._path(build_id).stat().st_size
        except FileNotFoundError:
            return 0

    def open(self, build_id: str) -> BinaryIO | None:
        """Open a build's log, without a buffer; None where there is none."""
        try:
            return self._path(build_id).open("rb", buffering=0)
        except FileNotFoundError:
            return None

    def forget(self, build_ids: Iterable[str]) -> None:
        """Delete the logs of these builds, as far as they are there."""
        for path in [self._path(build_id) for build_id in build_ids]:
            path.unlink(missing_ok=True)

    def prune(self, before: float) -> None:
        """Delete what was last written to before this time, in epoch seconds."""
        for path in self.folder.glob("*.log"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def bytes(self) -> int:
        """Add up how much the logs take."""
        total = 0
        for path in self.folder.glob("*.log"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def _path(self, build_id: str) -> Path:
        if not _BUILD_ID.fullmatch(build_id):
            raise ValueError("not the id of a build")
        return self.folder / f"{build_id}.log"
