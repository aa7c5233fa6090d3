"""Tests of layers made out of store paths."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from forgereg.archive.storetar import LayerTree, StorePath, find_in_store, open_pieces
from forgereg.oci.errors import ArchiveInvalid
from tests.archive.zoo import APP, BIG, BIG_BYTES, BIG_GOLDEN, ZOO, make_big, make_store

Real = Callable[[str], Path]


@pytest.fixture
def real(tmp_path: Path) -> Real:
    """A store with everything in it that is hard to write."""
    make_store(tmp_path)
    return lambda path: tmp_path / path[1:]


def _tree(real: Real, *sources: StorePath) -> LayerTree:
    tree = LayerTree(real)
    for source in sources:
        tree.add(source)
    return tree


def _bytes(tree: LayerTree) -> bytes:
    return b"".join(tree.write(tree.dialects()[0]))


def test_large_file(tmp_path: Path) -> None:
    """A file that is too large for an old tar header gets a newer one."""
    make_big(tmp_path)
    tree = _tree(lambda path: tmp_path / path[1:], StorePath(BIG))
    with open_pieces(tree.write(tree.dialects()[0])) as file:
        head = file.read(4096)
    assert hashlib.sha256(head).hexdigest() == BIG_GOLDEN
    assert str(BIG_BYTES).encode() in head


def test_other_tools_read_it(real: Real, tmp_path: Path) -> None:
    """What comes out is a tar archive with the names and bytes of the store."""
    archive = tmp_path / "layer.tar"
    archive.write_bytes(_bytes(_tree(real, StorePath(APP, f"^{APP}", ""))))
    with tarfile.open(archive) as tar:
        names = [member.name.strip("/") for member in tar]
        hello = tar.extractfile(tar.getmembers()[names.index("bin/hello")])
        assert hello is not None and hello.read() == b"#!/bin/app\n"
    below = ["bin", "bin/hello", "größe", "share", "share/empty", "sticky"]
    assert names == ["", *below]


def test_ignored(real: Real) -> None:
    """What is to be left out is left out, with everything below it."""
    everything = _bytes(_tree(real, StorePath(APP)))
    rest = _bytes(_tree(real, StorePath(APP, ignored="^.*/bin$")))
    assert b"/bin/hello" in everything and b"/bin" not in rest
    assert b"/share/empty" in rest


@pytest.mark.parametrize("size", [1, 511, 4096, 10**7])
def test_reads_of_any_size(real: Real, size: int) -> None:
    """However the bytes are asked for, the same ones come."""
    tree = _tree(real, StorePath(APP))
    with open_pieces(tree.write(tree.dialects()[0])) as file:
        assert b"".join(iter(lambda: file.read(size), b"")) == _bytes(tree)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "/nix/store",
        "/nix/store/",
        "/nix/store/short-name",
        f"{APP}/",
        f"{APP}/..",
        f"{APP}/../{ZOO[11:]}",
        f"{APP}/./bin",
        f"{APP}//bin",
        f"{APP}/bin\0",
        f"/{APP}",
        APP.replace("store", "other"),
    ],
)
def test_outside(real: Real, path: str) -> None:
    """Nothing outside of the Nix store is ever served."""
    with pytest.raises(ArchiveInvalid, match="not a store path"):
        _tree(real, StorePath(path))


def test_link_on_the_way(real: Real) -> None:
    """A link in the store is packed as a link, and leads nowhere."""
    real(APP).joinpath("out").symlink_to("/etc")
    assert find_in_store(f"{APP}/out", real) == real(APP) / "out"
    with pytest.raises(ArchiveInvalid, match="through a link"):
        _tree(real, StorePath(f"{APP}/out/passwd"))


def test_gone(real: Real) -> None:
    """A path that is no longer in the store is named."""
    with pytest.raises(ArchiveInvalid, match="not in the Nix store"):
        _tree(real, StorePath(APP.replace("app", "bpp")))


def test_changes(real: Real) -> None:
    """A file that is longer or shorter than it was is an error, not a damaged tar."""
    file = real(APP) / "bin/hello"
    tree = _tree(real, StorePath(APP))
    pieces = tree.write(tree.dialects()[0])
    while not (piece := next(pieces)).startswith(f"{APP}/bin/hello".encode()):
        pass
    file.chmod(0o755)
    with file.open("ab") as more:
        more.write(b"more")
    assert piece and next(pieces) == b"#!/bin/app\n"
    with pytest.raises(ArchiveInvalid, match="changes while it is read"):
        next(pieces)


def test_strange_file(real: Real) -> None:
    """What no store can hold is refused, and not waited for."""
    os.mkfifo(real(APP) / "pipe")
    with pytest.raises(ArchiveInvalid, match="no file, link or directory"):
        _bytes(_tree(real, StorePath(APP)))


def test_long_path(real: Real) -> None:
    """A rewrite that makes a path endless is refused."""
    with pytest.raises(ArchiveInvalid, match="too long"):
        _tree(real, StorePath(APP, "hello", "/a" * 5000))


def test_file_for_a_directory(real: Real) -> None:
    """A rewrite that puts a file where the root is cannot be told by a tar."""
    with pytest.raises(ArchiveInvalid, match="no tar archive can hold"):
        _bytes(_tree(real, StorePath(APP, ".*hello", "/")))
