"""Tests for `forgereg.flow.builds`: what the flake has, and what goes wrong."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NoReturn

import pytest
from twisted.internet.defer import Deferred

from forgereg.blobs.store import BlobStore
from forgereg.flow.packages import Package
from forgereg.flow.registry import Found
from forgereg.nix.process import Exit
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildFailed,
    BuildTimedOut,
    EvaluationFailed,
    NameUnknown,
    ShuttingDown,
)
from forgereg.oci.media import MANIFESTS
from forgereg.oci.reference import Name, Tag
from tests import doubles
from tests.archives import Entry, Recipe, build_layered_image, layer, tar
from tests.deferreds import begin, result_of
from tests.doubles import Output, store_path
from tests.registry import HELLO, Served, archive, files_below


def ask(served: Served, name: str, tag: str = "latest") -> Deferred[Found]:
    return begin(served.registry.manifest(Name(name), Tag(tag), MANIFESTS))


def refusal(served: Served, name: str, error: type[Exception]) -> str:
    """Give what somebody reads who pulls this."""
    with pytest.raises(error) as refused:
        result_of(ask(served, name))
    return str(refused.value)


def put(served: Served, name: str, data: bytes) -> None:
    """Have the flake build a file with this content."""
    output = served.store.file(f"{name}.tar.gz", data)
    served.nix.packages[name] = doubles.Package("1", {"image": output})


@pytest.mark.parametrize(
    ("version", "tags"), [("1.0", ["1.0", "latest"]), (None, ["latest"])]
)
def test_tags_of_a_package(version: str | None, tags: list[str]) -> None:
    """A package is known by its version and as the latest."""
    assert Package("hello", "/nix/store/x.drv", version).tags == tags


def test_attributes_in_capitals(served: Served) -> None:
    """A package whose attribute has capitals is pulled in lower case."""
    served.nix.packages["HelloWorld"] = served.nix.packages.pop("hello")
    served.pull("packages/helloworld")
    assert served.nix.argvs[-1][-1].endswith('."HelloWorld".image')


def test_attributes_that_differ_in_capitals(served: Served) -> None:
    """Of two attributes that differ in capitals alone, none is guessed."""
    served.nix.packages["Hello"] = served.nix.packages.pop("hello")
    served.nix.packages["HELLO"] = served.nix.packages["Hello"]
    refusal(served, "packages/hello", NameUnknown)


def test_exact_attribute_comes_first(served: Served) -> None:
    """An attribute in lower case is meant before any with capitals."""
    served.nix.packages["HELLO"] = doubles.Package()
    served.pull("packages/hello")


def test_unknown_package(served: Served) -> None:
    """Whoever mistypes a package reads which one may have been meant."""
    served.nix.packages["Hallo"] = doubles.Package()
    message = refusal(served, "packages/helo", NameUnknown)
    assert message == (
        "the flake github:acme/forge has no package 'helo';"
        " did you mean hello or hallo?"
    )


def test_unlike_any_package(served: Served) -> None:
    """Whoever asks for something that is like nothing gets no guess."""
    message = refusal(served, "packages/zzz", NameUnknown)
    assert message == "the flake github:acme/forge has no package 'zzz'"


@pytest.mark.parametrize(
    ("outputs", "name", "advice"),
    [
        ([], "packages/x", "has no attribute 'image'; add one, as in"),
        ([], "packages/x", "served as well"),
        ([], "packages/x", "gives applications/x/<image>"),
        ([], "applications/x/web", "add a directory of images, as in"),
        ([], "applications/x/web", "pull each of them as applications/x/<image>"),
        (["containers"], "packages/x", "pull applications/x/<image>"),
        (["image"], "applications/x/web", "it is a package: pull packages/x"),
    ],
)
def test_package_without_image(
    served: Served, outputs: list[str], name: str, advice: str
) -> None:
    """Whoever pulls what has no image reads how it could have one."""
    image = served.nix.packages["hello"].outputs["image"]
    served.nix.packages["x"] = doubles.Package("1", dict.fromkeys(outputs, image))
    assert advice in refusal(served, name, NameUnknown)
    assert served.nix.count("build") == 0


def test_image_that_is_no_derivation(served: Served) -> None:
    """An attribute that nix cannot build is named."""
    served.nix.packages["x"] = doubles.Package(underivable=["image"])
    message = refusal(served, "packages/x", NameUnknown)
    said = (
        "x.image in the flake github:acme/forge is not a derivation; a path becomes one"
    )
    assert message.startswith(said)


@pytest.mark.parametrize(
    ("verb", "error", "what"),
    [
        ("eval", EvaluationFailed, "evaluation of packages/hello:latest failed: "),
        ("build", BuildFailed, "build of packages/hello:latest failed: "),
    ],
)
def test_failures(served: Served, verb: str, error: type[Exception], what: str) -> None:
    """Whoever pulls what is broken reads what nix said about it."""
    served.nix.fail(verb, "error: it is broken")
    assert refusal(served, "packages/hello", error) == f"{what}it is broken"


def test_timeout(served: Served) -> None:
    """Whoever waited for too long a build reads what the limit is."""
    served.nix.fail("build", exit=Exit(None, timed_out=True))
    message = refusal(served, "packages/hello", BuildTimedOut)
    assert "timed out after 3600 s" in message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"#!/bin/sh\n", "it would be run if its file were executable"),
        (b"", "an empty file"),
        (b"\x7fELF" + b"\0" * 600, "an executable program"),
        (archive(HELLO)[:-20], "damaged"),
        (tar(build_layered_image(HELLO))[:2000], "truncated"),
        (tar([Entry("x", b"x")]), "no manifest.json"),
    ],
    ids=["script", "empty", "program", "cut-gzip", "cut-tar", "no-manifest"],
)
def test_what_is_no_image(served: Served, data: bytes, reason: str) -> None:
    """Whoever pulls what is no image reads what it is instead."""
    put(served, "x", data)
    assert reason in refusal(served, "packages/x", ArchiveInvalid)
    assert files_below(served.state / "blobs") == 0
    assert files_below(served.state / "partial") == 0


def test_directory_in_place_of_an_image(served: Served) -> None:
    """Whoever pulls a directory reads that it is one."""
    output = served.store.folder("x", {"file": b"x"})
    served.nix.packages["x"] = doubles.Package("1", {"image": output})
    assert "is a directory" in refusal(served, "packages/x", ArchiveInvalid)


def test_image_that_is_too_large(served: Served) -> None:
    """An archive that unpacks to more than is allowed is refused."""
    served.set(max_image_size=2**16)
    served.restart()
    put(served, "x", archive(Recipe((layer("x" * 2**17),))))
    assert "65536 bytes" in refusal(served, "packages/x", ArchiveInvalid)


def test_another_store(served: Served) -> None:
    """Where nothing lies at what nix built, the setting to look at is named."""
    nowhere = Output(store_path("hello.tar.gz"), lambda: None, store_path("x.drv"))
    served.nix.packages["x"] = doubles.Package("1", {"image": nowhere})
    message = refusal(served, "packages/x", ArchiveInvalid)
    assert "packages/x:latest leads to " in message
    assert "does FORGE_STORE name the store that nix builds in?" in message


def test_output_that_is_no_store_path(served: Served) -> None:
    """An output outside of the store is never read."""
    outside = Output("/etc/passwd", lambda: None, store_path("x.drv"))
    served.nix.packages["x"] = doubles.Package("1", {"image": outside})
    message = refusal(served, "packages/x", ArchiveInvalid)
    assert "not a path in the Nix store" in message


def test_full_disk(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for the layers does not keep an image from being pulled."""
    monkeypatch.setattr(BlobStore, "has_room", lambda *_: False)
    served.pull("packages/hello")
    assert files_below(served.state / "blobs") == 0


