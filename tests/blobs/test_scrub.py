"""Rounds through a store find what has rotted, and are noticed by nobody."""

from __future__ import annotations

import gzip
import os

from forgereg.blobs.names import name_of, names
from forgereg.blobs.scrub import Scrub, Step
from forgereg.blobs.store import BlobStore
from forgereg.oci.manifest import sha256
from tests.blobs.keeping import DATA, DIGEST, content, damage, put
from tests.conftest import Log
from tests.registry import files_open_below

MANY = [b"%d" % number for number in range(40)]


def fill(store: BlobStore) -> None:
    for data in MANY:
        put(store, data)
    put(store, DATA, "gzip", gzip.compress(DATA))


def left(store: BlobStore) -> list[str]:
    return list(names(store.root / "blobs"))


def test_a_round(store: BlobStore, log: Log) -> None:
    """One round drops just what has rotted, and says so, and the next begins anew."""
    fill(store)
    rotten = [name_of(sha256(MANY[3]), ""), name_of(DIGEST, "gzip")]
    good = [name for name in left(store) if name not in rotten]
    scrub = Scrub(store)
    assert scrub.step(10**6) == Step(store.bytes, True, len(MANY) + 1)
    assert len(left(store)) == len(MANY) + 1
    for name in rotten:
        damage(store, name)
    assert scrub.step(10**6).damaged == len(rotten)
    assert left(store) == good
    assert all(f"dropped {name}" in log.text for name in rotten)
    assert store.bytes == sum(map(len, MANY)) - len(MANY[3])
    assert files_open_below(store.root) == []


def test_what_was_dropped_comes_back(store: BlobStore) -> None:
    """What has rotted is kept again when it is unpacked again; who reads it reads on."""
    put(store)
    with store.open(DIGEST, len(DATA)) or open(os.devnull, "rb") as file:
        damage(store, name_of(DIGEST, ""))
        Scrub(store).step(10**6)
        assert content(store, DIGEST, len(DATA)) is None
        assert len(file.read()) == len(DATA)
    put(store)
    assert content(store, DIGEST, len(DATA)) == DATA


def test_replaced_while_it_is_checked(store: BlobStore) -> None:
    """A blob that is unpacked anew while its old file is checked is not dropped."""
    large = bytes(3 * 2**20)
    digest = put(store, large)
    damage(store, name_of(digest, ""))
    scrub = Scrub(store)
    assert scrub.step(9) == Step(9, False)
    put(store, large)
    assert scrub.step(10**9).is_between
    assert content(store, digest, len(large)) == large


def test_restart(store: BlobStore) -> None:
    """After a restart the round goes on where it was."""
    fill(store)
    there = left(store)
    scrub = Scrub(store)
    for _ in range(7):
        scrub.step(2)
    scrub.close()
    done = there.index((store.root / "scrubbed").read_text()) + 1
    assert done > 2
    for name in there[: done + 1]:
        damage(store, name)
    Scrub(store).step(10**6)
    assert left(store) == [*there[:done], *there[done + 1 :]]


def test_nobody_notices(store: BlobStore) -> None:
    """Being checked is not being pulled; what is being checked stays meanwhile."""
    one, two = put(store, bytes(3 * 2**20)), put(store, b"2")
    os.utime(store.path(one), (5.0, 6.0))
    scrub = Scrub(store)
    while scrub.step(1).is_between:
        pass
    assert store.path(one).stat().st_atime == 5.0
    store.max_bytes = 2
    store.trim()
    assert (store.path(one).exists(), store.path(two).exists()) == (True, False)
    scrub.close()
    scrub.close()
    store.trim()
    assert store.bytes == 0
    assert files_open_below(store.root) == []


def test_nothing_to_check(store: BlobStore) -> None:
    """A store that is empty, or whose files vanish meanwhile, is no trouble."""
    scrub = Scrub(store)
    assert scrub.step(10) == Step(0, True)
    put(store, b"\x00")
    put(store, b"\x01")
    scrub.step(1)
    scrub.close()
    for name in left(store):
        (store.root / "blobs" / name).unlink()
    assert scrub.step(10) == Step(0, True)
    (store.root / "scrubbed").write_bytes(b"\xff no name of ours")
    put(store)
    assert scrub.step(100).bytes == len(DATA)
