"""Tests for `forgereg.web.home`."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from forgereg.values import FlakeSetting
from tests.client import Answer, Headers, ask
from tests.doubles import Package, ScriptedNix
from tests.registry import HELLO, Served, archive

HOST: Headers = (("Host", "registry.test:6443"),)


def get(served: Served, target: str = "/", headers: Headers = HOST) -> str:
    answer = served.get(target, headers)
    assert answer.status == 200, answer.body
    return answer.body.decode()


class _Page(HTMLParser):
    """What a browser makes of a page: its tags, and its text on one line."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def paths(html: str) -> list[str]:
    """List what is shown, in order."""
    found = [
        (tag, attrs.get("href") or "", attrs.get("id"))
        for tag, attrs in _Page(html).tags
    ]
    return [
        href.removeprefix("/-/images/")
        for _, href, _ in found
        if href.startswith("/-/images/")
    ]


def describe(served: Served, name: str, **meta: Any) -> None:
    outputs = served.nix.packages["hello"].outputs
    served.nix.packages[name] = Package("1", outputs, meta=meta)


def test_catalogue(running: Served) -> None:
    """Whoever opens the registry's address sees what there is, and how to pull it."""
    html = get(running)
    page = _Page(html)
    assert "1 package" in page.text
    assert "hello 2.12 not built" in page.text
    assert "docker pull registry.test:6443/packages/hello" in page.text
    assert paths(html) == ["packages/hello"]


def test_what_a_package_says_of_itself(running: Served) -> None:
    """A package is shown with its description, licence and home page."""
    describe(
        running,
        "curl",
        description="Transfers files",
        licences=["MIT", "curl"],
        homepages=["https://curl.se/docs"],
    )
    page = _Page(get(running))
    assert "Transfers files" in page.text
    assert "Licence: MIT, curl" in page.text
    links = [attrs for tag, attrs in page.tags if tag == "a"]
    link = next(each for each in links if each["href"] == "https://curl.se/docs")
    assert link["rel"] == "noopener noreferrer nofollow"


def test_hostile_words(running: Served) -> None:
    """What a flake says is text, whatever it says."""
    script = "<script>alert(1)</script>"
    describe(
        running,
        "bad",
        description=f"{script} \u202egnp.exe \" ' &amp; \udc80 \x1b[31m {'x' * 10**6}",
        licences=[script] * 8,
        homepages=["javascript:alert(1)"],
    )
    running.nix.packages["bad"] = running.nix.packages["bad"].__class__(
        script,
        running.nix.packages["bad"].outputs,
        meta=running.nix.packages["bad"].meta,
    )
    html = get(running)
    assert len(html) < 20_000
    page = _Page(html)
    scripts = [attrs.get("src") for tag, attrs in page.tags if tag == "script"]
    assert all(src and src.startswith("/-/static/") for src in scripts)
    assert f"{script} \u202egnp.exe \" ' &amp;" in page.text
    assert "javascript:" not in html
    assert "\x1b" not in html


@pytest.mark.parametrize(
    "text", ["<script>", '"><img src=x>', "\u202e", "%00", "a&b=c"]
)
def test_hostile_search(running: Served, text: str) -> None:
    """What somebody looks for is text, whatever it is."""
    from urllib.parse import quote

    html = get(running, f"/?q={quote(text)}&page=2&kind={quote(text)}&client=<b>")
    assert "Nothing matches" in _Page(html).text
    assert "<script>" not in html
    assert "<img src=x" not in html


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=-1", "page=9999999999", "page=x", "page=²", "q=%ff", "q", "kind=x"]
    + ["state=x", "client=x", "page=1&page=2", "&&&", "part"],
)
def test_nonsense(running: Served, query: str) -> None:
    """What makes no sense in an address counts as not said."""
    get(running, f"/?{query}")


def test_search(running: Served) -> None:
    """A search shows what matches, and how much that is; a script asks for just that."""
    describe(running, "curl", description="Transfers files")
    html = get(running, "/?q=files")
    assert paths(html) == ["packages/curl"]
    assert "1 of 2 match" in html
    part = get(running, "/?q=files&part=results")
    assert paths(part) == ["packages/curl"]
    assert part.strip().startswith('<div id="results" data-count="1 of 2 match"')
    assert "<html" not in part


def test_part_is_of_the_page(running: Served) -> None:
    """What a script shows is what stands in the page without it."""
    for query in ("", "q=hello", "q=x", "kind=package&client=ctr"):
        part = get(running, f"/?{query}&part=results")
        assert part.strip() in get(running, f"/?{query}")


def test_no_match(running: Served) -> None:
    """Whoever finds nothing is led back to everything."""
    page = _Page(get(running, "/?q=zzz&client=ctr"))
    assert "Nothing matches “zzz”. Show everything" in page.text
    assert any(attrs.get("href") == "/?client=ctr" for _, attrs in page.tags)


def test_pages(running: Served) -> None:
    """A long list has pages, each led to from the one before it."""
    outputs = running.nix.packages["hello"].outputs
    for number in range(250):
        running.nix.packages[f"p{number:03}"] = Package("1", outputs)
    seen: list[str] = []
    target = "/?q=p&client=podman"
    for _ in range(3):
        html = get(running, target)
        seen += paths(html)
        following = [a for _, a in _Page(html).tags if a.get("rel") == "next"]
        target = str(following[0]["href"]) if following else ""
    assert target == ""
    assert len(set(seen)) == 251
    assert paths(get(running, "/?page=99")) == paths(get(running, "/?page=3"))


def test_where_images_stand(running: Served) -> None:
    """What is ready is told from what would be built, and can be listed alone."""
    describe(running, "curl")
    running.pull("packages/hello")
    assert paths(get(running, "/?state=ready")) == ["packages/curl", "packages/hello"]
    running.nix.push()
    running.clock.advance(1000)
    get(running)
    assert paths(get(running, "/?state=older")) == ["packages/hello"]


