"""The store stays within its budget, whatever is done to it and in whatever order."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forgereg.blobs.stage import Partial, Stage
from forgereg.blobs.store import BlobStore
from forgereg.oci.manifest import sha256
from tests.blobs.keeping import content, put

blobs = st.integers(1, 8).map(lambda size: bytes([size]) * size)
BLOCKS = [bytes([number]) * 500 for number in range(12)]
pick = st.randoms(use_true_random=False)


def test_least_recently_pulled_goes_first(store: BlobStore) -> None:
    """What was pulled last stays longest, and what is being sent stays anyway."""
    one, two, three = (put(store, data) for data in (b"1", b"2", b"3"))
    assert content(store, one, 1) == b"1"
    with store.open(two, 1) or pytest.fail("it is gone"):
        content(store, three, 1)
        content(store, one, 1)
        store.max_bytes = 3
        put(store, b"4")
        left = [store.path(each).exists() for each in (one, two, three)]
        assert left == [True, True, False]


def test_order_survives_a_restart(store: BlobStore) -> None:
    """After a restart it is still known what was pulled longest ago."""
    digests = [put(store, data) for data in (b"1", b"2", b"3")]
    for digest, ago in zip(digests, (1000, 3000, 2000), strict=True):
        found = store.path(digest).stat()
        times = (found.st_atime - ago, found.st_mtime - 5000)
        os.utime(store.path(digest), times)
    assert content(store, digests[1], 1) == b"2"
    again = BlobStore(store.root, 2)
    again.prepare()
    again.survey()
    assert [again.path(each).exists() for each in digests] == [True, True, False]
    assert again.bytes == 2


def test_pulls_do_not_make_a_blob_younger(store: BlobStore) -> None:
    """A blob that nobody has is swept though it was pulled in between."""
    digest = put(store, b"1")
    os.utime(store.path(digest), (5.0, 5.0))
    content(store, digest, 1)
    found = store.path(digest).stat()
    assert (found.st_atime > 5.0, found.st_mtime) == (True, 5.0)


def test_disk_is_seldom_told_of_pulls(store: BlobStore) -> None:
    """A blob that is pulled all the time costs a write every few minutes at most."""
    digest = put(store, b"1")
    times = []
    for now in (0.0, 299.0, 301.0, 302.0):
        again = BlobStore(store.root, 0, lambda now=now: 1e9 + now)  # type: ignore[misc]
        again.open(digest, 1).close()  # type: ignore[union-attr]
        times.append(store.path(digest).stat().st_atime - 1e9)
    assert times == [0.0, 0.0, 301.0, 301.0]


def test_many_threads(store: BlobStore) -> None:
    """Whatever threads do at the same time, the store knows what it has."""
    store.max_bytes = 3000

    def work(seed: int) -> None:
        random = Random(seed)
        for _ in range(200):
            data = random.choice(BLOCKS)
            put(store, data)
            assert content(store, sha256(data), len(data)) in (data, None)
            if random.random() < 0.2:
                store.delete(sha256(random.choice(BLOCKS)))
            if random.random() < 0.05:
                store.survey()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = [path for path in store.root.rglob("*") if path.is_file()]
    assert store.bytes == sum(path.stat().st_size for path in found) <= 3000


class Using(RuleBasedStateMachine):
    """
    Anything, in any order, with crashes in between.

    :ivar order: blobs by their last use, as far as it is known; others were used before.
    :ivar there: the blobs after the last step, but for those deleted from outside.
    """

    def __init__(self) -> None:
        super().__init__()
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = TemporaryDirectory(dir=shm)
        self.opened: list[tuple[bytes, BinaryIO]] = []
        self.there: set[bytes] = set()
        self.start(12)

    def start(self, max_bytes: int) -> None:
        self.store = BlobStore(Path(self.folder.name), max_bytes)
        self.store.prepare()
        self.stages: list[Stage] = []
        self.partials: list[tuple[Partial, bytes]] = []
        self.order: list[bytes] = []
        self.is_surveyed = False

    def teardown(self) -> None:
        self.end()
        self.folder.cleanup()

    def end(self) -> None:
        for _, file in self.opened:
            file.close()
        for partial, _ in self.partials:
            partial.close()
        self.opened = []

    def used(self, data: bytes) -> None:
        self.order = [each for each in self.order if each != data] + [data]

    def exists(self, data: bytes) -> bool:
        return self.store.path(sha256(data)).exists()

    @rule()
    def begin(self) -> None:
        self.stages.append(self.store.stage())

    @precondition(lambda self: self.stages)
    @rule(random=pick, data=blobs, is_expected=st.booleans())
    def begin_file(self, random: Random, data: bytes, is_expected: bool) -> None:
        stage = random.choice(self.stages)
        self.partials.append((stage.partial(len(data) if is_expected else None), data))

    @precondition(lambda self: self.partials)
    @rule(random=pick)
    def write(self, random: Random) -> None:
        partial, data = random.choice(self.partials)
        partial.write(data[partial.size : partial.size + 3])

    @precondition(lambda self: self.partials)
    @rule(random=pick)
    def keep(self, random: Random) -> None:
        partial, data = self.partials.pop(random.randrange(len(self.partials)))
        partial.write(data[partial.size :])
        lost = partial.is_lost or partial.size < len(data)
        if partial.size == len(data):
            partial.keep(sha256(data))
        partial.drop()
        if not lost:
            self.there.add(data)
            self.used(data)

    @precondition(lambda self: self.stages)
    @rule(random=pick)
    def leave(self, random: Random) -> None:
        stage = self.stages.pop(random.randrange(len(self.stages)))
        stage.close()
        self.partials = [each for each in self.partials if each[0].is_open]

    @rule(data=blobs)
    def open(self, data: bytes) -> None:
        file = self.store.open(sha256(data), len(data))
        assert (file is not None) == self.exists(data)
        if file is not None:
            self.opened.append((data, file))
            self.used(data)

    @precondition(lambda self: self.opened)
    @rule(random=pick)
    def close(self, random: Random) -> None:
        data, file = self.opened.pop(random.randrange(len(self.opened)))
        assert file.read() == data
        file.close()
        self.store.trim()

    @rule(data=blobs)
    def delete(self, data: bytes) -> None:
        size = self.store.delete(sha256(data))
        assert size == (len(data) if data in self.there else None)
        self.there.discard(data)

    @rule(data=blobs)
    def delete_by_hand(self, data: bytes) -> None:
        self.store.path(sha256(data)).unlink(missing_ok=True)
        assert self.store.open(sha256(data), len(data)) is None
        self.there.discard(data)

    @rule(most=st.integers(1, 30))
    def change_the_budget(self, most: int) -> None:
        self.store.max_bytes = most
        self.store.trim()

    @rule()
    def survey(self) -> None:
        self.is_surveyed = True
        self.store.survey()

    @rule()
    def crash(self) -> None:
        self.end()
        self.start(self.store.max_bytes)

    @invariant()
    def what_is_in_use_stays_and_the_oldest_goes_first(self) -> None:
        now = {data for data in self.there if self.exists(data)}
        in_use = {data for data, _ in self.opened}
        gone, self.there = self.there - now, now
        assert not gone & in_use
        if self.is_surveyed:
            kept = [self.order.index(d) for d in now - in_use if d in self.order]
            went = [self.order.index(d) for d in gone if d in self.order]
            assert max(went, default=-1) < min(kept, default=999)

    @invariant()
    def within_the_budget(self) -> None:
        root = self.store.root
        files = [path for path in root.rglob("*") if path.is_file()]
        found = sum(path.stat().st_size for path in files)
        in_use = {data for data, _ in self.opened} & self.there
        least = sum(p.size for p, _ in self.partials if p.is_open)
        least += sum(map(len, in_use))
        if self.is_surveyed:
            assert self.store.bytes == found <= max(self.store.max_bytes, least)


Using.TestCase.settings = settings(max_examples=80, stateful_step_count=50)
test_any_order = Using.TestCase
