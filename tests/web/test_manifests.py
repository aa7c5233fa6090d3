"""Tests for `forgereg.web.manifests`: what each gets while an image is being built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest
from twisted.logger import LogEvent

from forgereg.nix.process import Exit
from forgereg.oci.manifest import PAD
from forgereg.oci.media import DOCKER_MANIFEST, MANIFESTS, OCI_MANIFEST
from forgereg.records.records import Records
from tests.archives import Recipe, layer, zst
from tests.client import Answer, Connection, Headers
from tests.registry import ANY_FORM, Served, digest_of

NAME = "/v2/packages/hello"
LATEST = f"{NAME}/manifests/latest"
CONTAINERD: Headers = [("Accept", f"{', '.join(MANIFESTS)}, */*")]
FETCH: Headers = [("Accept", f"{OCI_MANIFEST}, */*")]
CURL: Headers = [("Accept", "*/*")]
OTHERS = [ANY_FORM, CURL, ()]
TIMEOUT = 86400.0


@pytest.fixture(autouse=True)
def paused(served: Served) -> Iterator[None]:
    """Have nix build for as long as a test wants, and leave no timers behind."""
    served.set(nix_build_timeout=TIMEOUT)
    served.nix.pause()
    yield
    served.nix.mend()
    served.nix.finish()
    assert timers(served) == []


#: What a registry has to do by the clock though nobody waits.
IDLE = ("_updateLogDateTime", "PullLog", "TimeoutMixin", "forceAbortClient")


def timers(served: Served) -> list[str]:
    """Name what the clock is to do for whoever waits."""
    calls = [str(call) for call in served.clock.getDelayedCalls()]
    return [call for call in calls if not any(idle in call for idle in IDLE)]


def begin(served: Served, method: str = "GET", headers: Headers = CONTAINERD) -> Client:
    return Client(served, method, headers)


class Client:
    """A client that leaves at the end."""

    def __init__(self, served: Served, method: str, headers: Headers) -> None:
        self.served = served
        self.connection: Connection = served.connect()
        self.connection.ask(method, LATEST, headers)

    def __enter__(self) -> Connection:
        return self.connection

    def __exit__(self, *error: object) -> None:
        self.connection.hang_up()


def wait(served: Served, seconds: float) -> None:
    """Let time pass, a second after the other."""
    served.clock.pump([1.0] * int(seconds))


def by_digest(served: Served, digest: str) -> Answer:
    return served.get(f"{NAME}/manifests/{digest}", FETCH)


def told_to_others(served: Served) -> str:
    digest = served.head(LATEST, ANY_FORM)["Docker-Content-Digest"]
    assert digest is not None
    return digest


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_soon_enough_for_containerd(served: Served, method: str) -> None:
    """containerd gets the true answer if the build takes less than 20 seconds."""
    with begin(served, method) as client:
        wait(served, 19)
        assert client.silent
        served.nix.finish()
        answer = client.answer()
        assert answer.status == 200
        assert answer["Docker-Content-Digest"] == told_to_others(served)
        assert int(answer["Content-Length"] or 0) > len(PAD)


def test_early_head(served: Served) -> None:
    """HEAD of containerd is answered after 20 s with neither digest nor length."""
    with begin(served, "HEAD") as client:
        wait(served, 20)
        answer = client.answer()
        assert (answer.status, answer["Content-Type"]) == (200, OCI_MANIFEST)
        for name in ("Docker-Content-Digest", "Content-Length", "ETag"):
            assert answer[name] is None
        assert answer["Cache-Control"] == "no-store"
        client.ask("GET", "/v2/")
        assert client.answer().status == 200
    served.nix.finish()
    assert served.nix.count("build") == 1


@pytest.mark.parametrize("minutes", [0.75, 1.7, 6, 12, 180])
def test_early_body(served: Served, minutes: float) -> None:
    """containerd reads the manifest that others do, however long its build takes."""
    with begin(served) as client:
        wait(served, 20)
        early = client.begun()
        assert (early.status, early["Content-Type"]) == (200, OCI_MANIFEST)
        assert early["Docker-Content-Digest"] is None
        assert early["X-Accel-Buffering"] == "no"
        assert early.body == b""
        wait(served, minutes * 60 - 20)
        spaces = min(len(PAD), int((minutes * 60 - 20) // 25))
        assert client.begun().body == b" " * spaces
        served.nix.finish()
        body = client.answer().body
    assert digest_of(body) == told_to_others(served)
    again = by_digest(served, digest_of(body))
    assert (again.status, again.body) == (200, body)
    assert again["Content-Length"] == str(len(body))
    assert served.nix.count("build") == 1


def test_spaces_are_far_apart(served: Served) -> None:
    """A space comes each 25 s, neither sooner nor later, and never more than the pad."""
    with begin(served) as client:
        wait(served, 20)
        came = []
        written = 0
        for second in range(2 * 3600):
            wait(served, 1)
            now = len(client.begun().body)
            came += [second + 1] * (now - written)
            written = now
        assert came == [25 * (number + 1) for number in range(len(PAD))]


@pytest.mark.parametrize("spaces", [0, 3])
def test_failure_after_the_header(served: Served, spaces: int) -> None:
    """containerd, which read an error instead, finds the reason by its digest."""
    with begin(served) as client:
        wait(served, 20 + 25 * spaces)
        served.nix.fail("build", "error: gcc not found")
        served.nix.finish()
        answer = client.answer()
    assert answer.status == 200
    assert answer.body.startswith(b" " * spaces + b"{")
    assert "gcc not found" in answer.error[1]
    for wait_seconds in (0, 599):
        served.clock.advance(wait_seconds)
        refused = by_digest(served, digest_of(answer.body))
        assert (refused.status, refused.error) == (422, answer.error)
        assert "gcc not found" in refused.reason
    served.clock.advance(2)
    assert by_digest(served, digest_of(answer.body)).status == 404


def test_failure_before_the_header(served: Served) -> None:
    """Of a build that fails soon containerd reads as of any other error."""
    served.nix.fail("build", "error: gcc not found")
    with begin(served) as client, begin(served, "HEAD") as header:
        wait(served, 19)
        served.nix.finish()
        got, headed = client.answer(), header.answer()
    assert (got.status, headed.status) == (422, 200)
    assert headed["Docker-Content-Digest"] == digest_of(got.body)
    assert by_digest(served, digest_of(got.body)).status == 422


def test_another_form_than_was_said(served: Served) -> None:
    """A client that was promised a form that cannot be is told to pull again."""
    recipe = Recipe((layer("zstd", zst),))
    served.nix.packages["hello"] = served.store.package(None, recipe, name="hello")
    accept = f"{DOCKER_MANIFEST}, {OCI_MANIFEST};q=0.5, */*;q=0.1"
    with begin(served, "GET", [("Accept", accept)]) as client:
        wait(served, 20)
        assert client.begun()["Content-Type"] == DOCKER_MANIFEST
        served.nix.finish()
        answer = client.answer()
    assert "pull again" in answer.json["errors"][0]["message"]
    assert by_digest(served, digest_of(answer.body)).status == 422


@pytest.mark.parametrize("headers", OTHERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_others_wait(served: Served, headers: Headers, method: str) -> None:
    """docker, podman and curl are kept in silence for as long as it takes."""
    with begin(served, method, headers) as client:
        wait(served, 3 * 3600)
        assert client.silent
        served.nix.finish()
        answer = client.answer()
        assert answer["Docker-Content-Digest"] == told_to_others(served)


@pytest.mark.parametrize("headers", OTHERS)
def test_longest_hold(served: Served, headers: Headers) -> None:
    """Who may wait no longer reads how the build stands; it goes on, and is joined."""
    served.set(max_hold=240.0)
    with begin(served, "GET", headers) as client:
        served.nix.step()
        served.nix.step()
        wait(served, 239)
        assert client.silent
        wait(served, 1)
        answer = client.answer()
        assert (answer.status, answer.error[0]) == (429, "TOOMANYREQUESTS")
        assert answer["Retry-After"] == "60"
        assert "packages/hello:latest is still building, after 4 min" in answer.reason
        page = answer.error[1].rpartition("see http://registry.test:6443")[2]
        assert page == "/-/builds/id-1"
        assert answer.reason.endswith(page)
        client.ask("GET", LATEST, headers)
        served.nix.finish()
        assert client.answer().status == 200
    assert served.nix.count("build") == 1


def test_longest_hold_of_containerd(served: Served) -> None:
    """containerd, too, reads how the build stands when it may wait no longer."""
    served.set(max_hold=240.0)
    with begin(served) as client:
        wait(served, 219)
        client.begun()
        wait(served, 1)
        answer = client.answer()
        assert answer.body.startswith(b" " * 7 + b"{")
        assert "packages/hello:latest is" in answer.error[1]
        assert "pull again in a minute" in answer.error[1]
    assert by_digest(served, digest_of(answer.body)).error == answer.error
    served.set(max_hold=10.0)
    with begin(served, "HEAD") as client:
        wait(served, 10)
        digest = client.answer()["Docker-Content-Digest"]
    assert digest is not None
    refused = by_digest(served, digest)
    assert refused.status == 422 and "pull again in a minute" in refused.error[1]
    with begin(served) as client:
        wait(served, 1)
        assert client.answer().error[0] == "TOOMANYREQUESTS"


def redirected(
    served: Served, target: str, seconds: float = 50, headers: Headers = ANY_FORM
) -> str:
    """Ask, and give where the registry sends on to."""
    client = served.begin(target, headers)
    wait(served, seconds)
    answer = client.answer()
    client.hang_up()
    assert (answer.status, answer.body) == (307, b""), answer.body
    location = answer["Location"]
    assert location is not None
    return location


def test_redirects(served: Served) -> None:
    """Behind a proxy a client is sent round nine times, and then waits in silence."""
    served.set(redirect_hold=50.0)
    target = LATEST
    for hop in range(1, 10):
        target = redirected(served, target)
        assert target == f"{LATEST}?hop={hop}"
    client = served.begin(target, ANY_FORM)
    wait(served, 50)
    assert client.answer().status == 429
    client.ask("GET", target, ANY_FORM)
    served.nix.finish()
    assert client.answer().status == 200
    client.hang_up()
    assert served.nix.count("build") == 1


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("?ns=docker.io&x", "?ns=docker.io&x&hop=1"),
        ("?", "?hop=1"),
        ("?hop=", "?hop=1"),
        ("?hop=-3", "?hop=1"),
        ("?hop=%B2", "?hop=1"),
        ("?hop=3&a=%20%0d%0a&hop=1", "?a=%20%0d%0a&hop=2"),
        ("?%68op=3", "?%68op=3&hop=4"),
        ("?%68op=3&hop=8", "?%68op=3&hop=9"),
        (f"?hop={'9' * 5000}", "?hop=1"),
    ],
)
def test_queries_of_redirects(served: Served, target: str, location: str) -> None:
    """A client comes back with what it asked for, and with one counter."""
    served.set(redirect_hold=50.0)
    assert redirected(served, LATEST + target) == LATEST + location


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("http://evil.test" + LATEST, LATEST),
        ("/" + LATEST, LATEST),
        ("/v2/packages%2fhello/manifests/latest", None),
        ("/v2/packages/hello/manifests/%6catest", None),
        ("/%76%32/packages/hello/manifests/latest", None),
    ],
)
def test_redirects_stay_here(served: Served, target: str, location: str | None) -> None:
    """However the path is written, the same registry is asked again."""
    served.set(redirect_hold=50.0)
    assert redirected(served, target) == f"{location or target}?hop=1"


@pytest.mark.parametrize(
    "target",
    [
        f"//evil.test{LATEST}",
        f"http:////evil.test{LATEST}",
        f"/\\evil.test{LATEST}",
        f"/%2Fevil.test{LATEST}",
    ],
)
def test_other_hosts(served: Served, target: str) -> None:
    """A path that would name another host in a redirect is nowhere here."""
    served.set(redirect_hold=50.0)
    assert served.get(target, ANY_FORM).status == 404


@pytest.mark.parametrize("headers", [CONTAINERD, ANY_FORM])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("seconds", [0, 10, 20, 60, 8000])
def test_client_that_leaves(
    served: Served, headers: Headers, method: str, seconds: float
) -> None:
    """Whoever leaves, and whenever, leaves nothing behind, and the build goes on."""
    with begin(served, method, headers):
        wait(served, seconds)
    assert timers(served) == []
    served.nix.finish()
    assert served.get(LATEST).status == 200
    assert served.nix.count("build") == 1


def test_http_1_0(served: Served) -> None:
    """A proxy that knows no chunks reads the body up to the end of the connection."""
    client = served.connect()
    accept = "".join(f"{name}: {value}\r\n" for name, value in CONTAINERD)
    client.send(f"GET {LATEST} HTTP/1.0\r\n{accept}\r\n".encode())
    wait(served, 20)
    assert not client.silent
    wait(served, 60)
    assert not client.closed
    served.nix.finish()
    answer = client.answer()
    assert answer["Transfer-Encoding"] is None
    assert digest_of(answer.body) == told_to_others(served)
    client.hang_up()


def test_pipelined(served: Served) -> None:
    """What was asked for behind an early answer is answered after it."""
    with begin(served) as client:
        wait(served, 60)
        client.ask("GET", "/v2/")
        client.ask("HEAD", LATEST, CONTAINERD)
        client.begun()
        served.nix.finish()
        first, second, third = client.answers()
    assert second.body == b"{}"
    assert third["Docker-Content-Digest"] == digest_of(first.body)


@pytest.mark.parametrize("seconds", [0, 20, 60])
def test_bug(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    logged_failures: list[LogEvent],
    seconds: float,
) -> None:
    """A bug is told, or breaks off an answer that has begun, and is logged once."""

    def fail(*args: object) -> NoReturn:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Records, "tagged", fail)
    with begin(served, "HEAD") as header, begin(served) as client:
        wait(served, seconds)
        served.nix.finish()
        if seconds:
            assert client.aborted
            client.begun()
        else:
            assert client.answer().status == header.answer().status == 500
    assert len(logged_failures) == (1 if seconds else 2)
    logged_failures.clear()


def test_bug_that_nobody_waited_for(
    served: Served, monkeypatch: pytest.MonkeyPatch, logged_failures: list[LogEvent]
) -> None:
    """A bug is logged once, though all that asked were answered before."""

    def fail(*args: object) -> NoReturn:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Records, "tagged", fail)
    with begin(served, "HEAD"), begin(served, "HEAD"):
        wait(served, 20)
        served.nix.finish()
    assert len(logged_failures) == 1
    logged_failures.clear()


def test_full_queue(served: Served) -> None:
    """Where too many builds wait, one more is told to come later, as each bears it."""
    served.set(max_builds=1, max_queue=0)
    for name in ("other", "hello"):
        package = served.store.package(None, Recipe((layer(name),)), name=name)
        served.nix.packages[name] = package
    other = served.begin("/v2/packages/other/manifests/latest", ANY_FORM)
    with begin(served, "GET", ANY_FORM) as podman, begin(served) as containerd:
        served.nix.step()
        served.nix.step()
        refused = podman.answer()
        assert (refused.status, refused["Retry-After"]) == (429, "60")
        assert refused.error[0] == "TOOMANYREQUESTS"
        assert containerd.answer().status == 422
    other.hang_up()


def stop(served: Served) -> None:
    """Have the registry stop, as nix tells of it."""
    served.nix.fail("build", exit=Exit(None, stopped=True))
    served.nix.fail("eval", exit=Exit(None, stopped=True))
    served.nix.finish()


@pytest.mark.parametrize("headers", [CONTAINERD, ANY_FORM])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_handing_over(served: Served, headers: Headers, method: str) -> None:
    """Who waits while the registry is restarted is sent to the one that follows."""
    served.api.hands_over = True
    with begin(served, method, headers) as client:
        stop(served)
        answer = client.answer()
        assert (answer.status, answer["Location"]) == (307, f"{LATEST}?hop=1")
        assert answer["Connection"] == "close"
        assert client.closed


@pytest.mark.parametrize("headers", [CONTAINERD, ANY_FORM])
def test_stopping(served: Served, headers: Headers) -> None:
    """Who waits while the registry stops for good is told to pull again."""
    with begin(served, "GET", headers) as client:
        stop(served)
        answer = client.answer()
    assert (answer.status, answer["Location"]) == (503, None)
    assert "pull again" in answer.reason
    served.api.hands_over = True
    client = served.begin(f"{LATEST}?hop=9", headers)
    assert client.answer().status == 503
    client.hang_up()


def test_stopping_amid_an_answer(served: Served) -> None:
    """An answer that has begun is broken off, and no other begun behind it."""
    served.api.hands_over = True
    with begin(served) as client:
        wait(served, 60)
        client.ask("GET", "/v2/packages/other/manifests/latest")
        stop(served)
        assert client.aborted
        assert "other" not in str(served.nix.argvs)
        assert client.begun().body == b" "


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_stale(served: Served, method: str) -> None:
    """A client is warned, in safe characters, that an image may be out of date."""
    served.nix.finish()
    digest = told_to_others(served)
    served.clock.advance(served.settings.tag_ttl + 1)
    served.nix.fail("metadata", 'error: "caf\u00e9"\\ is\tunreachable')
    with begin(served, method, ANY_FORM) as client:
        served.nix.finish()
        answer = client.answer()
    assert answer["Docker-Content-Digest"] == digest
    warning = answer["Warning"]
    assert warning is not None and warning.isascii() and warning.isprintable()
    assert warning.startswith('299 forge-registry "the last image that worked: ')
    assert warning.count('"') == 2 and "\\" not in warning
    assert "unreachable" in warning
