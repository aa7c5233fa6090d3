"""Tests for `forgereg.web.api`: manifests, in the form that the client reads."""

from __future__ import annotations

import pytest

from forgereg.oci.media import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.archives import Recipe, layer, zst
from tests.client import Answer
from tests.registry import ANY_FORM, Served, digest_of

LATEST = "/v2/packages/hello/manifests/latest"
ZSTD = "/v2/packages/zstd/manifests/latest"


def ask(served: Served, *accept: str, path: str = LATEST) -> Answer:
    """Ask for a manifest with these Accept headers, a line each."""
    return served.get(path, [("Accept", line) for line in accept])


@pytest.fixture
def zstd(served: Served) -> None:
    """Give the flake an image that Docker's form cannot hold."""
    recipe = Recipe((layer("zstd", zst),))
    served.nix.packages["zstd"] = served.store.package(None, recipe, name="zstd")


def test_by_tag(running: Served) -> None:
    """A manifest comes with its media type, its length and its digest."""
    answer = ask(running)
    assert (answer.status, answer.reason) == (200, "OK")
    assert answer["Content-Type"] == OCI_MANIFEST == answer.json["mediaType"]
    assert answer["Docker-Content-Digest"] == digest_of(answer.body)
    assert answer["ETag"] == f'"{digest_of(answer.body)}"'
    assert answer["Content-Encoding"] is None


def test_equal_bytes_for_each_tag(running: Served) -> None:
    """Two tags of one image are the same bytes, and so the same digest."""
    version = ask(running, path="/v2/packages/hello/manifests/2.12")
    assert version.body == ask(running).body


def test_by_digest(running: Served) -> None:
    """Each form is found by its digest, whichever the client says that it reads."""
    for form, other in (
        (OCI_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, OCI_MANIFEST),
    ):
        tagged = ask(running, form)
        digest = tagged["Docker-Content-Digest"]
        for accept in (form, other, "*/*"):
            answer = ask(running, accept, path=f"/v2/packages/hello/manifests/{digest}")
            assert answer.status == 200
            assert answer.body == tagged.body
            assert answer["Content-Type"] == form
            assert answer["Docker-Content-Digest"] == digest


OCI, DOCKER = OCI_MANIFEST, DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ([], OCI),
        ([""], OCI),
        ([OCI], OCI),
        ([DOCKER], DOCKER),
        (["*/*"], OCI),
        (["application/*"], OCI),
        ([f"{DOCKER}, {OCI}"], OCI),
        ([DOCKER, OCI], OCI),
        ([DOCKER, "application/json"], DOCKER),
        (["application/json", f"text/html, {DOCKER}"], DOCKER),
        ([f"{OCI};q=0.5, {DOCKER}"], DOCKER),
        ([f"{OCI};q=0.5", f"{DOCKER};q=0.6"], DOCKER),
        ([f"{OCI};q=0.6", f"{DOCKER};q=0.5"], OCI),
        ([f"{OCI};q=0, */*"], DOCKER),
        ([f"{OCI};q=0, */*;q=0.1"], DOCKER),
        ([f"{DOCKER};q=0, */*"], OCI),
        ([f"{DOCKER}, */*;q=0.1"], DOCKER),
        ([f"{DOCKER}, application/*;q=0.1"], DOCKER),
        ([f"{OCI_INDEX}, {DOCKER}"], DOCKER),
        ([f"{DOCKER} ; q=1.0 , {OCI} ; q=0.001"], DOCKER),
        ([DOCKER.upper()], DOCKER),
        (["*/*;q=0.001"], OCI),
        ([f"{OCI};q=high, {DOCKER}"], DOCKER),
        ([f"{DOCKER}, \xff"], DOCKER),
    ],
)
def test_negotiation(running: Served, accept: list[str], form: str) -> None:
    """The client gets the form that it likes best, and OCI's if both are equal."""
    answer = ask(running, *accept)
    assert (answer.status, answer["Content-Type"]) == (200, form)
    assert answer.json["mediaType"] == form
    assert answer["Vary"] == "Accept"


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "text/html",
        OCI_INDEX,
        f"{OCI};q=0, {DOCKER};q=0",
        "*/*;q=0",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "garbage",
    ],
)
def test_neither_form(running: Served, accept: str) -> None:
    """A client that reads neither form is told so at once, and of both forms."""
    answer = ask(running, accept)
    assert (answer.status, answer.error[0]) == (404, "MANIFEST_UNKNOWN")
    assert OCI in answer.error[1] and DOCKER in answer.error[1]
    assert running.nix.argvs == []


