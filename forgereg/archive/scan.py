"""
From a docker-archive to its images, in one pass. Blocking: for a thread.

``manifest.json`` comes last in an archive, so every member is hashed, and written to
where layers are kept, as it goes by; what turns out not to belong to an image is
dropped at the end.
"""

from __future__ import annotations

import errno
import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from attrs import define, field
from backports import zstd
from isal import igzip, isal_zlib

from forgereg.archive.layout import Link, Member, Packed, member_name, read_layout
from forgereg.archive.readahead import CHUNK, ReadAhead
from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.oci.descriptor import Compression
from forgereg.oci.errors import ArchiveInvalid, ShuttingDown
from forgereg.oci.reference import Digest

#: How large a config or a manifest.json may be, in bytes; clients refuse larger ones.
MAX_JSON = 4 * 2**20
#: How much of what may be JSON is held in memory during a pass, in bytes.
_MAX_JSON_IN_ALL = 32 * 2**20
_MAX_MEMBERS = 100_000
#: Bytes of one member's headers (names, links, extended headers), and of all names.
_MAX_HEADERS = 2**14
_MAX_NAMES = 32 * 2**20

#: What tarfile reads in quadratic time before Python 3.11.10. Source: CVE-2024-6232.
_SLOW = re.compile(rb"[0-9]{100}")

_OPENERS: dict[Kind, Callable[[BinaryIO], BinaryIO]] = {
    Kind.GZIP: lambda file: cast(BinaryIO, igzip.IGzipFile(fileobj=file, mode="rb")),
    Kind.ZSTD: lambda file: cast(BinaryIO, zstd.ZstdFile(file, mode="r")),
    Kind.TAR: lambda file: file,
}
_COMPRESSIONS = {Kind.GZIP: Compression.GZIP, Kind.ZSTD: Compression.ZSTD}

#: What the decompressors raise for bytes that are not theirs, or that end too soon.
_BROKEN: tuple[type[Exception], ...] = (
    EOFError,
    isal_zlib.error,  # type: ignore[assignment]  # its stub lacks a type
    zstd.ZstdError,
    igzip.BadGzipFile,
)

_ADVICE = {
    Kind.SCRIPT: "streamLayeredImage makes a script: use buildLayeredImage",
    Kind.XZ: "compress with gzip or zstd, or not at all",
}


class Partial(Protocol):
    """A file that is being written and may be kept."""

    @property
    def is_lost(self) -> bool:
        """Whether there was no room for it."""

    def write(self, data: bytes | memoryview) -> None:
        """Write more."""

    def reader(self) -> BinaryIO | None:
        """Open what was written."""

    def close(self) -> None:
        """Write no more."""

    def keep(self, digest: Digest) -> None:
        """Make it the blob of this digest; else it is gone when the stage is left."""


class Stage(Protocol):
    """Where a pass writes what it finds, until it knows what to keep."""

    def partial(self) -> Partial:
        """Begin a file."""


def scan(
    archive: Path, stage: Stage, max_bytes: int, stopping: Callable[[], bool]
) -> tuple[Packed, ...]:
    """
    Read an archive, check it, and keep the blobs of its images.

    :param stage: left by the caller, whatever happens.
    :param max_bytes: of the archive when it is unpacked.
    :param stopping: whether to give up; asked often.
    :returns: its images, at least one, in the order of its manifest.json.
    :raises ArchiveInvalid: it is broken, hostile, or not a docker-archive; nothing
        of it was kept.
    :raises ShuttingDown: it was given up.
    :raises FileNotFoundError: it is gone.
    :raises OSError: its layers cannot be written.
    """
    try:
        return _Scan(stage, max_bytes, stopping).read(archive)
    except _BROKEN as e:
        raise ArchiveInvalid(f"the archive is damaged: {e}") from e
    except (tarfile.TarError, ValueError, OverflowError, IndexError) as e:
        raise ArchiveInvalid(f"the archive is not a tar archive: {e}") from e
    except IsADirectoryError as e:
        raise ArchiveInvalid("the image is a directory, not a docker-archive") from e


