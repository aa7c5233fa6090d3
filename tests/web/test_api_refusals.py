"""Tests for `forgereg.web.api`: what a person reads when a pull fails."""

from __future__ import annotations

import json
from typing import NoReturn

import pytest

from forgereg.nix.process import Exit
from forgereg.oci.errors import DiskFull
from forgereg.oci.media import OCI_MANIFEST
from forgereg.records.records import Records
from tests.client import Answer, Headers, ask
from tests.registry import ANY_FORM, Served, digest_of

LATEST = "/v2/packages/hello/manifests/latest"
NOWHERE = "/v2/packages/helo/manifests/latest"

#: What containerd sends: every type that it reads, and anything else beside them.
CONTAINERD: Headers = [("Accept", f"{OCI_MANIFEST}, application/json, */*")]
CONTAINERD_LINES: Headers = [("Accept", OCI_MANIFEST), ("Accept", "*/*")]
CURL: Headers = [("Accept", "*/*")]


def built(text: str) -> str:
    return "@nix " + json.dumps({"action": "result", "type": 101, "fields": [text]})


def said(text: str) -> str:
    return "@nix " + json.dumps({"action": "msg", "level": 0, "raw_msg": text})


def test_failed_build(served: Served) -> None:
    """Of a build that fails its error and the last lines of its log are told."""
    served.nix.fail("build", built("gcc: not found"), said("builder failed"))
    answer = served.get(LATEST, ANY_FORM)
    assert answer.status == 422
    assert answer.error == (
        "MANIFEST_UNKNOWN",
        "build of packages/hello:latest failed: builder failed\n"
        "last lines of the log:\n> gcc: not found\n"
        "see http://registry.test:6443/-/builds/id-1",
    )


def test_reason_phrase(served: Served) -> None:
    """A client that drops the body prints a reason phrase that says it all."""
    served.nix.fail("build", built("gcc: café"), said("failed"))
    answer = served.get(LATEST, ANY_FORM)
    assert answer.reason == (
        "build of packages/hello:latest failed: failed"
        " last lines of the log: > gcc: caf"
        " see http://registry.test:6443/-/builds/id-1"
    )


def test_long_reason_phrase(served: Served) -> None:
    """However much went wrong, the page that tells all of it is named."""
    served.nix.fail("build", said("it is " + "so " * 200 + "broken"))
    proxied = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "forge.test")]
    served.get(LATEST, ANY_FORM)
    for _ in range(2):  # what is remembered names the build that failed
        answer = ask(
            served.site, "GET", LATEST, [*ANY_FORM, *proxied], address="127.0.0.1"
        )
        assert answer.reason.endswith("so... see https://forge.test/-/builds/id-1")
        assert len(answer.reason) <= 240


def test_failed_evaluation(served: Served) -> None:
    """Of a flake that cannot be evaluated nix's message is told."""
    served.nix.fail("eval", said("attribute 'x' missing"))
    answer = served.get(LATEST, ANY_FORM)
    assert answer.status == 422
    assert "evaluation of packages/hello:latest failed: attribute 'x'" in answer.reason


def test_unreachable_flake(served: Served) -> None:
    """Of a flake that cannot be fetched nix's message is told."""
    served.nix.fail("metadata", said("unable to download"))
    answer = served.get(LATEST, ANY_FORM)
    assert answer.status == 422
    assert "flake github:acme/forge failed: unable to download" in answer.reason


def test_timeout(served: Served) -> None:
    """Of a build that takes too long the limit and the last lines are told."""
    exit = Exit(None, timed_out=True)
    served.nix.fail("build", built("still compiling"), exit=exit)
    answer = served.get(LATEST, ANY_FORM)
    assert answer.status == 422
    assert "timed out after 3600 s (NIX_BUILD_TIMEOUT)" in answer.reason
    assert "> still compiling\nsee http" in answer.error[1]


def test_full_disk_of_nix(served: Served) -> None:
    """A build that finds no room is not the flake's fault."""
    served.nix.fail("build", said("write: No space left on device"))
    answer = served.get(LATEST, ANY_FORM)
    assert (answer.status, answer.error[0]) == (507, "UNKNOWN")
    assert "the disk is full" in answer.reason


def test_full_disk_of_the_registry(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that find no room are not the flake's fault either."""

    def remember(*of: object) -> NoReturn:
        raise DiskFull("there is no room for what is remembered")

    monkeypatch.setattr(Records, "remember_image", remember)
    answer = served.get(LATEST, ANY_FORM)
    assert (answer.status, answer.error[0]) == (507, "UNKNOWN")
    assert "there is no room" in answer.reason


def test_shutting_down(served: Served) -> None:
    """Whoever waits while the registry stops is told to pull again."""
    served.nix.fail("build", exit=Exit(None, stopped=True))
    answer = served.get(LATEST, ANY_FORM)
    assert (answer.status, answer.error[0]) == (503, "UNKNOWN")
    assert answer.reason == "the registry is shutting down; pull again"


def test_archive_that_is_none(served: Served) -> None:
    """Of an output that is no image it is told what it is."""
    path = served.nix.packages["hello"].outputs["image"].path
    served.pull("packages/hello")
    served.store.write(path, b"#!/bin/sh\n")
    for blob in (served.state / "blobs").rglob("*/*/*"):
        blob.unlink()
    digest = served.get(LATEST, ANY_FORM).json["config"]["digest"]
    answer = served.get(f"/v2/packages/hello/blobs/{digest}")
    assert (answer.status, answer.error[0]) == (422, "MANIFEST_UNKNOWN")
    assert "an executable script" in answer.reason


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("library/nginx", "packages/<package> and applications/<application>/<image>"),
        ("nginx", "packages/<package> and applications/<application>/<image>"),
        ("packages/helo", "did you mean hello?"),
        ("applications/hello/web", "it is a package: pull packages/hello"),
        ("applications/hello", "applications/hello/<image>"),
    ],
)
def test_wrong_names(running: Served, name: str, message: str) -> None:
    """Whoever pulls a wrong name reads which one is right."""
    answer = running.get(f"/v2/{name}/manifests/latest", ANY_FORM)
    assert (answer.status, answer.error[0]) == (404, "NAME_UNKNOWN")
    assert message in answer.error[1]
    assert message in answer.reason


