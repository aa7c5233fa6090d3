"""Tests for `forgereg.web.control`: watching and steering builds by HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from forgereg.flow.report import State
from forgereg.oci.errors import TooManyBuilds
from forgereg.web.control import MAX_BODY
from forgereg.web.site import RegistrySite, Room
from tests.client import Answer, Connection, Headers, ask
from tests.registry import Served
from tests.works import FAILED, RUNNING, Controlled

BUILDS = "/-/api/builds"


@pytest.fixture
def control() -> Controlled:
    """Builds that are played: one that runs, and one that failed."""
    return Controlled()


@pytest.fixture
def site(running: Served, control: Controlled) -> RegistrySite:
    """A registry whose builds can be steered."""
    site = RegistrySite(running.api, {b"-/api": Room(control.resource, MAX_BODY)})
    site.reactor = Clock()
    return site


def post(site: RegistrySite, path: str, value: Any, headers: Headers = ()) -> Answer:
    """Send JSON."""
    return ask(site, "POST", path, headers, json.dumps(value).encode())


def ids(answer: Answer) -> list[str]:
    """Name the builds of a list."""
    return [build["id"] for build in answer.json["builds"]]


def test_list(site: RegistrySite) -> None:
    """Whoever asks sees what is being built, and how far it has come."""
    answer = ask(site, "GET", BUILDS)
    assert (answer.status, answer["Content-Type"]) == (200, "application/json")
    assert answer["Cache-Control"] == "no-store"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer.json["may_change"] is True
    running, failed = answer.json["builds"]
    assert running == {
        "id": "b2",
        "image": "packages/hello:latest",
        "state": "building",
        "asked_by": ["192.0.2.1", "192.0.2.2"],
        "asked_at": "2023-11-14T22:13:20.000Z",
        "started_at": "2023-11-14T22:13:21.500Z",
        "finished_at": None,
        "duration_seconds": None,
        "locked": RUNNING.locked,
        "derivation": "/nix/store/0-hello.drv",
        "progress": {
            "done": 3,
            "expected": 10,
            "running": 2,
            "failed": 0,
            "fetched_bytes": 2**20,
            "fetch_bytes": 2**22,
            "building": "hello-2.12",
            "phase": "buildPhase",
        },
        "error": None,
        "log": "/-/api/builds/b2/log",
    }
    assert failed["duration_seconds"] == 60.0
    assert failed["error"] == "builder for 'broken' failed"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("limit=1", ["b2"]),
        ("state=failed", ["b1"]),
        ("state=failed&limit=1", ["b1"]),
        ("state=failed,building", ["b2", "b1"]),
        ("state=failed&state=building", ["b2", "b1"]),
        ("state=done", []),
        ("state=", ["b2", "b1"]),
        ("colour=red", ["b2", "b1"]),
    ],
)
def test_choosing(site: RegistrySite, query: str, found: list[str]) -> None:
    """A list can be cut short, and limited to some states."""
    assert ids(ask(site, "GET", f"{BUILDS}?{query}")) == found


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=%FF", "limit=" + "9" * 5000]
    + ["state=asleep", "state=failed,%FF"],
)
def test_nonsense_in_a_query(site: RegistrySite, query: str) -> None:
    """A list that makes no sense is refused, and the message says why."""
    answer = ask(site, "GET", f"{BUILDS}?{query}")
    assert (answer.status, answer.error[0]) == (400, "UNSUPPORTED")
    assert len(answer.error[1]) < 300


def test_one_build(site: RegistrySite) -> None:
    """A build can be looked at alone, by its id."""
    assert ask(site, "GET", f"{BUILDS}/b1").json["image"] == FAILED.image
    assert ask(site, "HEAD", f"{BUILDS}/b1").status == 200
    assert ask(site, "GET", f"{BUILDS}/b9").error[0] == "UNKNOWN"


def test_log(site: RegistrySite, control: Controlled) -> None:
    """A log is read piece by piece, each from where the last one ended."""
    control.works.logs["b2"] = b"unpacking\nbuilding \xff\n"
    answer = ask(site, "GET", f"{BUILDS}/b2/log?offset=10")
    assert answer.body == b"building \xff\n"
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert (answer["X-Log-Offset"], answer["X-Build-State"]) == ("21", "building")
    answer = ask(site, "GET", f"{BUILDS}/b2/log?offset=21")
    assert (answer.body, answer["X-Log-Offset"]) == (b"", "21")


def test_long_log(site: RegistrySite, control: Controlled) -> None:
    """No answer has more than a mebibyte of log, whatever its length."""
    control.works.logs["b2"] = bytes(3 * 2**20)
    answer = ask(site, "GET", f"{BUILDS}/b2/log")
    assert (len(answer.body), answer["X-Log-Offset"]) == (2**20, str(2**20))


@pytest.mark.parametrize("offset", ["-1", "x", "1e3", "%31%00", "9" * 16])
def test_nonsense_for_an_offset(site: RegistrySite, offset: str) -> None:
    """A log is read from a number of bytes, and from nothing else."""
    answer = ask(site, "GET", f"{BUILDS}/b2/log?offset={offset}")
    assert (answer.status, answer.error[0]) == (400, "UNSUPPORTED")


@pytest.mark.parametrize("image", ["packages/hello:latest", "packages/hello"])
def test_start(site: RegistrySite, control: Controlled, image: str) -> None:
    """An image is built before anybody pulls it; without a tag it is the latest."""
    answer = post(site, BUILDS, {"image": image})
    assert (answer.status, answer["Location"]) == (202, f"{BUILDS}/b2")
    assert answer.json["id"] == "b2"
    assert control.works.asked == [("start", "packages/hello:latest", "192.0.2.1")]


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ("packages/none", "NAME_UNKNOWN"),
        ("", "NAME_INVALID"),
        ("Packages/hello", "NAME_INVALID"),
        ("../hello:latest", "NAME_INVALID"),
        ("packages/hello@sha256:0", "UNSUPPORTED"),
        ("packages/hello:a:b", "UNSUPPORTED"),
        ("packages/hello:-", "UNSUPPORTED"),
        ("\ud800", "NAME_INVALID"),
    ],
)
def test_images_that_are_none(site: RegistrySite, image: str, code: str) -> None:
    """Whoever mistypes an image reads what is wrong with it."""
    answer = post(site, BUILDS, {"image": image})
    assert answer.status in (400, 404)
    assert answer.error[0] == code


def test_cancel(site: RegistrySite, control: Controlled) -> None:
    """A build that runs can be ended, and one that has ended cannot."""
    assert ask(site, "POST", f"{BUILDS}/b2/cancel").json["state"] == "cancelled"
    assert ask(site, "POST", f"{BUILDS}/b1/cancel", (), b"{}").status == 409
    assert ask(site, "POST", f"{BUILDS}/b9/cancel").status == 404
    assert control.works.asked == [("cancel", "b2")]


def test_retry(site: RegistrySite, control: Controlled) -> None:
    """A build that failed is tried again, under an id of its own."""
    answer = ask(site, "POST", f"{BUILDS}/b1/retry")
    assert (answer.status, answer["Location"]) == (202, f"{BUILDS}/b3")
    assert control.works.asked == [("retry", "b1", "192.0.2.1")]


@pytest.mark.parametrize("dry_run", [True, False])
def test_sweep(site: RegistrySite, control: Controlled, dry_run: bool) -> None:
    """Who sweeps reads what was let go of, or would be."""
    answer = post(site, "/-/api/sweep", {"dry_run": dry_run})
    assert answer.json == {
        "images": [
            {
                "names": ["packages/old:latest"],
                "bytes": 50 * 2**20,
                "last_pulled": None,
                "reason": "never pulled",
            }
        ],
        "blobs": 3,
        "freed_bytes": 50 * 2**20,
        "kept_bytes": 2**30,
        "dry_run": dry_run,
    }
    assert control.works.asked == [("sweep", dry_run)]


CHANGES = [BUILDS, f"{BUILDS}/b2/cancel", f"{BUILDS}/b9/retry", "/-/api/sweep"]


@pytest.mark.parametrize("path", CHANGES)
def test_who_may_not(site: RegistrySite, control: Controlled, path: str) -> None:
    """Who has no right to change anything learns just that, whatever was sent."""
    control.token = "secret"
    for body in (b"", b"{", b'{"dry_run": false}', bytes(MAX_BODY + 1)):
        answer = ask(site, "POST", path, (), body)
        assert (answer.status, answer.error[0]) == (403, "DENIED")
    assert control.works.asked == []


def test_who_may_only_look(site: RegistrySite, control: Controlled) -> None:
    """Reading is open to everyone, and says who may change things."""
    control.token = "secret"
    answer = ask(site, "GET", BUILDS)
    assert (answer.status, answer.json["may_change"]) == (200, False)
    token = [("Authorization", "Bearer secret")]
    assert ask(site, "GET", BUILDS, token).json["may_change"] is True


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"image"',
        b"{}",
        b'{"image": null}',
        b'{"image": 1}',
        b'{"image": ["packages/hello"]}',
        b'{"image": "packages/hello", "tag": "latest"}',
        b'{"Image": "packages/hello"}',
        b"\xff\xfe",
        b"9" * 60_000,
        b"[" * MAX_BODY,
        b"image=packages/hello",
    ],
)
@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data; boundary=x", ";;"]
)
def test_nonsense_in_a_body(
    site: RegistrySite, control: Controlled, body: bytes, kind: str
) -> None:
    """What is no request is refused, and changes nothing."""
    answer = ask(site, "POST", BUILDS, [("Content-Type", kind)], body)
    assert (answer.status, answer.error[0]) == (400, "UNSUPPORTED")
    assert control.works.asked == []


@pytest.mark.parametrize("dry_run", [None, 0, 1, "false", []])
def test_sweeping_by_mistake(
    site: RegistrySite, control: Controlled, dry_run: object
) -> None:
    """Nothing is swept unless it was said in so many words whether it is to be."""
    assert post(site, "/-/api/sweep", {"dry_run": dry_run}).status == 400
    assert control.works.asked == []


@given(body=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body(site: RegistrySite, body: bytes) -> None:
    """Whatever is sent, there is an answer."""
    for path in CHANGES:
        ask(site, "POST", path, (), body).check()


@pytest.mark.parametrize("size", [MAX_BODY, MAX_BODY + 1, 50 * MAX_BODY])
def test_huge_bodies(site: RegistrySite, size: int) -> None:
    """More than 64 KiB are refused, told beforehand or not, and not kept."""
    status = 202 if size == MAX_BODY else 413
    body = b'{"image": "packages/hello"}'.ljust(size)
    assert ask(site, "POST", BUILDS, (), body).status == status
    connection = Connection.to(site)
    connection.ask("POST", BUILDS, [("Transfer-Encoding", "chunked")])
    connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, body))
    assert connection.answer().status == status


def test_asking_before_sending(site: RegistrySite) -> None:
    """A client that waits for leave to send its body is given it, and heard."""
    connection = Connection.to(site)
    body = b'{"image": "packages/hello"}'
    headers = [("Expect", "100-continue"), ("Content-Length", str(len(body)))]
    connection.ask("POST", BUILDS, headers)
    assert connection.wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(body[:5])
    connection.send(body[5:])
    assert connection.answer().status == 202


def test_rooms_that_want_no_body(running: Served, control: Controlled) -> None:
    """What nobody wants to read is not kept."""
    site = RegistrySite(running.api, {b"-/api": Room(control.resource)})
    site.reactor = Clock()
    assert post(site, BUILDS, {"image": "packages/hello"}).status == 400


def test_whole_url(site: RegistrySite, control: Controlled) -> None:
    """A client that asks for a whole URL, as it would ask a proxy, is heard as well."""
    answer = post(site, f"http://registry.test{BUILDS}", {"image": "packages/hello"})
    assert answer.status == 202


def test_one_request_after_another(site: RegistrySite, control: Controlled) -> None:
    """What was sent with one request is not taken for the next one's."""
    connection = Connection.to(site)
    connection.ask("POST", BUILDS, (), b'{"image": "packages/hello"}')
    connection.ask("POST", BUILDS)
    connection.ask("POST", "/v2/", (), b'{"image": "packages/hello"}')
    connection.ask("GET", BUILDS, (), b'{"image": "packages/hello"}')
    assert [each.status for each in connection.answers()] == [202, 400, 405, 200]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", BUILDS, "GET, HEAD, POST"),
        ("OPTIONS", BUILDS, "GET, HEAD, POST"),
        ("POST", f"{BUILDS}/b2", "GET, HEAD"),
        ("PUT", f"{BUILDS}/b2/log", "GET, HEAD"),
        ("GET", f"{BUILDS}/b2/cancel", "POST"),
        ("GET", "/-/api/sweep", "POST"),
    ],
)
def test_wrong_methods(site: RegistrySite, method: str, path: str, allow: str) -> None:
    """Whoever takes the wrong method is told which one is right."""
    answer = ask(site, method, path)
    assert (answer.status, answer["Allow"]) == (405, allow)
    assert answer.error[0] == "UNSUPPORTED"