@define
class _Scan:
    _stage: Stage
    _max_bytes: int
    _stopping: Callable[[], bool]
    _members: dict[str, Member | Link] = field(init=False, factory=dict)
    _partials: dict[Digest, Partial] = field(init=False, factory=dict)
    _json_bytes: int = field(init=False, default=0)
    _unpacked_bytes: int = field(init=False, default=0)

    def read(self, archive: Path) -> tuple[Packed, ...]:
        with ExitStack() as stack:
            file = stack.enter_context(archive.open("rb"))
            kind = sniff(file.read(HEAD_BYTES))
            file.seek(0)
            opener = _OPENERS.get(kind)
            if opener is None:
                advice = _ADVICE.get(kind, "a docker-archive is wanted")
                raise ArchiveInvalid(f"the image is {kind.value}: {advice}")
            ahead = stack.enter_context(ReadAhead(opener(file)))
            self._read_members(_Stream(ahead, self._max_bytes, self._stopping))
        packed = read_layout(self._members)
        for digest in {blob.digest for p in packed for blob in p.image.blobs}:
            partial = self._partials[digest]
            partial.keep(digest)
            if partial.is_lost:
                raise OSError(errno.ENOSPC, "no room for a layer")
        return packed

    def _read_members(self, stream: _Stream) -> None:
        # TarFile reads headers through the stream, which bounds them; the members'
        # bytes are taken from the stream directly.
        tar = tarfile.TarFile(fileobj=cast(BinaryIO, stream), mode="r")
        names = count = 0
        while True:
            stream.allow_headers()
            info = tar.next()
            if info is None:
                break
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
                self._members[name] = Link(member_name(info.linkname))
            elif info.issym():
                folder = name.rpartition("/")[0]
                self._members[name] = Link(
                    member_name(f"{folder or '.'}/{info.linkname}")
                )
            elif info.isreg():
                self._members[name] = self._read_member(stream, info.size)
                stream.skip(-info.size % tarfile.BLOCKSIZE)
        stream.drain()

    def _read_member(self, stream: _Stream, size: int) -> Member:
        partial = self._stage.partial()
        kept: list[bytes] | None = None
        head = b""
        hashed = hashlib.sha256()
        for piece in stream.take(size):
            if not head:
                head = bytes(piece[:HEAD_BYTES])
                if sniff(head) is Kind.JSON and size <= MAX_JSON:
                    kept = []
                    self._json_bytes += size
                    if self._json_bytes > _MAX_JSON_IN_ALL:
                        raise ArchiveInvalid("the archive has too much JSON")
            hashed.update(piece)
            partial.write(piece)
            if kept is not None:
                kept.append(bytes(piece))
        digest = diff_id = Digest("sha256", hashed.hexdigest())
        kind = sniff(head)
        compression = _COMPRESSIONS.get(kind, Compression.NONE)
        reader = partial.reader()
        if reader is None or partial.is_lost:
            raise OSError(errno.ENOSPC, "no room for a layer")
        with reader:
            if compression is not Compression.NONE:
                diff_id = self._unpacked_digest(reader, kind)
        partial.close()
        self._partials.setdefault(digest, partial)
        return Member(
            digest, size, compression, diff_id, None if kept is None else b"".join(kept)
        )

    def _unpacked_digest(self, file: BinaryIO, kind: Kind) -> Digest:
        hashed = hashlib.sha256()
        unpacked = _OPENERS[kind](file)
        while chunk := unpacked.read(CHUNK):
            self._unpacked_bytes += len(chunk)
            if self._unpacked_bytes > self._max_bytes:
                raise ArchiveInvalid(_too_large(self._max_bytes))
            _go_on(self._stopping)
            hashed.update(chunk)
        return Digest("sha256", hashed.hexdigest())


class _Stream:
    """A bounded, forward-only file: what `tarfile.TarFile` needs of one, and more."""

    def __init__(
        self, ahead: ReadAhead, max_bytes: int, stopping: Callable[[], bool]
    ) -> None:
        self._ahead = ahead
        self._max_bytes = max_bytes
        self._stopping = stopping
        self._position = 0
        self._headers_left = _MAX_HEADERS

    def allow_headers(self) -> None:
        """Let `read` give another member's headers."""
        self._headers_left = _MAX_HEADERS

    def read(self, size: int) -> bytes:
        """Give header bytes."""
        self._headers_left -= size
        if size < 0 or self._headers_left < 0:
            raise ArchiveInvalid("the archive has a header that is too long")
        parts = []
        while size and (piece := self._some(size)):
            parts.append(bytes(piece))
            size -= len(piece)
        header = b"".join(parts)
        if _SLOW.search(header):
            raise ArchiveInvalid("the archive has a header that makes no sense")
        return header

    def tell(self) -> int:
        """Give how many bytes have gone by."""
        return self._position

    def seek(self, position: int) -> None:
        """Go forwards."""
        if position < self._position:
            raise ArchiveInvalid("the archive's members overlap")
        self.skip(position - self._position)

    def take(self, size: int) -> Iterator[memoryview]:
        """Give the next ``size`` bytes, piece by piece; fail where they end early."""
        if self._position + size > self._max_bytes:
            raise ArchiveInvalid(_too_large(self._max_bytes))
        while size:
            piece = self._some(size)
            if not piece:
                raise ArchiveInvalid("the archive is truncated")
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Let up to ``size`` bytes go by."""
        while size and (piece := self._some(size)):
            size -= len(piece)

    def drain(self) -> None:
        """Read to the end, so that a checksum there is checked."""
        while self._some(CHUNK):
            pass

    def _some(self, limit: int) -> memoryview:
        piece = self._ahead.some(limit)
        self._position += len(piece)
        if self._position > self._max_bytes:
            raise ArchiveInvalid(_too_large(self._max_bytes))
        _go_on(self._stopping)
        return piece


def _go_on(stopping: Callable[[], bool]) -> None:
    if stopping():
        raise ShuttingDown("the registry is shutting down; pull again")


def _too_large(max_bytes: int) -> str:
    return f"the archive unpacks to more than the {max_bytes} bytes that are allowed"