def test_broken_disk(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is not taken for a full one."""

    def stage(store: BlobStore) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(BlobStore, "stage", stage)
    assert "Input/output error" in refusal(served, "packages/hello", OSError)


def test_stopping_while_nix_runs(served: Served) -> None:
    """Whoever waits for nix while the registry stops is told so."""
    served.nix.fail("build", exit=Exit(None, stopped=True))
    assert "shutting down" in refusal(served, "packages/hello", ShuttingDown)


def test_stopping_while_an_archive_is_read(served: Served) -> None:
    """Whoever waits for an archive while the registry stops is told so."""
    served.readers.pause()
    waiting = ask(served, "packages/hello")
    served.assembly.stop()
    served.readers.resume()
    with pytest.raises(ShuttingDown):
        result_of(waiting)
    assert files_below(served.state / "blobs") == 0
    assert files_below(served.state / "partial") == 0


@pytest.fixture
def several(served: Served) -> Iterator[dict[str, Recipe]]:
    """An archive of three images, by their tag in it."""
    references = ["other:1", "hello:2.12", "hello:latest"]
    recipes = {
        reference: Recipe((layer(reference),), (reference,)) for reference in references
    }
    put(served, "hello", archive(*recipes.values()))
    image = served.nix.packages["hello"].outputs["image"]
    served.nix.packages["hello"] = doubles.Package("2.12", {"image": image})
    served.nix.packages["bye"] = doubles.Package("1", {"image": image})
    yield recipes


@pytest.mark.parametrize(
    ("name", "tag", "reference"),
    [
        ("packages/hello", "latest", "hello:latest"),
        ("packages/hello", "2.12", "hello:2.12"),
        ("packages/bye", "1", "other:1"),
        ("packages/bye", "latest", "hello:latest"),
    ],
)
def test_several_images_in_one_archive(
    served: Served, several: dict[str, Recipe], name: str, tag: str, reference: str
) -> None:
    """Of several images in an archive the one is served whose name and tag fit best."""
    (wanted,) = several[reference].layers
    (got,) = served.pull(name, tag)["layers"]
    assert got["digest"] == f"sha256:{wanted.hex}"


def test_several_images_are_read_once(
    served: Served, several: dict[str, Recipe]
) -> None:
    """Two tags that are two images of one archive need one read."""
    assert served.pull("packages/hello") != served.pull("packages/hello", "2.12")
    assert served.readers.calls == ["_scan"]