def test_refusals_are_not_cached(served: Served) -> None:
    """No cache keeps an error when the image can be built by now."""
    served.nix.fail("build", "error: broken")
    answer = served.get(LATEST, ANY_FORM)
    for header in ("ETag", "Docker-Content-Digest", "Cache-Control"):
        assert answer[header] is None


def follow(served: Served, path: str, headers: Headers) -> Answer:
    """Do as containerd: ask for the digest with HEAD, then GET that digest."""
    told = served.head(path, headers)
    assert told.status == 200
    digest = told["Docker-Content-Digest"]
    repository = path.rpartition("/")[0]
    got = served.get(f"{repository}/{digest}", headers)
    assert told["Content-Length"] == str(len(got.body))
    assert told["Content-Type"] == OCI_MANIFEST
    assert digest == digest_of(got.body)
    return got


@pytest.mark.parametrize("headers", [CONTAINERD, CONTAINERD_LINES])
def test_containerd_shows_why(running: Served, headers: Headers) -> None:
    """containerd, which drops what HEAD says, finds the message behind a digest."""
    got = follow(running, NOWHERE, headers)
    assert (got.status, got.error[0]) == (422, "NAME_UNKNOWN")
    assert got.body == running.get(NOWHERE, ANY_FORM).body
    assert "did you mean hello?" in got.reason


def test_containerd_shows_why_a_build_failed(served: Served) -> None:
    """containerd shows the last lines of a failed build."""
    served.nix.fail("build", built("gcc: not found"), said("builder failed"))
    got = follow(served, LATEST, CONTAINERD)
    assert got.status == 422
    assert "> gcc: not found" in got.error[1]


def test_containerd_pulls(running: Served) -> None:
    """containerd gets the digest of the image where there is one."""
    answer = running.head(LATEST, CONTAINERD)
    assert answer.status == 200
    got = running.get(
        f"/v2/packages/hello/manifests/{answer['Docker-Content-Digest']}", CONTAINERD
    )
    assert got.json["mediaType"] == OCI_MANIFEST


def test_tombstones_of_any_name(running: Served) -> None:
    """A document is found under any name, since its digest says it all."""
    digest = running.head(NOWHERE, CONTAINERD)["Docker-Content-Digest"]
    answer = running.get(f"/v2/packages/hello/manifests/{digest}", CONTAINERD)
    assert answer.status == 422


def test_tombstones_do_not_last(served: Served) -> None:
    """An error of an hour ago is not told any more."""
    digest = served.head(NOWHERE, CONTAINERD)["Docker-Content-Digest"]
    served.clock.advance(3600.0)
    answer = served.get(f"/v2/packages/helo/manifests/{digest}", CONTAINERD)
    assert answer.status == 404


@pytest.mark.parametrize("headers", [CURL, ANY_FORM, ()])
def test_others_are_told_the_status(running: Served, headers: Headers) -> None:
    """curl, podman and all the others are told of a HEAD that fails what GET says."""
    answer = running.head(NOWHERE, headers)
    assert answer.status == 404
    assert answer["Docker-Content-Digest"] is None
    assert "did you mean hello?" in answer.reason


def test_get_of_containerd(running: Served) -> None:
    """A GET that fails says so, and containerd finds the reason by its digest, too."""
    answer = running.get(NOWHERE, CONTAINERD)
    assert (answer.status, answer["Content-Type"]) == (404, OCI_MANIFEST)
    assert answer["Docker-Content-Digest"] is None
    digest = digest_of(answer.body)
    found = running.get(f"/v2/packages/helo/manifests/{digest}", CONTAINERD)
    assert (found.status, found.body) == (422, answer.body)
    assert found.error[0] == "NAME_UNKNOWN"


def test_digests_have_no_tombstones(running: Served) -> None:
    """A digest that is unknown is said to be, whoever asks."""
    path = f"/v2/packages/hello/manifests/{digest_of(b'never')}"
    assert running.head(path, CONTAINERD).status == 404


def test_unnameable_images_have_no_tombstones(running: Served) -> None:
    """A name that no image can have is refused, whoever asks."""
    assert running.head("/v2/UPPER/manifests/latest", CONTAINERD).status == 400


def test_signatures_of_containerd(running: Served) -> None:
    """containerd, too, is told that there are no signatures."""
    path = f"/v2/packages/hello/manifests/sha256-{'0' * 64}.sig"
    assert running.head(path, CONTAINERD).status == 404
    assert running.nix.argvs == []
