"""Tests for `forgereg.web.builds`: the pages of builds, as they are put together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgereg.web.site import RegistrySite
from tests.client import Answer, Connection, Headers, ask
from tests.registry import ANY_FORM, Served, serving

LATEST = "/v2/packages/hello/manifests/latest"
BUILDS = "/-/builds"


def said(text: str) -> str:
    """What nix says when a builder prints a line."""
    event = {"action": "result", "fields": [text], "id": 2, "type": 101}
    return "@nix " + json.dumps(event)


def phase(name: str) -> list[str]:
    """What nix says when a derivation is begun, and is in a phase."""
    drv = "/nix/store/" + "0" * 32 + "-hello-2.12.drv"
    return [
        '@nix {"action":"start","id":1,"type":104,"level":0,"parent":0,"text":""}',
        '@nix {"action":"result","id":1,"type":105,"fields":[3,10,1,0]}',
        f'@nix {{"action":"start","id":2,"type":105,"fields":["{drv}"],"text":""}}',
        f'@nix {{"action":"result","id":2,"type":104,"fields":["{name}"]}}',
    ]


@pytest.fixture
def client(served: Served) -> Iterator[Connection]:
    """Somebody who waits for an image that is being built, as ``id-1``."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    served.nix.step()
    served.nix.step()
    yield client
    served.nix.finish()


def page(site: RegistrySite, path: str, headers: Headers = ()) -> str:
    """Read a page as somebody on this machine."""
    answer = here(site, "GET", path, headers)
    assert answer.status == 200, answer.body
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    return answer.body.decode()


def here(
    site: RegistrySite,
    method: str,
    path: str,
    headers: Headers = (),
    body: bytes = b"",
) -> Answer:
    return ask(site, method, path, headers, body, "127.0.0.1", "localhost")


def events(connection: Connection) -> list[tuple[str, str, str]]:
    """Give name, id and data of each event that has come since the last time."""
    text = connection.wire.value()
    connection.wire.clear()
    head, _, rest = text.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP"):
        rest = text
    chunks = b"".join(re.split(rb"\r\n[0-9a-f]+\r\n|\A[0-9a-f]+\r\n", rest))
    found = []
    for block in chunks.decode().split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            key, _, value = line.partition(": ")
            fields.setdefault(key, []).append(value)
        if "event" in fields:
            id = fields.get("id", [""])[0]
            found.append((fields["event"][0], id, "\n".join(fields["data"])))
    return found


def log(told: list[tuple[str, str, str]]) -> str:
    """Give the text of the lines that were told."""
    html = "\n".join(data for name, _, data in told if name == "log")
    return re.sub(r"<[^>]*>", "", html)


def let(served: Served, seconds: float) -> None:
    """Let some time pass."""
    for _ in range(int(seconds * 2)):
        served.clock.advance(0.5)


def test_list(served: Served, client: Connection) -> None:
    """Whoever asks sees what is being built, how far it is, and who asked."""
    served.nix.say(*phase("buildPhase"))
    text = page(served.site, BUILDS)
    assert 'href="/-/builds/id-1"' in text and "packages/hello:latest" in text
    assert "3 of 10 derivations" in text and "hello-2.12" in text
    assert "buildPhase" in text and "192.0.2.1" in text
    assert '<progress class="far" max="10" value="3"' in text
    served.nix.finish()
    assert client.answer().status == 200
    text = page(served.site, BUILDS)
    assert "Nothing is being built" in text and ">done<" in text


def test_filter(served: Served) -> None:
    """The list can be cut down to a state and to images."""
    served.nix.fail("build", "error: no compiler")
    served.get(LATEST, ANY_FORM)
    for query, is_there in {
        "state=failed": True,
        "state=failed&image=HELLO": True,
        "state=done": False,
        "state=building": False,
        "image=hell%25": False,
        "image=packages/": True,
        "state=&image=&page=": True,
        "page=2": False,
        "state=asleep": True,
        "state=asleep,done": False,
        "page=x": True,
        "page=-1": True,
        "page=999999999999999999999": True,
    }.items():
        text = page(served.site, f"{BUILDS}?{query}")
        assert ("/-/builds/id-1" in text) is is_there, query