@pytest.mark.usefixtures("zstd")
def test_form_that_cannot_hold_the_image(served: Served) -> None:
    """A client whose only form cannot hold the image is told which form can."""
    assert ask(served, OCI, path=ZSTD).status == 200
    assert ask(served, f"{DOCKER}, {OCI};q=0.1", path=ZSTD)["Content-Type"] == OCI
    answer = ask(served, DOCKER, path=ZSTD)
    assert (answer.status, answer.error[0]) == (404, "MANIFEST_UNKNOWN")
    assert f"only be written as {OCI}," in answer.error[1]
    assert OCI in answer.reason


def test_forms_differ_in_media_types_alone(running: Served) -> None:
    """Both forms name the same blobs."""
    oci, docker = ask(running, OCI).json, ask(running, DOCKER).json
    for one, other in zip(
        [oci["config"], *oci["layers"]],
        [docker["config"], *docker["layers"]],
        strict=True,
    ):
        assert one["digest"] == other["digest"]
        assert one["size"] == other["size"]
        assert one["mediaType"] != other["mediaType"]


def known(served: Served, etag: str, path: str = LATEST) -> Answer:
    return served.get(path, [("If-None-Match", etag)])


def test_known_manifest(running: Served) -> None:
    """A client that has the manifest is told so, and is not sent it again."""
    digest = ask(running)["Docker-Content-Digest"]
    for etag in (
        f'"{digest}"',
        f'W/"{digest}"',
        "*",
        f'"other", "{digest}"',
        f'"other",W/"{digest}" , "third"',
    ):
        answer = known(running, etag)
        assert (answer.status, answer.reason) == (304, "Not Modified"), etag
        assert answer["Docker-Content-Digest"] == digest
        assert answer["ETag"] == f'"{digest}"'
        assert answer["Vary"] == "Accept"
        assert answer["Content-Type"] is None
        headed = running.head(LATEST, [("If-None-Match", etag)])
        assert headed.status == 304


@pytest.mark.parametrize("etag", ['"other"', 'W/"other"', '""', "", ",", '"*"', '"'])
def test_unknown_etags(running: Served, etag: str) -> None:
    """A client that has another manifest is sent this one."""
    assert known(running, etag).status == 200


def test_etags_are_of_one_form(running: Served) -> None:
    """A client that has one form is sent the other when it asks for that."""
    etag = ask(running, OCI)["ETag"]
    assert etag is not None
    headers = [("Accept", DOCKER), ("If-None-Match", etag)]
    answer = running.get(LATEST, headers)
    assert (answer.status, answer["Content-Type"]) == (200, DOCKER)


def test_etag_of_an_image_that_fails_by_now(running: Served) -> None:
    """A client that has an older manifest is told that there is none by now."""
    etag = ask(running)["ETag"]
    assert etag is not None
    answer = known(running, etag, "/v2/packages/nothing/manifests/latest")
    assert answer.status == 404
    assert answer["ETag"] is None


@pytest.mark.parametrize(
    "tag", [".x", "-x", "a%20b", "%00", "x" * 129, "%C3%A4", "a%2Bb", "%2E%2E"]
)
def test_what_is_no_tag(running: Served, tag: str) -> None:
    """A tag that no image can have is not looked for."""
    answer = ask(running, path=f"/v2/packages/hello/manifests/{tag}")
    assert answer.status == 404
    assert answer.error[0] == "MANIFEST_UNKNOWN"
    assert running.nix.argvs == []


def test_long_tags(served: Served) -> None:
    """A tag that is longer than the setting allows is refused, with the limit."""
    served.set(max_tag_length=6)
    served.restart()
    assert ask(served).status == 200
    answer = ask(served, path="/v2/packages/hello/manifests/latest2")
    assert (answer.status, answer.error[0]) == (404, "MANIFEST_UNKNOWN")
    assert "up to 6 letters" in answer.error[1]


@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom"])
def test_signatures(running: Served, suffix: str) -> None:
    """Whoever looks for a signature is told at once that there is none."""
    path = f"/v2/packages/hello/manifests/sha256-{'0' * 64}{suffix}"
    answer = ask(running, path=path)
    assert (answer.status, answer.error[0]) == (404, "MANIFEST_UNKNOWN")
    assert running.nix.argvs == []


def test_unknown_digest(running: Served) -> None:
    """A digest that was never answered is unknown at once."""
    path = f"/v2/packages/hello/manifests/{digest_of(b'never')}"
    answer = running.get(path, ANY_FORM)
    assert (answer.status, answer.error[0]) == (404, "MANIFEST_UNKNOWN")
    assert running.nix.argvs == []


def test_digest_of_another_algorithm(running: Served) -> None:
    """A digest of an algorithm that is not produced here is unknown, not invalid."""
    path = f"/v2/packages/hello/manifests/sha512:{'0' * 128}"
    answer = running.get(path, ANY_FORM)
    assert (answer.status, answer.error[0]) == (404, "MANIFEST_UNKNOWN")
