"""Tests for `forgereg.web.api`: what is the same at every endpoint."""

from __future__ import annotations

from typing import NoReturn

import pytest
from twisted.internet.address import UNIXAddress
from twisted.logger import LogEvent

from forgereg.oci.media import OCI_INDEX
from forgereg.records.records import Records
from tests.client import Connection
from tests.conftest import Log
from tests.doubles import Package
from tests.registry import ANY_FORM, Served, digest_of, files_open_below

LATEST = "/v2/packages/hello/manifests/latest"


@pytest.mark.parametrize("path", ["/v2/", "/v2", "/v2/?ns=docker.io"])
def test_version(running: Served, path: str) -> None:
    """A client that asks whether this is a registry is told so, without nix."""
    answer = running.get(path)
    assert (answer.status, answer.json) == (200, {})
    assert answer["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert running.nix.argvs == []


def test_version_is_not_behind_a_build(served: Served) -> None:
    """While nix is at work, the registry says that it is one."""
    served.nix.pause()
    served.threads.pause()
    served.begin(LATEST)
    assert served.get("/v2/").status == 200


def every_path(served: Served) -> list[str]:
    """Give a path of each endpoint, and some of none."""
    manifest, config, *layers = served.digests("packages/hello")
    return [
        "/v2/",
        "/v2/_catalog",
        "/v2/_catalog?n=1",
        "/v2/packages/hello/tags/list",
        "/v2/packages/hello/tags/list?n=1",
        LATEST,
        f"/v2/packages/hello/manifests/{manifest}",
        f"/v2/packages/hello/blobs/{config}",
        f"/v2/packages/hello/blobs/{layers[0]}",
        f"/v2/packages/hello/referrers/{manifest}",
        f"/v2/packages/hello/referrers/{manifest}?artifactType=x",
        f"/v2/packages/hello/blobs/{digest_of(b'never')}",
        "/v2/packages/hello/manifests/9",
        "/v2/packages/nothing/manifests/latest",
        "/v2/other/manifests/latest",
        "/v2/x",
        "/",
        "/index.html",
    ]


def test_head_is_get_without_a_body(served: Served) -> None:
    """HEAD tells of every path what GET does, byte for byte, but for the body."""
    for path in every_path(served):
        got, headed = served.get(path, ANY_FORM), served.head(path, ANY_FORM)
        assert (headed.status, headed.reason) == (got.status, got.reason), path
        assert headed["Content-Length"] == str(len(got.body)), path
        dated = {"Date", "X-Request-Id"}
        assert {k: v for k, v in headed.headers.items() if k not in dated} == {
            k: v for k, v in got.headers.items() if k not in dated
        }, path


def test_common_headers(served: Served) -> None:
    """Every answer says what it is and who gave it, and cannot be taken for a page."""
    for path in every_path(served):
        answer = served.get(path, ANY_FORM)
        assert answer["Server"] == "forge-registry", path
        assert answer["Docker-Distribution-Api-Version"] == "registry/2.0", path
        assert answer["X-Content-Type-Options"] == "nosniff", path
        assert "html" not in (answer["Content-Type"] or ""), path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/",
        "/v2/x",
        "/v2/packages/hello",
        "/v2/packages/hello/manifests",
        "/v2/packages/hello/manifests/",
        "/v2/packages/hello/manifests/latest/x",
        "/v2/packages/hello/tags",
        "/v2/packages/hello/tags/list/",
        "/v2/packages/hello/blobs/",
        "/v2/packages/hello/blobs/uploads/",
        "/v2/_catalog/",
        "/v2//",
    ],
)
def test_no_endpoint(running: Served, path: str) -> None:
    """Whoever asks for what is at no endpoint reads which endpoints there are."""
    answer = running.get(path)
    assert answer.status == 404
    code, message = answer.error
    assert code == "MANIFEST_UNKNOWN"
    assert "/v2/<name>/manifests/<reference>" in message


DIGEST = digest_of(b"anything")


