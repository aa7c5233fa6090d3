"""Tests for `forgereg.nix.store`."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgereg.nix.store import Store, store_root
from forgereg.oci.errors import ArchiveInvalid
from tests.doubles import store_path
from tests.registry import FakeStore

HELLO = store_path("hello.tar.gz")
FARM = store_path("farm")


@pytest.fixture
def files(tmp_path: Path) -> FakeStore:
    files = FakeStore(tmp_path)
    files.write(HELLO, b"hello")
    return files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_file(files: FakeStore, store: Store) -> None:
    """A store path that is a file leads to that file, below the store's root."""
    assert store.locate(HELLO) == (HELLO, files.real(HELLO))


def test_a_directory(files: FakeStore, store: Store) -> None:
    """A store path that is a directory leads there, and into it."""
    files.write(f"{FARM}/web.tar", b"web")
    assert store.locate(FARM) == (FARM, files.real(FARM))
    assert store.locate(f"{FARM}/web.tar")[1].read_bytes() == b"web"


def test_nothing_there(files: FakeStore, store: Store) -> None:
    """A store path of which there is nothing is said to be missing."""
    with pytest.raises(FileNotFoundError):
        store.locate(store_path("other"))
    with pytest.raises(FileNotFoundError):
        store.locate(f"{FARM}/web.tar")


def test_absolute_links_stay_below_the_root(files: FakeStore, store: Store) -> None:
    """A link to /nix/store/… is followed where the store's files really lie."""
    files.link(f"{FARM}/web.tar.gz", HELLO)
    assert store.locate(f"{FARM}/web.tar.gz") == (HELLO, files.real(HELLO))


def test_relative_links(files: FakeStore, store: Store) -> None:
    """A link to a neighbour is followed, in the directory and out of it."""
    files.write(f"{FARM}/deep/a.tar", b"a")
    files.link(f"{FARM}/b.tar", "deep/a.tar")
    files.link(f"{FARM}/deep/c.tar", f"../../{HELLO.rpartition('/')[2]}")
    assert store.locate(f"{FARM}/b.tar")[0] == f"{FARM}/deep/a.tar"
    assert store.locate(f"{FARM}/deep/c.tar")[0] == HELLO


def test_links_to_links(files: FakeStore, store: Store) -> None:
    """A chain of links, directories among them, is followed to its end."""
    folder, alias = store_path("folder"), store_path("alias")
    files.link(f"{folder}/x.tar", HELLO)
    files.link(alias, folder)
    files.link(f"{FARM}/sub", alias)
    assert store.locate(f"{FARM}/sub/x.tar")[0] == HELLO


def test_a_link_above_the_store(tmp_path: Path) -> None:
    """The store itself may be a link, as where it was moved to a larger disk."""
    files = FakeStore(tmp_path / "disk")
    files.write(HELLO, b"hello")
    (tmp_path / "nix").symlink_to(tmp_path / "disk" / "nix")
    path, real = Store(tmp_path).locate(HELLO)
    assert (path, real.read_bytes()) == (HELLO, b"hello")


def test_a_store_of_another_name(tmp_path: Path) -> None:
    """A store that is not /nix/store is found by the paths in it."""
    path = HELLO.replace("/nix/store", "/gnu/store")
    files = FakeStore(tmp_path)
    files.write(path, b"hello")
    files.link(f"/gnu/store/{'0' * 32}-alias", path)
    assert Store(tmp_path).locate(f"/gnu/store/{'0' * 32}-alias")[0] == path


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "/nix/var/nix/db/db.sqlite",
        "/nix/store/../../etc/passwd",
        "../../../../../../etc/passwd",
        "../../store2/x",
        "/nix/store",
        "/nix/storehouse/x",
        "/",
        "..",
    ],
)
def test_links_out_of_the_store(files: FakeStore, store: Store, target: str) -> None:
    """No image can be a link to a file of the machine."""
    files.write("/etc/passwd", b"root")
    files.write("/nix/storehouse/x", b"x")
    files.write("/nix/store2/x", b"x")
    files.link(f"{FARM}/web.tar.gz", target)
    with pytest.raises(ArchiveInvalid, match="out of the Nix store"):
        store.locate(f"{FARM}/web.tar.gz")


def test_directories_out_of_the_store(files: FakeStore, store: Store) -> None:
    """A directory that is a link to one outside hides nothing either."""
    files.write("/etc/web.tar", b"root")
    files.link(FARM, "/etc")
    with pytest.raises(ArchiveInvalid, match="out of the Nix store"):
        store.locate(f"{FARM}/web.tar")


def test_circles(files: FakeStore, store: Store) -> None:
    """Links that lead in circles are given up."""
    files.link(f"{FARM}/a", "b")
    files.link(f"{FARM}/b", "a")
    files.link(f"{FARM}/self", "self")
    for name in ("a", "self"):
        with pytest.raises(ArchiveInvalid, match="circles"):
            store.locate(f"{FARM}/{name}")


def test_a_link_that_grows(files: FakeStore, store: Store) -> None:
    """A link whose target is longer each time is given up, too."""
    files.link(f"{FARM}/a", "a/a")
    with pytest.raises(ArchiveInvalid, match="circles"):
        store.locate(f"{FARM}/a")


def test_a_dangling_link(files: FakeStore, store: Store) -> None:
    """A link to what was collected as garbage is said to lead to nothing."""
    files.link(f"{FARM}/web.tar", store_path("gone"))
    with pytest.raises(FileNotFoundError):
        store.locate(f"{FARM}/web.tar")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "", "/", "hello", "/nix/store", "/nix/store/short-name"]
)
def test_what_is_no_store_path(store: Store, path: str) -> None:
    """An output that is not in a store is refused."""
    with pytest.raises(ArchiveInvalid, match="not a path in the Nix store"):
        store.locate(path)


@pytest.mark.parametrize(
    ("setting", "root"),
    [
        ("", "/"),
        ("auto", "/"),
        ("daemon", "/"),
        ("local", "/"),
        ("local?root=/srv/store", "/srv/store"),
        ("local?read-only=true&root=%2Fsrv%2Fa%20b", "/srv/a b"),
        ("auto?root=", "/"),
        ("unix:///run/nix.sock", "/"),
        ("unix:///run/nix.sock?root=/srv/store", "/srv/store"),
        ("/srv/store", "/srv/store"),
        ("/srv/store?require-sigs=false", "/srv/store"),
    ],
)
def test_roots(setting: str, root: str) -> None:
    """The files of a store are looked for where nix puts them."""
    assert store_root(setting) == Path(root)


@pytest.mark.parametrize("setting", ["ssh://host", "https://cache", "s3://b", "x"])
def test_stores_elsewhere(setting: str) -> None:
    """A store whose files are not on this machine is refused."""
    with pytest.raises(ValueError):
        store_root(setting)


def test_links_that_no_file_system_follows(tmp_path: Path) -> None:
    """A link through a file, or of an endless name, is refused and not a bug."""
    store = tmp_path / "nix" / "store"
    farm = store / f"{'a' * 32}-farm"
    farm.mkdir(parents=True)
    file = store / f"{'b' * 32}-file"
    file.write_bytes(b"")
    (farm / "through").symlink_to(f"/nix/store/{file.name}/sub")
    (farm / "long").symlink_to(f"/nix/store/{'c' * 300}")
    for name in ("through", "long"):
        with pytest.raises(ArchiveInvalid, match="cannot be followed"):
            Store(tmp_path).locate(f"/nix/store/{farm.name}/{name}")
