"""Tests for `forgereg.records.records`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from forgereg.oci.descriptor import Compression, Descriptor, Image, Place
from forgereg.oci.errors import DiskFull
from forgereg.oci.manifest import Manifest, sha256, write_manifests
from forgereg.oci.reference import Digest, Name, Tag
from forgereg.records.records import Records, Source
from tests.doubles import FLAKE, store_path

HELLO, OTHER = Name("packages/hello"), Name("packages/other")
LATEST, VERSION = Tag("latest"), Tag("2.12")
DRV, NEWER_DRV = store_path("hello.drv"), store_path("hello.drv", "newer")
SOURCE = Source("locked", "attribute", DRV, store_path("hello.tar.gz"))


def image(*texts: bytes, compression: Compression = Compression.GZIP) -> Image:
    return Image(
        Descriptor(sha256(b"config" + b"".join(texts)), 6),
        tuple(Descriptor(sha256(text), len(text), compression) for text in texts),
    )


IMAGE = image(b"lower", b"upper")
MANIFESTS = write_manifests(IMAGE)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'records.sqlite'}"


@pytest.fixture
def records(url: str) -> Iterator[Records]:
    records = Records.open(url)
    yield records
    records.close()


def placed(image: Image) -> dict[Descriptor, Place]:
    return {blob: Place(100 + n) for n, blob in enumerate(image.blobs)}


def found(records: Records, name: Name, digest: Digest) -> tuple[int, Source] | None:
    known = records.blob(name, digest)
    return None if known is None else (known.size, known.source)


def remember(
    records: Records,
    name: Name = HELLO,
    tag: Tag = LATEST,
    source: Source = SOURCE,
    image: Image = IMAGE,
) -> tuple[Manifest, ...]:
    written = write_manifests(image)
    records.remember_image(name, tag, source, written, placed(image))
    return written


def test_fresh_records_know_nothing(records: Records) -> None:
    """A registry that has never been asked remembers nothing."""
    assert records.resolution(FLAKE) is None
    assert records.answer("locked", "question") is None
    assert records.tagged(HELLO, DRV, LATEST) == ()
    assert records.manifest(HELLO, MANIFESTS[0].digest) is None
    assert records.blob(HELLO, IMAGE.config.digest) is None
    assert records.names("") == []


def test_resolution(records: Records) -> None:
    """What a flake ref was resolved to is known, and when; the last time counts."""
    records.remember_resolution(FLAKE, "locked", 1.5)
    records.remember_resolution("other", "elsewhere", 2.0)
    assert records.resolution(FLAKE) == ("locked", 1.5)
    records.remember_resolution(FLAKE, "locked anew", 3.25)
    assert records.resolution(FLAKE) == ("locked anew", 3.25)
    assert records.resolution("other") == ("elsewhere", 2.0)


def test_answer(records: Records) -> None:
    """What nix answered is known for that revision and that question alone."""
    records.remember_answer("locked", "a", '{"x": "ü"}')
    assert records.answer("locked", "a") == '{"x": "ü"}'
    assert records.answer("locked", "b") is None
    assert records.answer("newer", "a") is None
    records.remember_answer("locked", "a", "1")
    assert records.answer("locked", "a") == "1"


def test_tagged(records: Records) -> None:
    """An image is found by its tag, byte for byte, the preferred form first."""
    remember(records)
    assert records.tagged(HELLO, DRV, LATEST) == MANIFESTS
    assert len(MANIFESTS) == 2


def test_tags_are_of_one_image(records: Records) -> None:
    """Another name, tag or derivation is another image."""
    remember(records)
    assert records.tagged(OTHER, DRV, LATEST) == ()
    assert records.tagged(HELLO, DRV, VERSION) == ()
    assert records.tagged(HELLO, NEWER_DRV, LATEST) == ()


def test_image_of_one_form(records: Records) -> None:
    """An image that only one form can hold is remembered in that form."""
    written = remember(records, image=image(b"x", compression=Compression.ZSTD))
    assert len(written) == 1
    assert records.tagged(HELLO, DRV, LATEST) == written


def test_manifest_by_digest(records: Records) -> None:
    """Every form of a manifest is found by its digest, under its name alone."""
    remember(records)
    for manifest in MANIFESTS:
        assert records.manifest(HELLO, manifest.digest) == manifest
        assert records.manifest(OTHER, manifest.digest) is None


def test_older_manifests_stay(records: Records) -> None:
    """A manifest that was answered once is found by digest when the tag has moved."""
    remember(records)
    newer = remember(
        records,
        source=Source("locked 2", "attribute", NEWER_DRV, store_path("new.tar.gz")),
        image=image(b"newer"),
    )
    assert records.tagged(HELLO, NEWER_DRV, LATEST) == newer
    assert records.tagged(HELLO, DRV, LATEST) == MANIFESTS
    assert records.manifest(HELLO, MANIFESTS[0].digest) == MANIFESTS[0]


def test_same_manifest_of_two_names(records: Records) -> None:
    """Two packages may be one image, and each has it."""
    remember(records)
    remember(records, OTHER)
    digest = MANIFESTS[0].digest
    assert records.manifest(HELLO, digest) == records.manifest(OTHER, digest)
    assert records.tagged(OTHER, DRV, LATEST) == MANIFESTS
    assert records.blob(HELLO, IMAGE.config.digest) is not None
    assert records.blob(OTHER, IMAGE.config.digest) is not None


def test_same_manifest_of_two_derivations(records: Records) -> None:
    """Two builds may give one image, and each finds it."""
    remember(records)
    source = Source("locked 2", "attribute", NEWER_DRV, store_path("new.tar.gz"))
    remember(records, source=source)
    assert records.tagged(HELLO, DRV, LATEST) == MANIFESTS
    assert records.tagged(HELLO, NEWER_DRV, LATEST) == MANIFESTS
    assert found(records, HELLO, IMAGE.config.digest) == (6, source)


def test_blobs(records: Records) -> None:
    """Each blob has its size, and where it can be read from again."""
    remember(records)
    assert found(records, HELLO, IMAGE.config.digest) == (6, SOURCE)
    assert found(records, HELLO, sha256(b"lower")) == (5, SOURCE)
    assert records.blob(OTHER, sha256(b"lower")) is None
    assert records.blob(HELLO, sha256(b"never")) is None
    assert records.blob(HELLO, Digest("sha512", "0" * 128)) is None


def test_large_blobs(records: Records) -> None:
    """A blob may be larger than any 32-bit number says."""
    large = Descriptor(sha256(b"large"), 2**45)
    remember(records, image=Image(IMAGE.config, (large,)))
    assert found(records, HELLO, large.digest) == (2**45, SOURCE)


def test_blobs_come_from_the_newest_source(records: Records) -> None:
    """A blob of several builds is read again from the one that was seen last."""
    remember(records)
    newer = Source("locked 2", "attribute", NEWER_DRV, store_path("new.tar.gz"))
    remember(records, source=newer, image=image(b"lower"))
    assert found(records, HELLO, sha256(b"lower")) == (5, newer)
    assert found(records, HELLO, sha256(b"upper")) == (5, SOURCE)


def test_archive_of_a_newer_revision(records: Records) -> None:
    """An archive that a newer revision also builds is built by the newer one."""
    remember(records)
    again = Source("locked 2", "attribute 2", DRV, SOURCE.archive)
    remember(records, source=again)
    assert found(records, HELLO, sha256(b"lower")) == (5, again)


def test_two_archives_of_one_derivation(records: Records) -> None:
    """The images of an application come from archives of their own."""
    other = Source("locked", "attribute", DRV, store_path("other.tar.gz"))
    remember(records)
    remember(records, OTHER, source=other, image=image(b"other"))
    assert found(records, HELLO, sha256(b"lower")) == (5, SOURCE)
    assert found(records, OTHER, sha256(b"other")) == (5, other)


def test_remembering_twice(records: Records) -> None:
    """Remembering the same image again changes nothing."""
    remember(records)
    remember(records)
    assert records.tagged(HELLO, DRV, LATEST) == MANIFESTS
    assert records.names("packages/") == ["packages/hello"]


def test_repeated_layer(records: Records) -> None:
    """An image may have one layer twice."""
    twice = image(b"x", b"x")
    remember(records, image=twice)
    assert found(records, HELLO, sha256(b"x")) == (1, SOURCE)


def test_replaced_archive(records: Records) -> None:
    """Of an archive that was replaced only what it has now has a place in it."""
    remember(records)
    lower, upper = (layer.digest for layer in IMAGE.layers)
    records.note_places(SOURCE, {})
    assert (known := records.blob(HELLO, lower)) and known.place.offset >= 100
    records.note_places(evolve(SOURCE, stamp="other"), {upper: Place(7, "x", True)})
    assert (known := records.blob(HELLO, lower)) and known.place == Place(-1)
    assert (known := records.blob(HELLO, upper)) and known.place == Place(7, "x", True)
    remember(records, source=evolve(SOURCE, stamp="third"), image=image(b"lower"))
    assert (known := records.blob(HELLO, lower)) and known.place.offset >= 100
    assert (known := records.blob(HELLO, upper)) and known.place == Place(-1)


def test_image_without_layers(records: Records) -> None:
    """An image may have no layer at all."""
    written = remember(records, image=image())
    assert records.tagged(HELLO, DRV, LATEST) == written


def test_names(records: Records) -> None:
    """The repositories of a prefix are listed once each, sorted."""
    for text in ("b/web", "a_b/web", "a_b/db", "axb/web", "a%b/web"):
        name = Name(f"applications/{text}")
        remember(records, name)
        remember(records, name, VERSION)
    assert records.names("applications/a_b/") == [
        "applications/a_b/db",
        "applications/a_b/web",
    ]
    assert records.names("applications/") == sorted(records.names("applications/"))
    assert len(records.names("applications/")) == 5
    assert records.names("packages/") == []


def test_everything_is_there_after_a_restart(records: Records, url: str) -> None:
    """What was remembered is known when the registry is started again."""
    records.remember_resolution(FLAKE, "locked", 1.5)
    records.remember_answer("locked", "question", "answer")
    remember(records)
    records.close()
    again = Records.open(url)
    assert again.resolution(FLAKE) == ("locked", 1.5)
    assert again.answer("locked", "question") == "answer"
    assert again.tagged(HELLO, DRV, LATEST) == MANIFESTS
    assert again.manifest(HELLO, MANIFESTS[1].digest) == MANIFESTS[1]
    assert found(again, HELLO, sha256(b"upper")) == (5, SOURCE)
    assert again.names("packages/") == ["packages/hello"]
    again.close()


def test_used_by_many_threads(records: Records) -> None:
    """Many pulls may read and write at the same time."""
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                records.remember_answer("locked", f"{number}-{turn}", "1")
                remember(records, Name(f"packages/p{number}"))
                assert records.answer("locked", f"{number}-{turn}") == "1"
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(records.names("packages/")) == 8


def test_half_an_image_is_never_remembered(records: Records) -> None:
    """An image whose remembering fails leaves nothing behind."""
    nothing: Any = None
    broken = (MANIFESTS[0], Manifest(nothing, b"x", sha256(b"x")))
    with pytest.raises(SQLAlchemyError):
        records.remember_image(HELLO, LATEST, SOURCE, broken, placed(IMAGE))
    assert records.tagged(HELLO, DRV, LATEST) == ()
    assert records.manifest(HELLO, MANIFESTS[0].digest) is None
    assert records.blob(HELLO, IMAGE.config.digest) is None


def test_damaged_file(tmp_path: Path) -> None:
    """A file that is no database is refused at the start, not during a pull."""
    path = tmp_path / "damaged.sqlite"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(SQLAlchemyError):
        Records.open(f"sqlite:///{path}")


def test_in_memory() -> None:
    """Records can be kept in memory alone."""
    records = Records.open("sqlite://")
    remember(records)
    assert records.tagged(HELLO, DRV, LATEST) == MANIFESTS
    records.close()


def test_forgotten_tags(url: str) -> None:
    """A tag that is forgotten leaves the manifests that it meant."""
    records = Records.open(url)
    records.remember_image(HELLO, LATEST, SOURCE, MANIFESTS, placed(IMAGE))
    assert records.tagged(HELLO, DRV, LATEST) == MANIFESTS
    records.forget_tags(DRV)
    assert records.tagged(HELLO, DRV, LATEST) == ()
    assert records.manifest(HELLO, MANIFESTS[0].digest) == MANIFESTS[0]
    records.close()


def test_no_room(url: str) -> None:
    """A full disk is told as such, and what was noted before is still known."""
    records = Records.open(url)
    records.remember_resolution("flake", "locked", 1.0)
    with records._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(DiskFull, match="no room for records"):
        for n in range(1000):
            records.remember_answer("locked", f"{n}", "x" * 5000)
    assert records.resolution("flake") == ("locked", 1.0)
    records.close()


def test_records_that_cannot_be_written(tmp_path: Path) -> None:
    """Where the disk is read-only, what is known can be read, and the rest is told."""
    records = Records.open(f"sqlite:///{tmp_path / 'r.sqlite'}")
    records.remember_answer("locked", "question", "1")
    records.close()
    read_only = Records(
        create_engine(f"sqlite:///file:{tmp_path / 'r.sqlite'}?mode=ro&uri=true")
    )
    assert read_only.answer("locked", "question") == "1"
    with pytest.raises(DiskFull, match="cannot write its records: attempt to write"):
        read_only.remember_answer("locked", "other", "2")
    read_only.close()
