"""
Read an archive that can only be read forwards: packed, or from a pipe. Blocking.

``manifest.json`` comes last in an archive, so every member is hashed, and written to
where layers are kept, as it goes by; what turns out not to belong to an image is
dropped at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from attrs import define, field

from forgereg.archive.members import (
    CHUNK,
    MAX_JSON,
    MAX_JSON_IN_ALL,
    Limits,
    Link,
    Member,
    follow,
    measure,
)
from forgereg.archive.readahead import ReadAhead
from forgereg.archive.reading import Reading
from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.archive.tar import Extent, Tape, walk
from forgereg.oci.descriptor import Place
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.reference import Digest, shown


class Partial(Protocol):
    """A file that is being written and may be kept."""

    def write(self, data: memoryview | bytes) -> None:
        """
        Go on writing.

        It does not fail for lack of room: the file is lost then, and ignores what
        follows.
        """

    def close(self) -> None:
        """Close the file, which can still be kept."""

    def keep(self, digest: Digest) -> None:
        """Make it the blob of this digest, unless it was lost; else it goes away."""


class Stage(Protocol):
    """Where a pass writes what it finds, until it knows what to keep."""

    def partial(self) -> Partial:
        """Begin a file, after the one before it was written to its end."""


@define
class Passed:
    """
    The members of an archive that has gone by.

    :ivar entries: by name.
    """

    entries: dict[str, Member | Link] = field(factory=dict)
    _json: dict[Digest, bytes] = field(factory=dict)

    def find(self, name: str) -> str | None:
        """See `Members`."""
        found = follow(self.entries, name)
        return None if found is None else found[0]

    def json(self, name: str) -> bytes:
        """See `Members`."""
        data = self._json.get(self._member(name).digest)
        if data is None:
            raise ArchiveInvalid(
                f"{shown(name)} in the archive is not JSON, or too large"
            )
        return data

    def measure(self, names: Collection[str]) -> Mapping[str, Member]:
        """See `Members`."""
        return {name: self._member(name) for name in names}

    def _member(self, name: str) -> Member:
        member = self.entries[name]
        assert isinstance(member, Member)
        return member


class _Stream(Tape):
    """A tar archive as it comes."""

    def __init__(self, ahead: ReadAhead, limits: Limits) -> None:
        super().__init__(limits)
        self._ahead = ahead

    def some(self, limit: int) -> memoryview:
        piece = self._ahead.some(limit)
        self.position += len(piece)
        self.limits.check(self.position)
        return piece

    def skip(self, size: int) -> None:
        while size and (piece := self.some(size)):
            size -= len(piece)

    def take(self, size: int) -> Iterator[memoryview]:
        """Give the next ``size`` bytes, piece by piece; fail where they end early."""
        while size:
            piece = self.some(size)
            if not piece:
                raise ArchiveInvalid("the archive is truncated")
            size -= len(piece)
            yield piece


@define
class Pass:
    """One pass over an archive."""

    _stage: Stage
    _limits: Limits
    _partials: dict[Digest, Partial] = field(init=False, factory=dict)
    _json: dict[Digest, bytes] = field(init=False, factory=dict)
    _json_bytes: int = field(init=False, default=0)
    _unpacked_bytes: int = field(init=False, default=0)

    def read(self, ahead: ReadAhead) -> Passed:
        """
        Let an archive go by, to its end.

        :raises ArchiveInvalid: as `walk`, which also says what else.
        """
        stream = _Stream(ahead, self._limits)
        entries: dict[str, Member | Link] = {}
        for name, found in walk(stream):
            if isinstance(found, Extent):
                entries[name] = self._read_member(stream, name, found)
            else:
                entries[name] = found
        while stream.some(CHUNK):
            pass  # a checksum at the end is checked
        return Passed(entries, self._json)

    def keep(self, reading: Reading) -> None:
        """Keep the blobs of its images."""
        for digest in reading.places:
            self._partials[digest].keep(digest)

    def _read_member(self, stream: _Stream, name: str, extent: Extent) -> Member:
        partial = self._stage.partial()
        kept: list[bytes] = []
        may_be_json = True

        def sink(piece: memoryview) -> None:
            nonlocal may_be_json
            partial.write(piece)
            if may_be_json:
                if not kept:
                    head = bytes(piece[:HEAD_BYTES])
                    may_be_json = extent.size <= MAX_JSON and sniff(head) is Kind.JSON
                    if not may_be_json:
                        return
                    self._json_bytes += extent.size
                    if self._json_bytes > MAX_JSON_IN_ALL:
                        raise ArchiveInvalid("the archive has too much JSON")
                kept.append(bytes(piece))

        place = Place(extent.offset)
        pieces = stream.take(extent.size)
        member = measure(name, pieces, place, sink, self._count_unpacked)
        if kept:
            self._json[member.digest] = b"".join(kept)
        partial.close()
        self._partials.setdefault(member.digest, partial)
        return member

    def _count_unpacked(self, size: int) -> None:
        self._unpacked_bytes += size
        self._limits.check(self._unpacked_bytes)
