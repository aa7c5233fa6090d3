"""Tests for `forgereg.web.api`: how names and digests may be written."""

from __future__ import annotations

import pytest

from tests.registry import ANY_FORM, Served, digest_of

LATEST = "/v2/packages/hello/manifests/latest"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "packages//hello",
        "/packages/hello",
        "Packages/Hello",
        "packages/hello..x",
        "packages/-hello",
        "..",
        "packages/../packages/hello",
        "packages/hello%20x",
        "packages/%00",
        "packages/h%C3%A9llo",
        "packages/hello%2F",
    ],
)
@pytest.mark.parametrize(
    "rest",
    [
        "manifests/latest",
        "tags/list",
        f"blobs/{digest_of(b'')}",
        f"referrers/{digest_of(b'')}",
    ],
)
def test_invalid_names(running: Served, name: str, rest: str) -> None:
    """A name that no repository can have is refused as such, at every endpoint."""
    answer = running.get(f"/v2/{name}/{rest}")
    assert (answer.status, answer.error[0]) == (400, "NAME_INVALID")
    assert running.nix.argvs == []


@pytest.mark.parametrize(
    "name", ["packages/hello%0A", "%0Apackages/hello", "pack%0Aages/hello"]
)
def test_line_ends_in_names(running: Served, name: str) -> None:
    """A line end in a name is as invalid as anything else."""
    answer = running.get(f"/v2/{name}/manifests/latest")
    assert (answer.status, answer.error[0]) == (400, "NAME_INVALID")


def test_long_names(served: Served) -> None:
    """A name that is longer than the setting allows is refused, with the limit."""
    served.set(max_image_name_length=20)
    served.restart()
    fits = "packages/" + "x" * 11
    assert served.get(f"/v2/{fits}/manifests/latest").status == 404
    answer = served.get(f"/v2/{fits}x/manifests/latest")
    assert (answer.status, answer.error[0]) == (400, "NAME_INVALID")
    assert "20 are allowed" in answer.error[1]


def test_percent_encoded_slashes(running: Served) -> None:
    """A client that encodes the slashes of a name gets the same image."""
    plain = running.get(LATEST, ANY_FORM)
    assert plain.status == 200
    encoded = running.get("/v2/packages%2Fhello/manifests/latest", ANY_FORM)
    assert encoded.body == plain.body
    encoded = running.get("/v2/packages%2fhello%2Fmanifests/l%61test", ANY_FORM)
    assert encoded.body == plain.body


@pytest.mark.parametrize(
    "path", ["/v2/%FF", "/%C3", "/v2/packages/%ED%A0%80/tags/list"]
)
def test_paths_that_are_not_text(running: Served, path: str) -> None:
    """A path that is not UTF-8 is refused as such."""
    answer = running.get(path)
    assert (answer.status, answer.error[0]) == (400, "NAME_INVALID")
    assert "UTF-8" in answer.error[1]


def test_namespace_of_a_mirror(running: Served) -> None:
    """A client that uses the registry as a mirror says of what, and is running."""
    answer = running.get(f"{LATEST}?ns=docker.io", ANY_FORM)
    assert answer.body == running.get(LATEST, ANY_FORM).body


def test_leading_double_slash(running: Served) -> None:
    """A client whose base address ends in a slash of its own is running."""
    assert running.get(f"/{LATEST}", ANY_FORM).status == 200


@pytest.mark.parametrize(
    "digest",
    [
        "latest",
        "sha256:",
        "sha256:abc",
        f"sha256:{'A' * 64}",
        f"sha256:{'a' * 65}",
        f"md5:{'a' * 32}",
        ":",
        f"sha256:{'a' * 64}%0A",
    ],
)
@pytest.mark.parametrize("endpoint", ["referrers", "blobs", "manifests"])
def test_invalid_digests(running: Served, endpoint: str, digest: str) -> None:
    """What is no digest is refused as such."""
    if endpoint == "manifests" and ":" not in digest:
        return
    answer = running.get(f"/v2/packages/hello/{endpoint}/{digest}")
    assert (answer.status, answer.error[0]) == (400, "DIGEST_INVALID")
    assert running.nix.argvs == []