@pytest.mark.parametrize(
    "path",
    ["/-/api", "/-/api/", "/-/api/x", f"{BUILDS}/", f"{BUILDS}/a/b", f"{BUILDS}//log"]
    + ["/-/api//builds", "/-/api/builds/b2/log/"],
)
def test_nothing_there(site: RegistrySite, path: str) -> None:
    """A path that is none leads to the description of those that there are."""
    answer = ask(site, "GET", path)
    assert (answer.status, answer.error[0]) == (404, "UNSUPPORTED")
    assert "/-/api/openapi.json" in answer.error[1]


def test_other_paths(site: RegistrySite) -> None:
    """All else is as it was: nothing can be pushed, and garbage is refused."""
    for path in ("/v2/", "/-/other", "/-/", "/-", "/-api/builds", "/x/-/api/builds"):
        answer = post(site, path, {"image": "packages/hello"})
        assert (answer.status, answer["Allow"]) == (405, "GET, HEAD")
    assert ask(site, "GET", "/v2/").status == 200
    assert ask(site, "GET", "/-/other").status == 404
    assert ask(site, "GET", "/-/api/%FF").status == 400


def test_a_bug(
    site: RegistrySite, control: Controlled, logged_failures: list[LogEvent]
) -> None:
    """A bug is answered with the number under which the log has more."""
    control.works.error = ZeroDivisionError("/secret/path")
    answer = ask(site, "GET", BUILDS)
    assert (answer.status, answer.error[0]) == (500, "UNKNOWN")
    assert "incident f00" in answer.error[1] and "secret" not in answer.error[1]
    assert logged_failures.pop()["incident"] == "f00"


def test_full_queue(site: RegistrySite, control: Controlled) -> None:
    """Who is turned away because too many wait reads when to come again."""
    control.works.error = TooManyBuilds("too many wait")
    answer = ask(site, "GET", BUILDS)
    assert (answer.status, answer["Retry-After"]) == (429, "60")
    assert answer["Cache-Control"] == "no-store"


def test_every_state_can_be_chosen(site: RegistrySite) -> None:
    """Each state that a build can be in can be asked for."""
    for state in State:
        assert ask(site, "GET", f"{BUILDS}?state={state.value}").status == 200
