"""What `forgereg.blobs.store` keeps, and what it leaves behind."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from forgereg.blobs.store import BlobStore, Stored
from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Digest
from tests.blobs.keeping import DATA, DIGEST, content, files, put, write
from tests.registry import files_open_below


def test_blob_that_was_kept_is_read_again(store: BlobStore) -> None:
    """A blob that was kept is found by its digest, and begins at its begin."""
    put(store)
    assert content(store, DIGEST, len(DATA)) == DATA
    assert content(store, DIGEST, len(DATA)) == DATA


def test_blob_lies_where_the_drawing_says(store: BlobStore) -> None:
    """A blob's file is found by hand below the first two digits of its digest."""
    put(store)
    encoded = DIGEST.encoded
    assert files(store) == [f"blobs/sha256/{encoded[:2]}/{encoded}"]
    assert store.path(DIGEST).read_bytes() == DATA


def test_blob_that_was_never_kept_is_not_there(store: BlobStore) -> None:
    """Asking for a blob that was never kept gives nothing, for any algorithm."""
    assert store.open(DIGEST, len(DATA)) is None
    assert store.open(Digest("sha512", "0" * 128), 0) is None


@pytest.mark.parametrize("size", [0, 1, len(DATA) - 1, len(DATA) + 1, 2**60])
def test_blob_of_the_wrong_size_is_dropped(store: BlobStore, size: int) -> None:
    """A blob that is not as long as it must be is not served, and makes room."""
    put(store)
    assert store.open(DIGEST, size) is None
    assert (files(store), store.bytes) == ([], 0)


def test_blob_that_was_cut_short_counts_as_gone(store: BlobStore) -> None:
    """A blob of which the disk has lost the end is not served, and can come back."""
    put(store)
    os.truncate(store.path(DIGEST), 3)
    assert store.open(DIGEST, len(DATA)) is None
    put(store)
    assert content(store, DIGEST, len(DATA)) == DATA


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_blob_that_is_no_file_counts_as_gone(
    store: BlobStore, make: Callable[[Path], object]
) -> None:
    """What is no file in a blob's place keeps nobody waiting, and is not served."""
    put(store)
    store.path(DIGEST).unlink()
    make(store.path(DIGEST))
    assert store.open(DIGEST, len(DATA)) is None


def test_directory_that_is_a_file(store: BlobStore) -> None:
    """Where blobs cannot be, there are none."""
    (store.root / "blobs").rmdir()
    (store.root / "blobs").touch()
    assert store.open(DIGEST, len(DATA)) is None


def test_empty_blob(store: BlobStore) -> None:
    """A blob may be empty."""
    assert content(store, put(store, b""), 0) == b""


def test_large_blob(store: BlobStore) -> None:
    """A blob that is longer than any buffer comes back whole."""
    data = os.urandom(3 * 2**20 + 1)
    assert content(store, put(store, data), len(data)) == data


def test_blob_may_be_deleted_at_any_time(store: BlobStore) -> None:
    """A blob that was deleted by hand is gone, and comes back when it is kept again."""
    put(store)
    with store.open(DIGEST, len(DATA)) or pytest.fail("it is not there") as file:
        store.path(DIGEST).unlink()
        assert store.open(DIGEST, len(DATA)) is None
        put(store)
        assert file.read() == DATA
    assert content(store, DIGEST, len(DATA)) == DATA


def test_folder_of_blobs_may_be_deleted_at_any_time(store: BlobStore) -> None:
    """Blobs can be kept after somebody has deleted their folders."""
    put(store)
    store.path(DIGEST).unlink()
    store.path(DIGEST).parent.rmdir()
    store.path(DIGEST).parent.parent.rmdir()
    (store.root / "blobs").rmdir()
    put(store)
    assert content(store, DIGEST, len(DATA)) == DATA


