"""Tests for `forgereg.web.home`."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from forgereg.values import FlakeSetting
from tests.client import Answer, Connection, Headers, ask
from tests.doubles import Package, ScriptedNix
from tests.registry import ANY_FORM, HELLO, Served, archive


def get(served: Served, target: str = "/", headers: Headers = ()) -> str:
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
    links = [said.get("href") or "" for _, said in _Page(html).tags]
    start = "/-/images/"
    return [link.removeprefix(start) for link in links if link.startswith(start)]


def describe(served: Served, name: str, **meta: Any) -> None:
    outputs = served.nix.packages["hello"].outputs
    served.nix.packages[name] = Package("1", outputs, meta=meta)


def test_catalogue(served: Served) -> None:
    """Whoever opens the registry's address sees what there is, and how to pull it."""
    html = get(served)
    page = _Page(html)
    assert "1 package" in page.text
    assert "hello 2.12 not built" in page.text
    assert "docker pull registry.test:6443/packages/hello" in page.text
    assert paths(html) == ["packages/hello"]


def test_what_a_package_says_of_itself(served: Served) -> None:
    """A package is shown with its description, licence and home page."""
    describe(
        served,
        "curl",
        description="Transfers files",
        licences=["MIT", "curl"],
        homepages=["https://curl.se/docs"],
    )
    page = _Page(get(served))
    assert "Transfers files" in page.text
    assert "Licence: MIT, curl" in page.text
    links = [said for tag, said in page.tags if tag == "a"]
    link = next(each for each in links if each["href"] == "https://curl.se/docs")
    assert link["rel"] == "noopener noreferrer nofollow"


def test_hostile_words(served: Served) -> None:
    """What a flake says is text, whatever it says."""
    script = "<script>alert(1)</script>"
    describe(
        served,
        "bad",
        description=f"{script} \u202egnp.exe \" ' &amp; \udc80 \x1b[31m {'x' * 10**6}",
        licences=[script] * 8,
        homepages=["javascript:alert(1)"],
    )
    bad = served.nix.packages["bad"]
    served.nix.packages["bad"] = attrs.evolve(bad, version=script)
    html = get(served)
    assert len(html) < 20_000
    page = _Page(html)
    scripts = [said.get("src") for tag, said in page.tags if tag == "script"]
    assert all(src and src.startswith("/-/static/") for src in scripts)
    assert f"{script} \\u202egnp.exe \" ' &amp;" in page.text
    assert "javascript:" not in html
    assert "\x1b" not in html


@pytest.mark.parametrize(
    "text", ["<script>", '"><img src=x>', "\u202e", "%00", "a&b=c"]
)
def test_hostile_search(served: Served, text: str) -> None:
    """What somebody looks for is text, whatever it is."""
    html = get(served, f"/?q={quote(text)}&page=2&kind={quote(text)}&client=<b>")
    assert "Nothing matches" in _Page(html).text
    assert "<script>" not in html
    assert "<img src=x" not in html


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=9999999999",
        "page=x",
        "page=%C2%B2",
        "q=%ff",
        "q",
        "kind=x",
    ]
    + ["state=x", "client=x", "page=1&page=2", "&&&", "part"],
)
def test_nonsense(served: Served, query: str) -> None:
    """What makes no sense in an address counts as not said."""
    get(served, f"/?{query}")


def test_search(served: Served) -> None:
    """A search shows what matches, and how much that is; a script asks for just that."""
    describe(served, "curl", description="Transfers files")
    html = get(served, "/?q=files")
    assert paths(html) == ["packages/curl"]
    assert "1 of 2 match" in html
    part = get(served, "/?q=files&part=results")
    assert paths(part) == ["packages/curl"]
    assert part.strip().startswith('<div id="results" data-count="1 of 2 match"')
    assert "<html" not in part


def test_part_is_of_the_page(served: Served) -> None:
    """What a script shows is what stands in the page without it."""
    for query in ("", "q=hello", "q=x", "kind=package&client=ctr"):
        part = get(served, f"/?{query}&part=results")
        assert part.strip() in get(served, f"/?{query}")


def test_no_match(served: Served) -> None:
    """Whoever finds nothing is led back to everything."""
    page = _Page(get(served, "/?q=zzz&client=ctr"))
    assert "Nothing matches “zzz”. Show everything" in page.text
    assert any(said.get("href") == "/?client=ctr" for _, said in page.tags)


