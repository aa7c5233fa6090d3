"""
Walk through the headers of a tar archive, whoever made it. Blocking.

`tarfile.TarFile` reads the headers, and nothing else, through what bounds them.
"""

from __future__ import annotations

import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from attrs import define, field, frozen

from forgereg.archive.members import Limits, Link, member_name
from forgereg.oci.errors import ArchiveInvalid

_MAX_MEMBERS = 100_000
#: Bytes of one member's headers (names, links, extended headers), and of all names.
_MAX_HEADERS = 2**14
_MAX_NAMES = 32 * 2**20

#: What tarfile reads in quadratic time before Python 3.11.10. Source: CVE-2024-6232.
_SLOW = re.compile(rb"[0-9]{100}")


@frozen
class Extent:
    """
    Where a file's bytes lie in a tar archive.

    :ivar offset: in bytes.
    :ivar size: in bytes.
    """

    offset: int
    size: int


@define
class Tape(ABC):
    """
    The bytes of a tar archive, forwards: what tarfile needs of a file, bounded.

    :ivar position: how many bytes have gone by.
    """

    limits: Limits
    position: int = field(init=False, default=0)
    _headers_left: int = field(init=False, default=_MAX_HEADERS)
    _last: bytes = field(init=False, default=b"")

    @abstractmethod
    def some(self, limit: int) -> bytes | memoryview:
        """Give the next bytes: at least one, at most ``limit``; none at the end."""

    @abstractmethod
    def skip(self, size: int) -> None:
        """Let up to ``size`` bytes go by."""

    def allow_headers(self) -> None:
        """Let `read` give another member's headers."""
        self._headers_left = _MAX_HEADERS

    def read(self, size: int) -> bytes:
        """Give header bytes."""
        self._headers_left -= size
        if size < 0 or self._headers_left < 0:
            raise ArchiveInvalid("the archive has a header that is too long")
        parts = []
        while size and (piece := self.some(size)):
            parts.append(bytes(piece))
            size -= len(piece)
        self._last = b"".join(parts)
        if _SLOW.search(self._last):
            raise ArchiveInvalid("the archive has a header that makes no sense")
        return self._last

    def tell(self) -> int:
        """Give how many bytes have gone by."""
        return self.position

    def seek(self, position: int) -> None:
        """Go forwards."""
        if position < self.position:
            raise ArchiveInvalid("the archive's members overlap")
        self.skip(position - self.position)

    def check_end(self) -> None:
        """
        Check that the headers ended where the archive or its end marker is.

        tarfile takes what is no header for the end.
        """
        if any(self._last):
            raise ArchiveInvalid("the archive is damaged: a header makes no sense")


def walk(tape: Tape) -> Iterator[tuple[str, Extent | Link]]:
    """
    Give the files and links of an archive, in their order.

    The tape stands where a file's bytes begin when the file is given; it may have gone
    forwards, up to their end, when the next one is asked for.

    :returns: each with its `member_name`; a name may come again.
    :raises ArchiveInvalid: it is hostile or damaged.
    :raises tarfile.TarError, ValueError, OverflowError, IndexError: it is no archive.
    """
    tar = tarfile.TarFile(fileobj=cast(BinaryIO, tape), mode="r")
    names = count = 0
    while True:
        tape.allow_headers()
        info = tar.next()
        if info is None:
            tape.check_end()
            return
        # It would keep every member, and give global headers to all that follow.
        cast(Any, tar).members.clear()
        tar.pax_headers = {}
        count += 1
        names += len(info.name) + len(info.linkname)
        if count > _MAX_MEMBERS or names > _MAX_NAMES:
            raise ArchiveInvalid("the archive has too many members")
        if info.issparse():
            raise ArchiveInvalid("the archive has sparse members")
        name = member_name(info.name)
        if info.islnk():
            yield name, Link(member_name(info.linkname))
        elif info.issym():
            folder = name.rpartition("/")[0] or "."
            yield name, Link(member_name(f"{folder}/{info.linkname}"))
        elif info.isreg():
            start = tape.position
            tape.limits.check(start + info.size)
            yield name, Extent(start, info.size)
            size = info.size + (-info.size % tarfile.BLOCKSIZE)
            tape.skip(start + size - tape.position)