def test_blob_that_is_being_written_is_not_there_yet(store: BlobStore) -> None:
    """Nobody sees a blob before all of it is there."""
    with store.stage() as stage:
        partial = write(stage)
        assert store.open(DIGEST, len(DATA)) is None
        partial.keep(DIGEST)
        assert content(store, DIGEST, len(DATA)) == DATA


def test_keeping_a_blob_again_replaces_it_whole(store: BlobStore) -> None:
    """Whoever reads a blob while it is kept again reads the one or the other, whole."""
    put(store)
    store.path(DIGEST).write_bytes(b"damaged, of no use..")
    with store.open(DIGEST, len(DATA)) or pytest.fail("it is not there") as before:
        put(store)
        assert before.read() == b"damaged, of no use.."
    assert content(store, DIGEST, len(DATA)) == DATA


def test_two_stages_may_bring_the_same_blob(store: BlobStore) -> None:
    """Two archives that are read at once may have a layer in common."""
    with store.stage() as one, store.stage() as other:
        first, second = write(one), write(other)
        first.keep(DIGEST)
        second.keep(DIGEST)
    assert content(store, DIGEST, len(DATA)) == DATA
    assert files(store) == [str(store.path(DIGEST).relative_to(store.root))]


def test_only_what_was_kept_stays(store: BlobStore) -> None:
    """Files that were not kept are gone when the archive has been read."""
    with store.stage() as stage:
        write(stage, b"one")
        write(stage).keep(DIGEST)
        stage.partial().write(b"still open")
    assert files(store) == [str(store.path(DIGEST).relative_to(store.root))]
    assert list((store.root / "partial").iterdir()) == []


def test_files_of_a_stage_do_not_share_anything(store: BlobStore) -> None:
    """Files that are written at the same time stay apart."""
    words = [b"one", b"two", b"three"]
    with store.stage() as stage:
        partials = [stage.partial() for _ in words]
        for partial, word in zip(partials, words, strict=True):
            partial.write(word)
        for partial, word in zip(partials, words, strict=True):
            partial.close()
            partial.keep(sha256(word))
    assert [content(store, sha256(word), len(word)) for word in words] == words


def test_failure_leaves_nothing(store: BlobStore) -> None:
    """An error in the middle passes as it is, and leaves no file behind."""
    with pytest.raises(KeyError):
        with store.stage() as stage:
            write(stage)
            stage.partial().write(b"still open")
            raise KeyError
    assert files(store) == []
    assert store.bytes == 0
    assert files_open_below(store.root) == []


def test_preparing_drops_what_was_left_half_done(store: BlobStore) -> None:
    """After a crash the half-written files are gone, and the blobs are still there."""
    put(store)
    left = store.root / "partial" / "tmpleft"
    left.mkdir()
    (left / "0").write_bytes(b"half")
    store.prepare()
    assert content(store, DIGEST, len(DATA)) == DATA
    assert list((store.root / "partial").iterdir()) == []


def test_preparing_makes_the_directories(tmp_path: Path) -> None:
    """A registry that starts for the first time makes its directories."""
    store = BlobStore(tmp_path / "a" / "b")
    store.prepare()
    assert sorted(p.name for p in store.root.iterdir()) == ["blobs", "partial"]
    put(store)
    store.prepare()
    assert content(store, DIGEST, len(DATA)) == DATA


def test_nothing_lies_outside_of_the_directory(tmp_path: Path) -> None:
    """All that the registry writes lies below its own directory."""
    store = BlobStore(tmp_path / "state")
    store.prepare()
    put(store)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_stages_stay_apart(store: BlobStore) -> None:
    """Archives that are read at the same time do not see one another's files."""
    with store.stage() as one:
        with store.stage() as other:
            write(one, b"one")
            write(other, b"other")
            assert len(files(store)) == 2
        assert len(files(store)) == 1
        write(one, b"one again").keep(sha256(b"one again"))
    assert content(store, sha256(b"one again"), 9) == b"one again"