def test_referrers(running: Served) -> None:
    """Nothing refers to any manifest, and whoever asks is told so without nix."""
    answer = running.get(f"/v2/packages/hello/referrers/{DIGEST}")
    assert (answer.status, answer["Content-Type"]) == (200, OCI_INDEX)
    assert answer.json == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [],
    }
    assert answer["OCI-Filters-Applied"] is None
    assert running.nix.argvs == []


def test_filtered_referrers(running: Served) -> None:
    """A filter that was asked for is said to have been applied."""
    answer = running.get(f"/v2/packages/hello/referrers/{DIGEST}?artifactType=x")
    assert answer["OCI-Filters-Applied"] == "artifactType"


def test_unexpected_failure(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    logged_failures: list[LogEvent],
) -> None:
    """A bug is told by the name of an incident, under which the log says more."""

    def answer(records: Records, locked: str, question: str) -> NoReturn:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Records, "answer", answer)
    refused = served.get(LATEST, ANY_FORM)
    assert refused.status == 500
    assert refused.error == (
        "UNKNOWN",
        "the registry failed; its log has more under"
        f" incident id-2 (request {refused['X-Request-Id']})",
    )
    assert b"secret" not in refused.body
    assert "incident id-2" in log.text
    assert "a secret" in log.text
    assert len(logged_failures) == 1
    logged_failures.clear()


def test_traceback_of_a_failure(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    logged_failures: list[LogEvent],
) -> None:
    """Under the incident the log has the line of the code that failed."""

    def fail_here(*args: object) -> NoReturn:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Records, "answer", fail_here)
    served.get(LATEST, ANY_FORM)
    logged_failures.clear()
    assert "in fail_here" in log.text


def test_incidents_have_names_of_their_own(
    served: Served, monkeypatch: pytest.MonkeyPatch, logged_failures: list[LogEvent]
) -> None:
    """Two failures can be told apart in the log."""

    def resolution(records: Records, flake: str) -> NoReturn:
        raise RuntimeError

    monkeypatch.setattr(Records, "resolution", resolution)
    messages = {served.get(LATEST, ANY_FORM).error[1] for _ in range(2)}
    assert len(messages) == 2
    logged_failures.clear()


def test_unexpected_failure_that_nobody_waits_for(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    logged_failures: list[LogEvent],
) -> None:
    """A bug is in the log even if the client had left by the time."""

    def tagged(*args: object) -> NoReturn:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Records, "tagged", tagged)
    served.nix.pause()
    served.begin(LATEST, ANY_FORM).hang_up()
    served.nix.resume()
    logged_failures.clear()
    assert "a bug" in log.text


def test_listening_on_a_unix_socket(running: Served) -> None:
    """A registry behind a Unix socket answers as any other."""
    connection = Connection.to(running.site, UNIXAddress("/run/forge.sock"))
    connection.ask("GET", LATEST, ANY_FORM)
    assert connection.answer().status == 200


def test_cancelled_request_leaves_nothing_open(served: Served) -> None:
    """A client who leaves before a blob was opened leaves no open file behind."""
    digest = served.digests("packages/hello")[1]
    served.threads.pause()
    client = served.begin(f"/v2/packages/hello/blobs/{digest}")
    client.hang_up()
    served.threads.resume()
    assert not files_open_below(served.state)


def test_package_that_the_flake_lacks_is_no_failure(served: Served, log: Log) -> None:
    """A client's mistake is no more than a line of the access log."""
    served.nix.packages["plain"] = Package()
    assert served.get("/v2/packages/plain/manifests/latest").status == 404
    assert "GET /v2/packages/plain/manifests/latest HTTP/1.1" in log.text


def test_access_log(running: Served, log: Log) -> None:
    """Each answer is a line of the log, in the form that every tool reads."""
    running.get("/v2/")
    line = f'192.0.2.1 - - {running.site._logDateTime} "GET /v2/ HTTP/1.1" 200 2'
    assert line in log.text
