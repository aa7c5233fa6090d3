"""
What lies in an archive, by name: files and links. Blocking where bytes are read.

A reader of a layout (`forgereg.archive.layout`) asks `Members` for what it needs;
whether that was measured while it went by, or is read now, is the other side's affair.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO, Protocol, TypeGuard, TypeVar, cast

from attrs import frozen

from forgereg.archive.sniff import HEAD_BYTES, sniff
from forgereg.archive.unpack import BROKEN, COMPRESSIONS, OPENERS
from forgereg.oci.descriptor import Compression, Descriptor, Place
from forgereg.oci.errors import ArchiveInvalid, ShuttingDown
from forgereg.oci.reference import Digest, shown

#: How large a config or a manifest may be, in bytes; clients refuse larger ones.
MAX_JSON = 4 * 2**20
#: How much JSON of one archive is held in memory, in bytes.
MAX_JSON_IN_ALL = 32 * 2**20
#: How much is read and hashed at a time, in bytes.
CHUNK = 2**20

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")

#: How long a chain of links among members may be.
_MAX_LINKS = 16

F = TypeVar("F")


@frozen
class Link:
    """
    A hard or symbolic link among members.

    :ivar target: name of the member that it points to; it may be a link again, or
        not be there.
    """

    target: str


@frozen
class Member:
    """
    A regular file in an archive.

    :ivar diff_id: digest of its bytes when unpacked; of its bytes, if not packed; None
        where it does not unpack, or nobody looked.
    :ivar is_known: whether its name says which digest it must have, as in an OCI
        layout: it need not be unpacked then.
    """

    digest: Digest
    size: int
    place: Place
    compression: Compression = Compression.NONE
    diff_id: Digest | None = None
    is_known: bool = False

    @property
    def descriptor(self) -> Descriptor:
        """What an image says of it."""
        return Descriptor(self.digest, self.size, self.compression)


class Members(Protocol):
    """The files of an archive."""

    def find(self, name: str) -> str | None:
        """
        Say under which name the file lies that this name leads to.

        :returns: None where there is no such file.
        :raises ArchiveInvalid: it is a link that leads nowhere.
        """

    def json(self, name: str) -> bytes:
        """
        Give the bytes of a file that should be JSON.

        :param name: as `find` gave it.
        :raises ArchiveInvalid: it is not JSON by its looks, or larger than `MAX_JSON`.
        """

    def measure(self, names: Collection[str]) -> Mapping[str, Member]:
        """
        Say what these files are.

        :param names: as `find` gave them.
        :raises ArchiveInvalid: one of them is not what it should be.
        :raises ShuttingDown: it was given up.
        """


def member_name(raw: str) -> str:
    """Write a member's name in the one way that it is looked up by."""
    return posixpath.normpath(raw)


def blob_name(digest: Digest) -> str:
    """Say where an OCI layout keeps the bytes of this digest."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def blob_digest(name: str) -> Digest | None:
    """Say which digest a file must have that an OCI layout keeps under this name."""
    match = _BLOB.fullmatch(name)
    return Digest("sha256", match[1]) if match else None


def follow(members: Mapping[str, F | Link], raw: str) -> tuple[str, F] | None:
    """
    Find a file by its name, or a link's.

    :returns: None where there is none.
    :raises ArchiveInvalid: links lead in a ring, or too far.
    """
    name = member_name(raw)
    for _ in range(_MAX_LINKS):
        found = members.get(name)
        if found is None:
            return None
        if not isinstance(found, Link):
            return name, found
        name = found.target
    raise ArchiveInvalid(f"{shown(raw)} is a link that leads nowhere")


def read_json(members: Members, name: str) -> Any:
    """Read a file, by the name that `Members.find` gave, as JSON."""
    return parse_json(members.json(name), name)


def parse_json(data: bytes, name: str) -> Any:
    """
    Read JSON.

    :raises ArchiveInvalid: it is none, or nested too deep.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as e:
        raise ArchiveInvalid(f"{shown(name)} in the archive is not valid JSON") from e


def is_strings(value: Any) -> TypeGuard[list[str]]:
    """Whether a value that was read as JSON is a list of strings."""
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


@frozen
class Limits:
    """
    How long an archive is read on.

    :ivar max_bytes: of the archive when it is unpacked; of its files in all.
    :ivar stopping: whether to give up; asked often, by several threads.
    """

    max_bytes: int
    stopping: Callable[[], bool]

    def check(self, size: int) -> None:
        """
        Go on at this size in bytes, or do not.

        :raises ArchiveInvalid: it is too large.
        :raises ShuttingDown: it was given up.
        """
        if size > self.max_bytes:
            raise ArchiveInvalid(
                f"the archive unpacks to more than the {self.max_bytes} bytes"
                " that are allowed"
            )
        if self.stopping():
            raise ShuttingDown("the registry is shutting down; pull again")


def check_name(name: str, member: Member) -> None:
    """
    Check that a file which is named by its digest has that.

    :raises ArchiveInvalid: it has another.
    """
    if blob_digest(name) not in (None, member.digest):
        raise ArchiveInvalid(
            f"{shown(name)} in the archive is damaged: it is {member.digest}"
        )


def measure(
    name: str,
    pieces: Iterator[memoryview],
    place: Place,
    sink: Callable[[memoryview], None],
    unpacked: Callable[[int], None],
) -> Member:
    """
    Hash a file while it goes by, and what it unpacks to.

    :param pieces: its bytes; a piece may be overwritten when the next is asked for.
    :param sink: is given every piece.
    :param unpacked: is told how many bytes came out of it; may raise.
    """
    known = blob_digest(name) is not None
    head, pieces = _head(pieces)
    kind = sniff(head)
    compression = COMPRESSIONS.get(kind, Compression.NONE)
    file = _Passing(pieces, sink)
    inner: Digest | None = None
    if kind in COMPRESSIONS and not known:
        hashed = hashlib.sha256()
        try:
            opened = OPENERS[kind](cast(BinaryIO, file))
            while chunk := opened.read(CHUNK):
                unpacked(len(chunk))
                hashed.update(chunk)
            inner = Digest("sha256", hashed.hexdigest())
        except BROKEN:
            pass  # told where it turns out to be a layer
    file.drain()
    digest = Digest("sha256", file.hashed.hexdigest())
    if kind not in COMPRESSIONS:
        inner = digest
    return Member(digest, file.size, place, compression, inner, known)


def _head(pieces: Iterator[memoryview]) -> tuple[bytes, Iterator[memoryview]]:
    """Look at the first bytes without taking them."""
    first = b""
    while len(first) < HEAD_BYTES and (piece := next(pieces, None)):
        if not first and len(piece) >= HEAD_BYTES:
            return bytes(piece[:HEAD_BYTES]), chain([piece], pieces)
        first += piece
    return first[:HEAD_BYTES], chain([memoryview(first)], pieces)


class _Passing(io.RawIOBase):
    """A file whose bytes are hashed, and given to a sink, when they are read."""

    def __init__(
        self, pieces: Iterator[memoryview], sink: Callable[[memoryview], None]
    ) -> None:
        self._pieces = pieces
        self._sink = sink
        self._rest = memoryview(b"")
        self.hashed = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = self._next()
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def drain(self) -> None:
        """Let the rest go by."""
        while self._next():
            pass

    def _next(self) -> memoryview:
        for piece in self._pieces:
            if piece:
                self.hashed.update(piece)
                self.size += len(piece)
                self._sink(piece)
                return piece
        return memoryview(b"")