def test_closing_a_stage_twice_does_no_harm(store: BlobStore) -> None:
    """Files are closed once, however often they are told to."""
    with store.stage() as stage:
        stage.partial().write(DATA)
        stage.close()
        stage.close()
    assert files(store) == []


def test_partial_was_tidied_away(tmp_path: Path) -> None:
    """A directory for halves that somebody deleted while the registry ran comes back."""
    store = BlobStore(tmp_path)
    store.prepare()
    (tmp_path / "partial").rmdir()
    with store.stage() as stage:
        write(stage).keep(DIGEST)
    assert content(store, DIGEST, len(DATA)) == DATA


def test_all_blobs_are_listed(store: BlobStore) -> None:
    """Every blob is listed with its size and time, and nothing that is still written."""
    assert list(store.all()) == []
    for data in (b"", DATA):
        os.utime(store.path(put(store, data)), (5.0, 5.0))
    with store.stage() as stage:
        write(stage, b"half")
        listed = {stored.digest: stored for stored in store.all()}
    assert listed == {
        sha256(data): Stored(sha256(data), len(data), 5.0) for data in (b"", DATA)
    }


def test_what_is_no_blob_is_not_listed(store: BlobStore) -> None:
    """Files that somebody put between the blobs are passed over."""
    folder = store.path(put(store)).parent
    (folder / "note.txt").write_bytes(b"x")
    (folder / ("0" * 64)).write_bytes(b"in the wrong folder")
    (folder / DIGEST.encoded.replace(DIGEST.encoded[-1], "g")).mkdir()
    (store.root / "blobs" / "lost+found").mkdir()
    assert [stored.digest for stored in store.all()] == [DIGEST]


def test_deleted_blob(store: BlobStore) -> None:
    """A blob that is deleted is gone, but not for whoever is reading it."""
    put(store)
    with store.open(DIGEST, len(DATA)) or pytest.fail("it is not there") as file:
        assert store.delete(DIGEST) == len(DATA)
        assert store.open(DIGEST, len(DATA)) is None
        assert file.read() == DATA
    assert store.delete(DIGEST) is None, "it is gone already"


def test_young_blob_stays(store: BlobStore) -> None:
    """A blob that was written since it was chosen for deletion is not deleted."""
    path = store.path(put(store))
    os.utime(path, (5.0, 5.0))
    assert store.delete(DIGEST, written_before=5.0) is None
    assert store.delete(DIGEST, written_before=5.1) == len(DATA)
    assert files(store) == []


ZIPPED = gzip.compress(DATA)


def test_encoded_form_lies_beside_its_blob(store: BlobStore) -> None:
    """A blob's encoded forms are kept beside it, or without it, and found by coding."""
    put(store, DATA, "gzip", ZIPPED)
    assert content(store, DIGEST, None) is None
    put(store)
    encoded = DIGEST.encoded
    path = f"blobs/sha256/{encoded[:2]}/{encoded}"
    assert files(store) == [path, f"{path}.gzip"]
    assert content(store, DIGEST, None, "gzip") == ZIPPED
    assert content(store, DIGEST, None, "zstd") is None
    assert content(store, DIGEST, len(DATA)) == DATA
    assert store.bytes == len(DATA) + len(ZIPPED)


def test_encoded_forms_are_listed_and_deleted_with_their_blob(store: BlobStore) -> None:
    """Sweeping counts a blob's encoded forms as part of it, and deletes all of them."""
    put(store)
    put(store, DATA, "gzip", ZIPPED)
    put(store, b"alone", "zstd", b"in zstd")
    both = len(DATA) + len(ZIPPED)
    listed = {each.digest: each.size for each in store.all()}
    assert listed == {DIGEST: both, sha256(b"alone"): 7}
    assert store.delete(DIGEST) == both
    assert store.delete(sha256(b"alone")) == 7
    assert (files(store), store.bytes) == ([], 0)
