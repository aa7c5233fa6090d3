"""Tests for `forgereg.flow.registry`: blobs that are gone come back."""

from __future__ import annotations

import pytest

from forgereg.oci.reference import parse_digest
from tests.archives import Recipe, layer
from tests.registry import HELLO, Served, digest_of, files_below


def blob(digest: str, name: str = "packages/hello") -> str:
    return f"/v2/{name}/blobs/{digest}"


def delete_blobs(served: Served) -> None:
    for path in (served.state / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.fixture
def layers(served: Served) -> list[str]:
    """The digests of the layers of an image that was pulled."""
    return served.digests("packages/hello")[2:]


def test_a_deleted_blob_comes_back(served: Served, layers: list[str]) -> None:
    """A blob whose file is gone is cut out of its archive again, without nix."""
    calls = len(served.nix.argvs)
    served.blobs.path(parse_digest(layers[0])).unlink()
    assert digest_of(served.get(blob(layers[0])).body) == layers[0]
    assert len(served.nix.argvs) == calls
    assert served.readers.calls == ["_scan", "_skip", "_copy"]


def test_all_blobs_come_back_together(served: Served, layers: list[str]) -> None:
    """One pass brings back all that is missing of an archive, and reads no further."""
    delete_blobs(served)
    for digest in layers:
        assert served.get(blob(digest)).status == 200
    assert served.readers.calls == ["_scan", *["_skip", "_copy"] * 3]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_cut_blob_comes_back(
    served: Served, layers: list[str], content: bytes
) -> None:
    """A blob whose file is too short is not served, but read again."""
    path = served.blobs.path(parse_digest(layers[0]))
    path.write_bytes(content)
    assert digest_of(served.get(blob(layers[0])).body) == layers[0]


def test_a_deleted_archive_is_built_again(served: Served, layers: list[str]) -> None:
    """When the archive is gone too, it is built of the revision that it came from."""
    locked = served.nix.locked
    served.nix.push()
    delete_blobs(served)
    served.store.real(served.nix.packages["hello"].outputs["image"].path).unlink()
    assert digest_of(served.get(blob(layers[0])).body) == layers[0]
    assert served.nix.argvs[-1][-1] == (f'{locked}#packages.x86_64-linux."hello".image')
    assert served.nix.counts == (1, 1, 2)


def test_a_head_brings_a_blob_back(served: Served, layers: list[str]) -> None:
    """A client that asks how large a blob is can rely on getting it."""
    delete_blobs(served)
    assert served.head(blob(layers[0])).status == 200
    assert files_below(served.state / "blobs") == 3


def test_many_miss_one_blob(served: Served, layers: list[str]) -> None:
    """Clients who miss blobs of one archive at once share one pass over it."""
    delete_blobs(served)
    served.readers.pause()
    clients = [served.begin(blob(digest)) for digest in layers * 2]
    served.readers.resume()
    assert [digest_of(client.answer().body) for client in clients] == layers * 2
    assert served.readers.calls == ["_scan", *["_skip", "_copy"] * 3]


def test_many_miss_one_archive(served: Served, layers: list[str]) -> None:
    """Clients who miss an archive at once wait for one build."""
    delete_blobs(served)
    served.store.real(served.nix.packages["hello"].outputs["image"].path).unlink()
    served.nix.pause()
    clients = [served.begin(blob(digest)) for digest in layers]
    served.nix.finish()
    assert [client.answer().status for client in clients] == [200, 200]
    assert served.nix.count("build") == 2


def test_a_build_that_fails_by_now(served: Served, layers: list[str]) -> None:
    """Whoever asks for a blob that cannot be had again reads why."""
    delete_blobs(served)
    served.store.real(served.nix.packages["hello"].outputs["image"].path).unlink()
    served.nix.fail("build", "error: source has moved")
    answer = served.get(blob(layers[0]))
    assert answer.status == 422
    assert "source has moved" in answer.error[1]
    served.nix.mend()
    served.clock.advance(60.0)
    assert served.get(blob(layers[0])).status == 200


def test_an_archive_with_other_content(served: Served, layers: list[str]) -> None:
    """A build that gives something else than it did is refused, not served."""
    delete_blobs(served)
    other = served.store.package("2.12", Recipe((layer("other"),)), name="hello")
    other.outputs["image"].make()
    answer = served.get(blob(layers[0]))
    assert answer.status == 422
    assert f"no longer holds {layers[0]}" in answer.error[1]
    # What the tag means now can be pulled, all of it.
    for blob_digest in served.digests("packages/hello")[1:]:
        assert served.get(blob(blob_digest)).status == 200


def test_a_damaged_archive(served: Served, layers: list[str]) -> None:
    """An archive that was damaged on the disk is named as the cause."""
    delete_blobs(served)
    served.store.write(served.nix.packages["hello"].outputs["image"].path, b"damage")
    answer = served.get(blob(layers[0]))
    assert answer.status == 422
    assert answer.error[0] == "MANIFEST_UNKNOWN"


def test_unknown_blobs_need_no_nix(served: Served) -> None:
    """A blob of no image that was ever answered is unknown at once."""
    answer = served.get(blob(digest_of(b"never")))
    assert answer.status == 404
    assert answer.error[0] == "BLOB_UNKNOWN"
    assert served.nix.argvs == []


def test_blobs_are_of_one_name(served: Served, layers: list[str]) -> None:
    """What one repository holds is not found under another's name."""
    assert served.get(blob(layers[0], "packages/other")).status == 404


def test_a_client_who_leaves_during_the_read(served: Served, layers: list[str]) -> None:
    """A blob comes back even if the client who missed it has hung up."""
    delete_blobs(served)
    served.readers.pause()
    served.begin(blob(layers[0])).hang_up()
    served.readers.resume()
    assert served.get(blob(layers[0])).status == 200
    assert served.readers.calls == ["_scan", *["_skip", "_copy"] * 3]


def test_shared_layers_are_kept_once(served: Served) -> None:
    """A layer of two images lies on the disk once."""
    served.pull("packages/hello")
    twin = Recipe(HELLO.layers, more={"author": "somebody else"})
    served.nix.packages["twin"] = served.store.package("1", twin, name="twin")
    served.pull("packages/twin")
    assert files_below(served.state / "blobs") == 4
    assert files_below(served.state / "partial") == 0
