"""What a store finds when it starts, and what it does not trust after a power cut."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from attrs import define, field

from forgereg.blobs.store import BlobStore
from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Digest
from tests.blobs.keeping import DATA, DIGEST, content, damage, files, put
from tests.conftest import Log


def started(store: BlobStore, boot_id: str) -> BlobStore:
    """Start again, with nothing in memory."""
    again = BlobStore(store.root)
    again.prepare(boot_id)
    return again


def age(store: BlobStore, digest: Digest, seconds: float) -> None:
    """Let a blob have been written so long before."""
    found = store.path(digest).stat()
    os.utime(store.path(digest), (found.st_atime, found.st_mtime - seconds))


def name(digest: Digest) -> str:
    return f"sha256/{digest.encoded[:2]}/{digest.encoded}"


def test_everything_is_counted(store: BlobStore) -> None:
    """After a start the store knows how much there is, and serves before it does."""
    put(store)
    put(store, b"other", "gzip", b"zipped")
    again = started(store, "")
    assert again.bytes == 0
    assert content(again, DIGEST, len(DATA)) == DATA
    again.survey()
    assert again.bytes == len(DATA) + len(b"zipped")


def test_budget_that_became_smaller(store: BlobStore) -> None:
    """A store that is too large when the registry starts makes room by itself."""
    put(store, b"one")
    again = BlobStore(store.root, 2)
    again.prepare()
    again.survey()
    assert (files(again), again.bytes) == ([], 0)


@define(eq=False)
class Meanwhile(BlobStore):
    """A store in which something happens in the middle of a survey."""

    gone: list[Digest] = field(factory=list)

    def _is_safe(self, name: str, stopping: Callable[[], bool]) -> bool:
        for digest in self.gone:
            self.delete(digest)
        put(self, b"new")
        return super()._is_safe(name, stopping)


def test_changes_during_a_survey(store: BlobStore) -> None:
    """What comes and goes while the store looks around is counted as it is then."""
    digests = [put(store, data) for data in (b"one", b"three", b"fourth", b"5")]
    again = Meanwhile(store.root)
    again.prepare("a")
    again.gone = digests[:2]
    again.survey()
    assert again.bytes == sum(len(each) for each in (b"fourth", b"5", b"new"))
    assert content(again, digests[0], 3) is None


@pytest.mark.parametrize("is_damaged", [False, True])
def test_power_cut(store: BlobStore, is_damaged: bool, log: Log) -> None:
    """After a power cut, what was written last is served when it is known to be whole."""
    put(store)
    if is_damaged:
        damage(store, name(DIGEST))
    again = started(store, "after")
    assert content(again, DIGEST, len(DATA)) is None, "nobody knows yet"
    again.survey()
    assert (content(again, DIGEST, len(DATA)) is None) == is_damaged
    assert again.path(DIGEST).exists() != is_damaged
    assert ("dropped after a power cut" in log.text) == is_damaged
    assert content(started(store, "after"), DIGEST, None) == (
        None if is_damaged else DATA
    )


def test_only_the_last_writes_are_suspected(store: BlobStore) -> None:
    """What had long been on the disk when the power went is not read again."""
    put(store)
    age(store, DIGEST, 1000.0)
    put(store, b"last")
    damage(store, name(DIGEST))
    again = started(store, "after")
    assert content(again, DIGEST, len(DATA)) is not None
    again.survey()
    assert again.path(DIGEST).exists()


def test_no_power_cut(store: BlobStore) -> None:
    """A registry that is only restarted suspects nothing."""
    started(store, "same").survey()
    put(store)
    damage(store, name(DIGEST))
    again = started(store, "same")
    again.survey()
    assert content(again, DIGEST, len(DATA)) is not None


def test_check_that_was_broken_off(store: BlobStore) -> None:
    """A registry that ends before everything was checked checks it at its next start."""
    put(store)
    started(store, "after")
    assert content(started(store, "after"), DIGEST, len(DATA)) is None


def test_stopping(store: BlobStore) -> None:
    """A registry that is stopped while it checks stops at once, and drops nothing."""
    put(store)
    again = started(store, "after")
    again.survey(lambda: True)
    assert content(again, DIGEST, len(DATA)) is None
    again.survey()
    assert content(again, DIGEST, len(DATA)) == DATA


def test_written_again_before_it_was_checked(store: BlobStore) -> None:
    """A blob that is unpacked anew need not wait until the old one is checked."""
    put(store)
    damage(store, name(DIGEST))
    again = started(store, "after")
    put(again)
    assert content(again, DIGEST, len(DATA)) == DATA
    again.survey()
    assert content(again, DIGEST, len(DATA)) == DATA


def test_encoded_forms_are_not_worth_a_check(store: BlobStore) -> None:
    """Encoded forms that a power cut may have torn are dropped: they are made again."""
    put(store, DATA, "gzip", b"zipped")
    again = started(store, "after")
    again.survey()
    assert (content(again, DIGEST, None, "gzip"), again.bytes) == (None, 0)


def test_a_million_blobs_fit_into_memory(store: BlobStore) -> None:
    """What is remembered of a blob takes no more than a few hundred bytes."""
    import tracemalloc

    for number in range(2000):
        path = store.path(sha256(b"%d" % number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    tracemalloc.start()
    store.survey()
    assert tracemalloc.get_traced_memory()[0] < 2000 * 350
    tracemalloc.stop()
