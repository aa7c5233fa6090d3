"""
Make a layer's tar out of store paths, as nix2container does. Blocking: for a thread.

The tar is told by the tree that shall be in the image: every entry of each store path
is put where its rewrite moves it, later ones over earlier ones; parents that nobody
named become directories. Entries come in the order of their names there. Bytes of files
go through piece by piece; of the tree, only names are held.

Source: nix2container, nix/tar.go, nix/graph.go, nix/utils.go.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from attrs import define, evolve, field, frozen

from forgereg.archive.goregex import found, replaced
from forgereg.archive.gotar import END, Header, Kind, clean, padding, write_header
from forgereg.archive.readahead import CHUNK
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.reference import shown

_STORE_PATH = re.compile(
    r"(?P<top>/nix/store/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+)(?P<below>(?:/[^/\0]+)*)"
)
#: How many entries a layer may have, and how long a path in it may be, in bytes.
_MAX_ENTRIES = 2**20
_MAX_PATH = 4096

#: What Nix puts behind a name that differs from another only in case.
_CASE_HACK = b"~nix~case~hack~"


@frozen
class Perm:
    """
    Who owns the files whose store path matches, and who may do what with them.

    :ivar mode: of the file; None for as it is.
    :ivar more_mode: bits that are added to that.
    :ivar uname: empty for as it is; so is ``gname``.
    """

    pattern: str
    mode: int | None
    more_mode: int
    uid: int
    gid: int
    uname: bytes
    gname: bytes


@frozen
class StorePath:
    """
    What of the store goes into a layer, and where to.

    :ivar path: below ``/nix/store``.
    :ivar rewrite: replaced in every path; empty for nothing.
    :ivar ignored: what matches it after that is left out; empty for nothing.
    """

    path: str
    rewrite: str = ""
    template: str = ""
    ignored: str = ""
    perms: tuple[Perm, ...] = ()


@frozen
class Dialect:
    """
    What releases of nix2container write differently; their JSON does not tell.

    :ivar drops_case_hack: from names; only on macOS in older ones.
    :ivar mixes_owners: a group is named like the user: a bug in older ones.
    """

    drops_case_hack: bool
    mixes_owners: bool


#: The newest first.
_DIALECTS = (Dialect(True, False), Dialect(True, True), Dialect(False, True))


def find_in_store(path: str, real: Callable[[str], Path]) -> Path:
    """
    Find where a store path lies; no link is followed.

    :param real: where a path that begins with ``/nix/store`` lies.
    :raises ArchiveInvalid: it is none, nothing is there, or it leads through a link.
    """
    match = _STORE_PATH.fullmatch(path)
    if match is None or {".", ".."} & set(match["below"].split("/")):
        raise ArchiveInvalid(f"a layer is made of {shown(path)}: not a store path")
    try:
        where = real(match["top"])
        for part in match["below"].split("/")[1:]:
            if where.is_symlink():
                raise ArchiveInvalid(f"a layer's {shown(path)} leads through a link")
            where /= part
        where.lstat()
    except (OSError, UnicodeError) as e:
        raise ArchiveInvalid(
            f"a layer needs {shown(path)}, which is not in the Nix store"
        ) from e
    return where


@define
class _Node:
    """An entry: ``path`` in ``source``, or a directory that nobody named."""

    source: StorePath | None = None
    path: bytes = b""
    children: dict[bytes, Self] | None = None


@define
class LayerTree:
    """
    The tree that a layer holds.

    :ivar real: where a path that begins with ``/nix/store`` lies.
    """

    _real: Callable[[str], Path]
    _root: _Node = field(init=False, factory=_Node)
    _tops: dict[str, bytes] = field(init=False, factory=dict)
    _entries: int = field(init=False, default=0)
    _has_case_hack: bool = field(init=False, default=False)
    _has_groups: bool = field(init=False, default=False)

    def add(self, source: StorePath) -> None:
        """
        Put a store path where it belongs.

        :raises ArchiveInvalid: it is not in the store, or too large.
        """
        self._tops[source.path] = os.fsencode(find_in_store(source.path, self._real))
        self._has_groups |= any(p.gname not in (b"", p.uname) for p in source.perms)
        waiting = [os.fsencode(source.path)]
        while waiting:
            path = waiting.pop()
            self._count()
            goal = path
            if source.rewrite:
                goal = replaced(source.rewrite, source.template, path)
            if source.ignored and found(source.ignored, goal):
                continue
            if goal:
                self._put(goal, path, source)
            where = self._where(source, path)
            try:
                if stat.S_ISDIR(os.lstat(where).st_mode):
                    names = sorted(os.listdir(where), reverse=True)
                    waiting.extend(path + b"/" + name for name in names)
            except OSError as e:
                raise _unreadable(path, e) from e

    def dialects(self) -> tuple[Dialect, ...]:
        """Give the dialects that the tar may be in, all different for this tree."""
        return tuple(
            dialect
            for n, dialect in enumerate(_DIALECTS)
            if n == 0
            or (n == 1 and self._has_groups)
            or (n == 2 and self._has_case_hack)
        )

    def write(self, dialect: Dialect) -> Generator[bytes, None, None]:
        """
        Give the tar's bytes, piece by piece.

        :raises ArchiveInvalid: a file is not what it was, or no tar can hold it.
        """
        waiting = [(b"", self._root)]
        while waiting:
            name, node = waiting.pop()
            if node is not self._root:
                yield from self._write_entry(name, node, dialect)
            children = node.children or {}
            if dialect.drops_case_hack and self._has_case_hack:
                children = {_without_hack(k): v for k, v in children.items()}
            waiting.extend(
                (clean(name + b"/" + key if name and key else key or b"/"), child)
                for key, child in sorted(
                    children.items(), key=lambda item: item[0], reverse=True
                )
            )
        yield END

    def _count(self) -> None:
        self._entries += 1
        if self._entries > _MAX_ENTRIES:
            raise ArchiveInvalid(f"a layer has more than {_MAX_ENTRIES} entries")

    def _put(self, goal: bytes, path: bytes, source: StorePath) -> None:
        if len(goal) > _MAX_PATH:
            raise ArchiveInvalid("a layer has a path that is too long")
        goal = clean(goal)
        node = self._root
        for part in (b"",) if goal == b"/" else goal.split(b"/"):
            if node.children is None:
                node.children = {}
            if part not in node.children:
                self._count()
                node.children[part] = _Node()
                self._has_case_hack |= _CASE_HACK in part
            node = node.children[part]
        node.source, node.path = source, path

    def _where(self, source: StorePath, path: bytes) -> bytes:
        return self._tops[source.path] + path[len(os.fsencode(source.path)) :]

    def _write_entry(
        self, name: bytes, node: _Node, dialect: Dialect
    ) -> Iterator[bytes]:
        if node.source is None:
            yield write_header(Header(name, Kind.DIRECTORY, 0o755))
            return
        where = self._where(node.source, node.path)
        try:
            status = os.lstat(where)
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISREG(status.st_mode):
                size = status.st_size
                header = Header(name, Kind.FILE, mode, size)
                yield _with_perms(header, node, dialect)
                yield from _read(where, size)
                yield padding(size)
            elif stat.S_ISLNK(status.st_mode):
                header = Header(name, Kind.LINK, 0o777, 0, os.readlink(where))
                yield _with_perms(header, node, dialect)
            elif stat.S_ISDIR(status.st_mode):
                header = Header(name, Kind.DIRECTORY, mode)
                yield _with_perms(header, node, dialect)
            else:
                raise OSError(None, "it is no file, link or directory")
        except OSError as e:
            raise _unreadable(node.path, e) from e


def open_pieces(pieces: Generator[bytes, None, None]) -> BinaryIO:
    """Make a file of its pieces; closing it closes the generator."""
    return cast(BinaryIO, io.BufferedReader(_Pieces(pieces), CHUNK))


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._pieces.close()
        super().close()


def _with_perms(header: Header, node: _Node, dialect: Dialect) -> bytes:
    perms = node.source.perms if node.source else ()
    for perm in perms:
        if found(perm.pattern, node.path):
            gname = perm.uname if dialect.mixes_owners else perm.gname
            header = evolve(
                header,
                uid=perm.uid,
                gid=perm.gid,
                uname=perm.uname or header.uname,
                gname=gname if perm.gname else header.gname,
                mode=(header.mode if perm.mode is None else perm.mode) | perm.more_mode,
            )
    return write_header(header)


def _read(where: bytes, size: int) -> Iterator[bytes]:
    """Give a file's bytes, which must be as many as expected."""
    with open(where, "rb", buffering=0, opener=_open) as file:
        while size and (piece := file.read(min(CHUNK, size))):
            size -= len(piece)
            yield piece
        if size or file.read(1):
            raise OSError(None, "it changes while it is read")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _without_hack(name: bytes) -> bytes:
    kept, *numbers = name.split(_CASE_HACK)
    if len(numbers) != 1 or not re.fullmatch(rb"\+?[0-9]+", numbers[0]):
        return name
    return kept if 0 < int(numbers[0]) < 2**63 else name


def _unreadable(path: bytes, error: OSError) -> ArchiveInvalid:
    name = shown(path.decode(errors="replace"))
    return ArchiveInvalid(f"a layer's {name} cannot be read: {error.strerror}")