def test_pages_of_the_list(served: Served) -> None:
    """A long list has several pages, each of which leads to the next."""
    for number in range(60):
        here(served.site, "POST", BUILDS, body=b"image=packages/no-%d" % number)
    assert page(served.site, f"{BUILDS}?state=failed").count("<tr id") == 50
    second = page(served.site, f"{BUILDS}?state=failed&page=2")
    assert second.count("<tr id") == 10
    assert 'href="/-/builds?state=failed"' in second and "Older" not in second
    assert "/-/builds/events" not in second


def test_watching_the_last_page(served: Served, client: Connection) -> None:
    """Only the first page is told of, as the others cost more the further they are."""
    watcher = served.begin(f"{BUILDS}/events?page=200")
    assert "/-/builds/id-1" in events(watcher)[0][2]


def test_build(served: Served, client: Connection) -> None:
    """The page of a build has its phases, with how long each took, and its log."""
    served.nix.say(*phase("unpackPhase"), said("\x1b[32mhello\x1b[0m <b>"))
    served.clock.advance(75)
    text = page(served.site, f"{BUILDS}/id-1")
    assert '<span class="ink-2">hello</span> &lt;b&gt;' in text
    assert "1 min 15 s" in text and 'aria-current="step"' in text
    assert "github:acme/forge" in text and "/-/images/packages/hello" in text
    served.nix.finish()
    served.clock.advance(100)
    after = page(served.site, f"{BUILDS}/id-1")
    assert "Building</span>" in after and "1 min 15 s" in after
    assert "data-live" in text and "data-live" not in after


def test_no_such_build(served: Served) -> None:
    """A build that is not remembered is answered with a page that says so."""
    for path in ("x", "x/events", "x/log.txt", "id-1/x", "%2e%2e%2fx", "%00"):
        answer = served.get(f"{BUILDS}/{path}")
        assert (answer.status, answer["Content-Type"]) == (
            404,
            "text/html; charset=utf-8",
        ), path
    for query in ("from=x", "before=-1", "at=" + "9" * 30):
        served.get(LATEST, ANY_FORM)
        assert served.get(f"{BUILDS}/id-1?{query}").status == 200


def test_hostile_build(served: Served) -> None:
    """Whatever a flake or a builder says, none of it is markup."""
    evil = '<script>alert("1")</script>\u202e'
    served.nix.fail("build", said(evil), said("x" * 10**6), f"error: {evil}")
    served.get(LATEST, ANY_FORM)
    for path in (BUILDS, f"{BUILDS}/id-1", f"{BUILDS}/id-1?q=%3Cscript%3E"):
        answer = served.get(path)
        text = answer.body.decode()
        assert "&lt;script&gt;alert" in text and "<script>" not in text
        assert "\u202e" not in text and len(text) < 10**5
        assert "script-src 'self'" in (answer["Content-Security-Policy"] or "")


@pytest.fixture
def logged(served: Served) -> list[str]:
    """What was said during a build that is over: many lines."""
    lines = [f"line {number} of many" for number in range(5000)]
    served.nix.fail("build", *map(said, lines))
    served.get(LATEST, ANY_FORM)
    return lines


def test_long_log(served: Served, logged: list[str]) -> None:
    """Of a long log the end is shown, with a way to what was before."""
    text = page(served.site, f"{BUILDS}/id-1")
    assert "line 4999 of many" in text and "line 1000 of many" not in text
    seen: list[str] = []
    while "hidden>Show earlier" not in text:
        seen[:0] = re.findall(r">(line \d+ of many)\n", text)
        (earlier,) = re.findall(r'id="earlier" href="([^"]*)"', text)
        text = page(served.site, earlier)
    assert re.findall(r">(line \d+ of many)\n", text) + seen == logged
    later = re.findall(r'href="([^"]*\?from=\d+)"', text)
    assert later and "Show the end" in text


