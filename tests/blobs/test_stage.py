"""How files are written, read meanwhile, and lost where there is no room."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator

import pytest

from forgereg.blobs.stage import Partial
from forgereg.blobs.store import BlobStore
from forgereg.oci.manifest import sha256
from tests.blobs.keeping import DATA, DIGEST, content, files, put, write
from tests.conftest import Log
from tests.registry import files_open_below


def lost(store: BlobStore, partial: Partial) -> bool:
    """Whether a file is lost, with all that it has to be then."""
    partial.write(DATA)
    partial.keep(DIGEST)
    return partial.is_lost and content(store, DIGEST, None) is None


def test_many_files_at_once(store: BlobStore) -> None:
    """Thousands of files may wait to be kept: those that are closed cost nothing."""
    with store.stage() as stage:
        partials = [write(stage, b"%d" % number) for number in range(100)]
        for partial in partials:
            partial.close()
        assert files_open_below(store.root) == []
        for number, partial in enumerate(partials):
            partial.keep(sha256(b"%d" % number))
    assert len(files(store)) == 100


@pytest.mark.parametrize("end", ["keep", "drop", "stage"])
def test_reading_while_it_is_written(store: BlobStore, end: str) -> None:
    """Others read what is written so far, each at its own pace, whatever comes of it."""
    with store.stage() as stage:
        partial = stage.partial()
        partial.write(DATA[:5])
        first, second = partial.reader(), partial.reader()
        assert first is not None and second is not None
        assert (first.read(3), first.read(9)) == (DATA[:3], DATA[3:5])
        partial.write(DATA[5:])
        assert os.pread(first.fileno(), 100, 1) == DATA[1:]
        if end == "keep":
            partial.keep(DIGEST)
        elif end == "drop":
            partial.drop()
            assert store.bytes == 0
    assert partial.reader() is None
    with first, second:
        assert (first.read(), second.read()) == (DATA[5:], DATA)
    assert (content(store, DIGEST, len(DATA)) == DATA) == (end == "keep")


def test_reader_keeps_the_blob_in_use(store: BlobStore) -> None:
    """Who began to read before a layer was whole is not robbed of it afterwards."""
    with store.stage() as stage:
        partial = write(stage)
        early, reader = partial.reader(), partial.reader()
        assert early is not None and reader is not None
        early.close()
        partial.keep(DIGEST)
    store.max_bytes = 1
    store.trim()
    assert store.path(DIGEST).exists()
    reader.close()
    store.trim()
    assert (files(store), store.bytes) == ([], 0)


def test_dropping_comes_to_nothing_after_the_end(store: BlobStore) -> None:
    """What is kept stays, and what is dropped is gone, whatever is done to it then."""
    with store.stage() as stage:
        kept, dropped = write(stage), write(stage, b"x")
        kept.keep(DIGEST)
        dropped.drop()
        for partial in (kept, dropped):
            partial.write(b"more")
            partial.drop()
            partial.keep(sha256(b"x"))
            partial.close()
    assert content(store, DIGEST, len(DATA)) == DATA
    assert store.bytes == len(DATA)


def test_what_the_disk_did_not_keep(store: BlobStore, log: Log) -> None:
    """A file of which the disk has less than was written never becomes a blob."""
    with store.stage() as stage:
        partial = write(stage)
        (half,) = (store.root / "partial").iterdir()
        os.truncate(half, 3)
        partial.keep(DIGEST)
        assert partial.is_lost
    assert (files(store), store.bytes) == ([], 0)
    assert "has not kept all that was written" in log.text


def test_larger_than_the_budget(store: BlobStore) -> None:
    """What cannot fit is lost at once or on the way, and others stay where they are."""
    put(store, b"another")
    store.max_bytes = len(DATA) - 1
    with store.stage() as stage:
        expected = stage.partial(len(DATA))
        assert expected.is_lost
        assert content(store, sha256(b"another"), 7) == b"another"
        partial = stage.partial()
        partial.write(DATA[:8])
        assert not partial.is_lost and partial.size == 8
        partial.write(DATA[8:])
        assert partial.is_lost
        assert list((store.root / "partial").iterdir()) == []
        assert lost(store, expected) and lost(store, partial)
    assert partial.reader() is None


def test_one_pass_does_not_make_room_by_its_own_layers(store: BlobStore) -> None:
    """An image larger than the budget keeps its first layers; the last ones are lost."""
    store.max_bytes = 3
    put(store, b"z")
    with store.stage() as stage:
        for data in (b"a", b"b", b"c", b"d", b"e"):
            write(stage, data).keep(sha256(data))
    kept = [each for each in b"zabcde" if content(store, sha256(bytes([each])), 1)]
    assert bytes(kept) == b"abc"


def test_what_others_pull_meanwhile_stays(store: BlobStore) -> None:
    """A layer that was pulled since a pass began does not make room for it."""
    store.max_bytes = 2
    put(store, b"a")
    put(store, b"b")
    with store.stage() as stage:
        assert content(store, sha256(b"a"), 1) == b"a"
        write(stage, b"c").keep(sha256(b"c"))
        partial = write(stage, b"d")
        assert partial.is_lost
    assert content(store, sha256(b"a"), 1) == b"a"
    assert content(store, sha256(b"b"), 1) is None


@pytest.fixture
def small_files() -> Iterator[int]:
    """Files can grow no larger than this, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Much more than the tests' own output is, which may go to a file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**26, before[1]))
    yield 2**26
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, heard)


def test_full_disk_in_the_middle(store: BlobStore, small_files: int, log: Log) -> None:
    """Where the disk takes no more, everything else makes room, then it is given up."""
    put(store)
    with store.stage() as stage:
        partial = write(stage, bytes(small_files))
        assert not partial.is_lost
        partial.write(b"x")
        assert partial.is_lost
        assert lost(store, partial)
    assert (files(store), store.bytes) == ([], 0)
    assert "layers cannot be kept" not in log.text


def test_disk_that_cannot_hold_what_is_expected(store: BlobStore) -> None:
    """What is larger than the disk is lost at once, and nothing makes room in vain."""
    put(store)
    with store.stage() as stage:
        assert stage.partial(2**60).is_lost
    assert content(store, DIGEST, len(DATA)) == DATA


def test_disk_that_cannot_be_written(store: BlobStore, log: Log) -> None:
    """A disk that fails in another way is told of once; nothing else fails by it."""
    halves = store.root / "partial"
    halves.rmdir()
    halves.write_bytes(b"not a directory")
    with store.stage() as stage:
        assert lost(store, stage.partial()) and lost(store, stage.partial())
    assert log.text.count("layers cannot be kept") == 1
    halves.unlink()
    put(store)
    assert content(store, DIGEST, len(DATA)) == DATA
    assert os.strerror(errno.ENOTDIR) in log.text