def test_pages(served: Served) -> None:
    """A long list has pages, each led to from the one before it."""
    outputs = served.nix.packages["hello"].outputs
    for number in range(120):
        served.nix.packages[f"p{number:03}"] = Package("1", outputs)
    seen: list[str] = []
    target = "/?q=p&client=podman"
    for _ in range(3):
        html = get(served, target)
        seen += paths(html)
        following = [a for _, a in _Page(html).tags if a.get("rel") == "next"]
        target = str(following[0]["href"]) if following else ""
    assert target == ""
    assert len(set(seen)) == 120
    assert paths(get(served, "/?page=99")) == paths(get(served, "/?page=3"))


def test_where_images_stand(served: Served) -> None:
    """What is ready is told from what would be built, and can be listed alone."""
    describe(served, "curl")
    served.pull("packages/hello")
    assert paths(get(served, "/?state=ready")) == ["packages/hello"]
    assert paths(get(served, "/?state=unbuilt")) == ["packages/curl"]
    served.nix.push()
    served.clock.advance(1000)
    get(served)
    assert paths(get(served, "/?state=older")) == ["packages/hello"]


def test_build_that_failed(served: Served) -> None:
    """What failed is told as failed, leads to its log, and can be listed alone."""
    describe(served, "curl")
    served.pull("packages/hello")
    served.nix.push()
    served.clock.advance(1000)
    get(served)
    served.nix.fail("build", "error: a typo")
    served.nix.packages["hello"] = served.store.package("3", HELLO, name="new")
    assert served.get("/v2/packages/hello/manifests/latest", ANY_FORM).status == 422
    html = get(served, "/?state=failed")
    assert paths(html) == ["packages/hello"]
    failed = served.get("/-/api/builds").json["builds"][0]
    assert f'<a class="badge failed" href="/-/builds/{failed["id"]}"' in html
    served.nix.mend()
    served.clock.advance(1000)
    served.pull("packages/hello")
    assert paths(get(served, "/?state=failed")) == []
    served.nix.push()
    served.clock.advance(1000)
    get(served)
    assert paths(get(served, "/?state=older")) == ["packages/hello"]


def test_application_that_failed(served: Served) -> None:
    """An application has failed when what holds its images has."""
    folder = served.store.folder("shop", {"web.tar.gz": archive(HELLO)})
    served.nix.packages["shop"] = Package("2", {"containers": folder}, ["web.tar.gz"])
    get(served)
    served.nix.fail("build", "error: a typo")
    served.get("/v2/applications/shop/web/manifests/latest", ANY_FORM)
    html = get(served, "/?state=failed")
    assert paths(html) == ["applications/shop", "applications/shop/web"]
    assert html.count('<a class="badge failed" href="/-/builds/id-1"') == 2


def test_build_is_linked(served: Served) -> None:
    """While an image is built, its build is a click away, and the page looks again."""
    get(served)
    served.nix.pause()
    served.begin("/v2/packages/hello/manifests/latest")
    served.nix.step()
    html = get(served)
    (build,) = served.builds.under_way
    assert f'href="/-/builds/{build.id}"' in html
    assert "data-again" in html
    served.nix.finish()
    assert "data-again" not in get(served)


def test_application(served: Served) -> None:
    """An application is started by one command, and each of its images can be pulled."""
    folder = served.store.folder("shop", {"web.tar.gz": archive(HELLO)})
    served.nix.packages["shop"] = Package("2", {"containers": folder}, ["web.tar.gz"])
    html = get(served, "/?kind=application&client=podman")
    page = _Page(html)
    assert (
        "curl -fsSL http://registry.test:6443/-/applications/shop/compose.yaml"
        in page.text
    )
    assert (
        "podman pull --tls-verify=false registry.test:6443/applications/shop/web"
        in page.text
    )
    assert paths(html) == ["applications/shop", "applications/shop/web"]