def test_search(served: Served, logged: list[str]) -> None:
    """What is looked for is found in the whole log, and leads to where it stands."""
    text = page(served.site, f"{BUILDS}/id-1?q=LINE+77+OF")
    assert "1 line with" in text
    (link,) = re.findall(r'class="at" href="([^#]*)#at-\d+">78<', text)
    around = page(served.site, link)
    assert "line 30 of many" in around and "line 77 of many" in around
    assert "0 lines with" in page(served.site, f"{BUILDS}/id-1?q=%3Cb%3E")


def test_download(served: Served, logged: list[str]) -> None:
    """The log can be had as a file."""
    answer = served.get(f"{BUILDS}/id-1/log.txt")
    assert answer.body.decode().startswith("\n".join(logged))
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    named = 'attachment; filename="packages-hello-latest-id-1.log"'
    assert answer["Content-Disposition"] == named
    head = served.head(f"{BUILDS}/id-1/log.txt")
    assert head["Content-Length"] == answer["Content-Length"]


def test_live_log(served: Served, client: Connection) -> None:
    """Who watches sees each line a moment after it was said, and the end."""
    watcher = served.begin(f"{BUILDS}/id-1/events")
    head = watcher.begun()
    assert head["Content-Type"] == "text/event-stream; charset=utf-8"
    assert head["Cache-Control"] == "no-store"
    assert head["X-Accel-Buffering"] == "no"
    served.nix.say(said("one"), said("\x1b[31mtwo\x1b[0m"))
    let(served, 0.5)
    assert log(events(watcher)).split() == ["one", "two"]
    served.nix.say(said("three"))
    let(served, 0.5)
    told = events(watcher)
    assert log(told).split() == ["three"]
    served.nix.finish()
    let(served, 3)
    assert watcher.wire.value().endswith(b"\r\n0\r\n\r\n")
    last = events(watcher)
    assert last[-1][0] == "end" and ">done<" in last[-2][2]
    # Who was cut off goes on where that was.
    (id,) = [id for name, id, _ in told if name == "log"]
    again = served.begin(f"{BUILDS}/id-1/events?from=0", [("Last-Event-ID", id)])
    assert [name for name, _, _ in events(again)] == ["state", "end"]
    whole = served.begin(f"{BUILDS}/id-1/events?from=4")
    assert log(events(whole)).split() == ["two", "three"]


def test_watchers_share(served: Served, client: Connection) -> None:
    """However many watch, the log is read a few times a second, and not for nobody."""
    watchers = [served.begin(f"{BUILDS}/id-1/events") for _ in range(20)]
    let(served, 1)
    served.threads.calls.clear()
    served.nix.say(said("one"))
    let(served, 1)
    assert all(log(events(each)).strip() == "one" for each in watchers)
    assert len(served.threads.calls) < 12
    for each in watchers:
        each.hang_up()
    let(served, 1)
    served.threads.calls.clear()
    let(served, 10)
    assert served.threads.calls == []


def test_slow_watcher(served: Served, client: Connection) -> None:
    """Who does not read is sent nothing more, and later told what was left out."""
    watcher = served.begin(f"{BUILDS}/id-1/events")
    let(served, 1)
    watcher.wire.slow = True
    served.nix.say(said("one"))
    let(served, 1)
    events(watcher)
    served.nix.say(*(said(f"line {number}") for number in range(20_000)))
    let(served, 20)
    assert watcher.silent
    watcher.wire.slow = False
    watcher.read_on()
    let(served, 1)
    told = log(events(watcher))
    assert "left out" in told and told.rstrip().endswith("line 19999")
    assert len(told) < 20_000


def test_silence(served: Served, client: Connection) -> None:
    """Where nothing happens something is sent, for proxies that wait for it."""
    served.site.timeOut = None
    watcher = served.begin(f"{BUILDS}/events?state=done")
    events(watcher)
    let(served, 20)
    assert watcher.wire.value().count(b":\n\n") == 1


def test_live_list(served: Served, client: Connection) -> None:
    """Who watches the list sees builds come and go."""
    watcher = served.begin(f"{BUILDS}/events")
    ((name, _, text),) = events(watcher)
    assert name == "list" and ">building<" in text and "<html" not in text
    served.nix.finish()
    let(served, 1)
    assert ">done<" in events(watcher)[-1][2]