def test_build_is_linked(running: Served) -> None:
    """While an image is built, its build is a click away, and the page looks again."""
    get(running)
    running.nix.pause()
    running.begin("/v2/packages/hello/manifests/latest")
    running.nix.step()
    running.nix.step()
    html = get(running)
    (build,) = running.builds.under_way
    assert f'href="/-/builds/{build.id}"' in html
    assert "data-again" in html
    running.nix.finish()
    assert "data-again" not in get(running)


def test_application(running: Served) -> None:
    """An application is started by one command, and each of its images can be pulled."""
    folder = running.store.folder("shop", {"web.tar.gz": archive(HELLO)})
    running.nix.packages["shop"] = Package("2", {"containers": folder}, ["web.tar.gz"])
    html = get(running, "/?kind=application&client=podman")
    page = _Page(html)
    assert (
        "curl -fsSL http://registry.test:6443/-/applications/shop/compose.yaml"
        in page.text
    )
    assert (
        "podman pull --tls-verify=false registry.test:6443/applications/shop/web"
        in page.text
    )
    assert paths(html) == ["applications/shop/web"]


CLIENTS = {
    "docker": "docker pull r.test/packages/hello",
    "podman": "podman pull r.test/packages/hello",
    "ctr": "ctr images pull r.test/packages/hello:latest",
    "nerdctl": "nerdctl pull r.test/packages/hello",
    "kubernetes": "image: r.test/packages/hello:latest",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_behind_a_proxy(running: Served, client: str) -> None:
    """Behind a proxy that speaks TLS, commands have its name, and no flags."""
    proxied = (("X-Forwarded-Host", "r.test"), ("X-Forwarded-Proto", "https"))
    text = _Page(get(running, f"/?client={client}", (*HOST, *proxied))).text
    assert f"{CLIENTS[client]} Copy" in text


def test_strange_host(running: Served) -> None:
    """Who says no host that images could be pulled from sees the page all the same."""
    assert "&lt;this-registry&gt;" in get(running, headers=[("Host", "<b>")])


def test_not_read_yet(running: Served) -> None:
    """While the flake is being read the page says so, and looks again by itself."""
    running.nix.pause()
    connection = running.begin("/", HOST)
    running.clock.advance(1)
    html = connection.answer().body.decode()
    assert "is being read" in html
    assert 'data-again="1"' in html
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in html
    running.nix.finish()
    html = get(running)
    assert paths(html) == ["packages/hello"]
    assert "refresh" not in html


@pytest.mark.parametrize("verb", ["metadata", "eval"])
def test_flake_that_cannot_be_read(running: Served, verb: str) -> None:
    """A flake that cannot be read is told of with its reason."""
    running.nix.fail(verb, "error: <b>it is broken</b>")
    html = get(running)
    assert "cannot be read" in html
    assert "&lt;b&gt;it is broken" in html
    assert "data-again" not in html


def test_nothing_there(running: Served) -> None:
    """Who has no images yet reads how to make one."""
    running.nix.packages.clear()
    text = _Page(get(running)).text
    assert "There is nothing to pull yet" in text
    assert "dockerTools.buildLayeredImage" in text


def test_several_flakes(tmp_path: Path, start: Callable[..., Served]) -> None:
    """Each of several flakes is named beside what it has."""
    other = ScriptedNix(flake="github:acme/other")
    served = start(
        tmp_path,
        ScriptedNix(others=[other]),
        flakes=(FlakeSetting("team", other.flake),),
    )
    for nix in (served.nix, other):
        nix.packages["hello"] = served.store.package("1", HELLO, name="hello")
    html = get(served)
    assert paths(html) == ["packages/hello", "team/packages/hello"]
    assert "from github:acme/other" in _Page(html).text


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[..., Served]:
    """Start a registry, and stop it at the end."""

    def begin(*words: Any, **settings: Any) -> Served:
        served = Served.below(*words, **settings)
        request.addfinalizer(served.stop)
        return served

    return begin


def test_head(running: Served) -> None:
    """HEAD says what GET would."""
    got, headed = running.get("/", HOST), running.head("/", HOST)
    assert headed.status == 200
    assert headed.body == b""
    assert headed["Content-Length"] == got["Content-Length"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "text/html"),
        ("*/*", "text/html"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("text/*", "text/html"),
        ("application/json", "application/json"),
        ("text/html;q=0, application/json", "application/json"),
    ],
)
def test_programs(running: Served, accept: str | None, kind: str) -> None:
    """A program that reads no pages is told where to ask."""
    said = [("Accept", accept)] if accept else []
    answer = running.get("/", [*HOST, *said])
    assert (answer.status, answer["Content-Type"].split(";")[0]) == (200, kind)  # type: ignore[union-attr]
    if kind == "application/json":
        assert answer.json == {
            "registry": "registry.test:6443",
            "catalogue": "/v2/_catalog",
            "api": "/-/api/openapi.json",
        }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods(running: Served, method: str) -> None:
    """The page can only be looked at."""
    answer: Answer = ask(running.site, method, "/")
    assert answer.status == 405
    assert re.fullmatch("GET, HEAD(, OPTIONS)?", answer["Allow"] or "")


def test_nothing_inline(running: Served) -> None:
    """The page runs no script, and has no style, but from files of the registry."""
    answer = running.get("/", HOST)
    assert "default-src 'none'" in (answer["Content-Security-Policy"] or "")
    for tag, attrs in _Page(answer.body.decode()).tags:
        assert tag != "style"
        assert "style" not in attrs
        assert not any(name.startswith("on") for name in attrs)