CLIENTS = {
    "docker": "docker pull r.test/packages/hello",
    "podman": "podman pull r.test/packages/hello",
    "ctr": "ctr images pull r.test/packages/hello:latest",
    "nerdctl": "nerdctl pull r.test/packages/hello",
    "kubernetes": "image: r.test/packages/hello:latest",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_behind_a_proxy(served: Served, client: str) -> None:
    """Behind a proxy that speaks TLS, commands have its name, and no flags."""
    connection = Connection.to(served.site, address="127.0.0.1")
    told = [("X-Forwarded-Host", "r.test"), ("X-Forwarded-Proto", "https")]
    connection.ask("GET", f"/?client={client}", told)
    text = _Page(connection.answer().body.decode()).text
    assert f"{CLIENTS[client]} Copy" in text


@pytest.mark.parametrize("name", ["Host", "Proto"])
def test_nonsense_of_a_proxy(served: Served, name: str) -> None:
    """What a proxy hands on need not be text."""
    headers = [(f"X-Forwarded-{name}", "\xff")]
    answer = ask(served.site, "GET", "/", headers, address="127.0.0.1")
    assert answer.status == 200


def test_strange_host(served: Served) -> None:
    """Who says no host that images could be pulled from sees the page all the same."""
    answer = ask(served.site, "GET", "/", host="<b>")
    assert b"&lt;this-registry&gt;" in answer.body


def test_not_read_yet(served: Served) -> None:
    """While the flake is being read the page says so, and looks again by itself."""
    served.nix.pause()
    connection = served.begin("/")
    served.clock.advance(1)
    html = connection.answer().body.decode()
    assert "is being read" in html
    assert 'data-again="1"' in html
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in html
    served.nix.finish()
    html = get(served)
    assert paths(html) == ["packages/hello"]
    assert "refresh" not in html


@pytest.mark.parametrize("verb", ["metadata", "eval"])
def test_flake_that_cannot_be_read(served: Served, verb: str) -> None:
    """A flake that cannot be read is told of with its reason."""
    served.nix.fail(verb, "error: <b>it is broken</b>")
    html = get(served)
    assert "cannot be read" in html
    assert "&lt;b&gt;it is broken" in html
    assert "data-again" not in html


def test_nothing_there(served: Served) -> None:
    """Who has no images yet reads how to make one."""
    served.nix.packages.clear()
    text = _Page(get(served)).text
    assert "There is nothing to pull yet" in text
    assert "dockerTools.buildLayeredImage" in text


def test_names_that_cannot_be_pulled(served: Served) -> None:
    """What no client could name is told of, so that nobody looks for it in vain."""
    assert "cannot be pulled" not in get(served)
    names = [
        "two words",
        "Größe",
        "a/b",
        "<b>",
        *(f"z{n:02} {'x' * 500}" for n in range(40)),
    ]
    for name in names:
        describe(served, name)
    served.nix.push()
    served.clock.advance(1000)
    get(served)
    html = get(served)
    text = _Page(html).text
    assert paths(html) == ["packages/hello"]
    assert "44 of github:acme/forge cannot be pulled" in text
    assert "two words" in text and "and others." in text
    assert len(html) < 20_000 and "<bdi><b>" not in html


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


def test_head(served: Served) -> None:
    """HEAD says what GET would."""
    got, headed = served.get("/"), served.head("/")
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
        ("x/y," * 10_000 + "text/html", "application/json"),
    ],
)
def test_programs(served: Served, accept: str | None, kind: str) -> None:
    """A program that reads no pages is told where to ask."""
    said = [("Accept", accept)] if accept else []
    answer = served.get("/", said)
    assert (answer.status, answer["Content-Type"].split(";")[0]) == (200, kind)  # type: ignore[union-attr]
    if kind == "application/json":
        assert answer.json == {
            "registry": "registry.test:6443",
            "catalogue": "/v2/_catalog",
            "api": "/-/api/openapi.json",
        }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods(served: Served, method: str) -> None:
    """The page can only be looked at."""
    answer: Answer = ask(served.site, method, "/")
    assert answer.status == 405
    assert re.fullmatch("GET, HEAD(, OPTIONS)?", answer["Allow"] or "")


def test_nothing_inline(served: Served) -> None:
    """The page runs no script, and has no style, but from files of the registry."""
    answer = served.get("/")
    assert "default-src 'none'" in (answer["Content-Security-Policy"] or "")
    for tag, said in _Page(answer.body.decode()).tags:
        assert tag != "style"
        assert "style" not in said
        assert not any(name.startswith("on") for name in said)