def test_too_many_watchers(served: Served, client: Connection) -> None:
    """When too many watch, the next is told to reload in place of that."""
    served.assembly.entrance.streams.most = 2
    watchers = [served.begin(f"{BUILDS}/events") for _ in range(2)]
    answer = served.get(f"{BUILDS}/id-1/events")
    assert (answer.status, answer["Retry-After"]) == (503, "3")
    watchers[0].hang_up()
    assert served.begin(f"{BUILDS}/id-1/events").begun().status == 200


def test_one_who_watches_much(served: Served, client: Connection) -> None:
    """Nobody can watch so much that no one else can."""
    watchers = [served.begin(f"{BUILDS}/events") for _ in range(50)]
    assert {each.begun().status for each in watchers} == {200}
    assert served.get(f"{BUILDS}/events").status == 503
    other = Connection.to(served.site, address="192.0.2.2")
    other.ask("GET", f"{BUILDS}/events")
    assert other.begun().status == 200


@pytest.mark.parametrize("is_slow", [False, True])
def test_stopping(served: Served, client: Connection, is_slow: bool) -> None:
    """The registry waits for nobody who only watches when it stops."""
    watcher = served.begin(f"{BUILDS}/id-1/events")
    if is_slow:
        watcher.wire.slow = True
        served.nix.say(said("one"))
        let(served, 2)
    served.assembly.stop()
    assert watcher.aborted if is_slow else watcher.answer().status == 200
    assert served.get(f"{BUILDS}/events").status == 503


def test_cancel_and_retry(served: Served, client: Connection) -> None:
    """Who may ends a build, and begins it anew, by pressing a button."""
    assert f'action="{BUILDS}/id-1/cancel"' in page(served.site, f"{BUILDS}/id-1")
    answer = here(served.site, "POST", f"{BUILDS}/id-1/cancel")
    assert (answer.status, answer["Location"]) == (303, f"{BUILDS}/id-1")
    refused = client.answer()
    assert refused.status == 422
    assert refused.reason.endswith("see http://registry.test:6443/-/builds/id-1")
    assert here(served.site, "POST", f"{BUILDS}/id-1/cancel").status == 409
    assert f'action="{BUILDS}/id-1/retry"' in page(served.site, f"{BUILDS}/id-1")
    answer = here(served.site, "POST", f"{BUILDS}/id-1/retry")
    assert answer.status == 303 and answer["Location"] != f"{BUILDS}/id-1"


def test_who_may_not(served: Served, client: Connection) -> None:
    """Nobody else is shown buttons, nor can press them from elsewhere."""
    text = served.get(f"{BUILDS}/id-1").body.decode()
    assert "<button>Cancel" not in text and "Log in" not in text
    evil = [("Origin", "http://evil.test")]
    for path in ("id-1/cancel", "id-1/retry"):
        assert ask(served.site, "POST", f"{BUILDS}/{path}").status == 403
        assert here(served.site, "POST", f"{BUILDS}/{path}", evil).status == 403
    body = b"image=packages/hello"
    assert ask(served.site, "POST", BUILDS, body=body).status == 403


def test_start(served: Served) -> None:
    """An image can be built by a form, without a pull."""
    body = b"image=packages%2Fhello%3Alatest"
    answer = here(served.site, "POST", BUILDS, body=body)
    assert (answer.status, answer["Location"]) == (303, f"{BUILDS}/id-1")
    for body in (b"", b"image=UPPER", b"\xff", b"image=" + b"x" * 5000):
        assert here(served.site, "POST", BUILDS, body=body).status == 400


def test_after_a_restart(tmp_path: Path) -> None:
    """How long each phase took is remembered."""
    with serving(tmp_path, database=f"sqlite:///{tmp_path}/db") as served:
        served.nix.pause()
        client = served.begin(LATEST, ANY_FORM)
        served.nix.step()
        served.nix.step()
        served.clock.advance(75)
        served.nix.finish()
        assert client.answer().status == 200
        served.restart()
        assert "1 min 15 s" in page(served.site, f"{BUILDS}/id-1")
