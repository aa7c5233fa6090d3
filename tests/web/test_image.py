"""Tests for `forgereg.web.image`, with all that it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest

from forgereg.web.image import in_short
from tests.archives import Recipe, layer
from tests.client import Answer, ask
from tests.doubles import Package
from tests.registry import ANY_FORM, HELLO, Served, archive, serving

PAGE = "/-/images/packages/hello"
#: Shares its lower layer with HELLO.
NEWER = Recipe((layer("lower"), layer("newer")))
EVIL = '"><script>alert(1)</script>\u202e<b onclick=x>'


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as served:
        yield served


def text_of(answer: Answer) -> str:
    """Give what a page says, without its markup; every page has to be harmless."""
    page = answer.body.decode()
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    policy = answer["Content-Security-Policy"]
    assert policy is not None and "default-src 'none'" in policy
    assert " style=" not in page and not re.search(r" on\w+=", page)
    words = re.sub(r"<[^>]*>", " ", page.replace("<wbr>", ""))
    return " ".join(unescape(words).split())


def push(served: Served, recipe: Recipe = NEWER, version: str = "3.0") -> None:
    """Give the flake a newer hello, and let the registry look."""
    served.nix.push()
    name = f"hello-{version}"
    package = served.store.package(version, recipe, name=name)
    served.nix.packages["hello"] = package
    served.clock.advance(3600.0)


def test_image_that_was_pulled(served: Served) -> None:
    """The page of an image has its tags, layers, configuration and source."""
    manifest, config, *layers = served.digests("packages/hello")
    answer = served.get(PAGE)
    assert answer.status == 200
    text = text_of(answer)
    for said in (manifest, config, "latest", "2.12", "/bin/hello", "linux/amd64"):
        assert said in text
    for each in layers:
        assert each[:19] in text
        assert f'title="{each}"' in answer.body.decode()
    assert served.nix.packages["hello"].outputs["image"].derivation in text
    assert "No image before this one is known" in text
    assert "docker pull registry.test:6443/packages/hello" in text


def test_looking_asks_nobody(served: Served) -> None:
    """However often a page is looked at, nothing is locked, evaluated or built."""
    for path in (PAGE, f"{PAGE}?tag=2.12", "/-/images/packages/other"):
        assert served.get(path).status == 404
    assert served.nix.counts == (0, 0, 0)
    served.pull("packages/hello")
    counts, pulls = served.nix.counts, served.get(PAGE)
    served.clock.advance(10**6)
    for path in (PAGE, f"{PAGE}?tag=2.12", "/-/images/packages/other"):
        served.get(path)
    assert served.nix.counts == counts
    assert "Nobody has pulled it yet" in text_of(pulls), "looking is no pull"


def test_image_that_was_never_built(served: Served) -> None:
    """An image that the flake has says how to pull it, and who may can build it."""
    served.get("/v2/_catalog")
    answer = served.get(PAGE)
    assert answer.status == 200
    assert "has not been built yet" in text_of(answer)
    assert "docker pull registry.test:6443/packages/hello" in text_of(answer)
    assert "Build it now" not in text_of(answer)
    mine = ask(served.site, "GET", PAGE, (), b"", "127.0.0.1", "localhost")
    assert "Build it now" in text_of(mine)


def build(served: Served, tag: str) -> Answer:
    """Press the button of the page."""
    kind = [("Content-Type", "application/x-www-form-urlencoded")]
    body = f"image=packages%2Fhello%3A{tag}".encode()
    page = ask(served.site, "GET", PAGE, (), b"", "127.0.0.1", "localhost")
    assert f'name="image" value="packages/hello:{tag}"' in page.body.decode()
    target = "/-/builds"
    return ask(served.site, "POST", target, kind, body, "127.0.0.1", "localhost")


def test_building_from_the_page(served: Served) -> None:
    """The button of who may has the image built, and leads to its build."""
    served.get("/v2/_catalog")
    answer = build(served, "latest")
    assert answer.status == 303
    where = answer["Location"]
    assert where is not None and where.startswith("/-/builds/")
    assert served.nix.count("build") == 1
    assert f'href="{where}"' in served.get(PAGE).body.decode()


def test_build_that_is_under_way(served: Served) -> None:
    """While an image is built, its page says so and names the build."""
    served.get("/v2/_catalog")
    served.nix.pause()
    where = build(served, "latest")["Location"]
    answer = served.get(PAGE)
    assert "is under way" in text_of(answer)
    assert f'href="{where}"' in answer.body.decode()
    assert "Build it now" not in text_of(answer)
    served.nix.resume()
    assert "is under way" not in text_of(served.get(PAGE))


def test_newer_one_that_is_being_built(served: Served) -> None:
    """While another image is built, it is said that what is shown is the old one."""
    served.pull("packages/hello")
    push(served)
    served.nix.pause()
    served.begin("/v2/packages/hello/manifests/latest")
    for _ in range(2):  # until it is locked and evaluated
        assert "Its build is under way" in text_of(served.get(PAGE))
        served.nix.step()
    text = text_of(served.get(PAGE))
    assert "The build of a newer one is under way" in text
    assert "Below is the one that is here, of" in text
    served.nix.finish()
    assert "Below" not in text_of(served.get(PAGE))


def test_build_that_failed(served: Served) -> None:
    """A build that failed is told of with its reason, and can be looked at."""
    served.get("/v2/_catalog")
    served.nix.fail("build", "error: <script>alert(1)\n" + "x\n" * 50)
    answer = served.get("/v2/packages/hello/manifests/latest", ANY_FORM)
    assert answer.status == 422, answer.body
    answer = served.get(PAGE)
    text = text_of(answer)
    assert "The last build failed" in text and "of packages/hello:latest failed" in text
    assert b'href="/-/builds/id-1"' in answer.body
    assert b"<script>alert" not in answer.body
    served.nix.mend()
    served.clock.advance(1000.0)
    served.pull("packages/hello")
    assert "failed" not in text_of(served.get(PAGE))


def test_page_takes_no_forms(served: Served) -> None:
    """What is sent to the page of an image does nothing."""
    answer = ask(served.site, "POST", PAGE, (), b"x=y", "127.0.0.1", "localhost")
    assert answer.status == 405
    assert served.nix.argvs == []


def test_what_changed(served: Served) -> None:
    """After a change the page says which layers are new, and what is to be pulled."""
    old = served.digests("packages/hello")
    push(served)
    new = served.digests("packages/hello")
    answer = served.get(PAGE)
    text = text_of(answer)
    assert "1 new layer, 1 gone, 1 kept" in text
    assert "+1 −1 1 kept" in text
    assert f"{PAGE}?digest={quote(old[0])}" in answer.body.decode()
    before = served.get(f"{PAGE}?digest={old[0]}")
    assert before.status == 200
    assert old[0] in text_of(before) and new[0] not in text_of(before)
    assert f"docker pull registry.test:6443/packages/hello@{old[0]}" in text_of(before)


def test_flake_that_has_moved_on(served: Served) -> None:
    """An image that is not what the flake has any more is shown, and that is said."""
    served.pull("packages/hello")
    push(served)
    served.get("/v2/packages/hello/tags/list")
    text = text_of(served.get(PAGE))
    assert "The flake has moved on" in text
    served.pull("packages/hello")
    assert "The flake has moved on" not in text_of(served.get(PAGE))


def test_tag_that_is_past(served: Served) -> None:
    """A tag that the flake has no more leads to its last image, by digest."""
    old = served.digests("packages/hello", "2.12")[0]
    push(served)
    served.pull("packages/hello")
    text = text_of(served.get(f"{PAGE}?tag=2.12"))
    assert "has no tag 2.12 any more" in text
    assert f"docker pull registry.test:6443/packages/hello@{old}" in text
    assert "has no tag" not in text_of(served.get(f"{PAGE}?tag=3.0"))


def test_layers_that_others_have(served: Served) -> None:
    """A layer that another repository has leads there, and is told of in words."""
    served.nix.packages["other"] = served.store.package("1", NEWER, name="other")
    served.pull("packages/hello")
    served.pull("packages/other")
    page = served.get(PAGE).body.decode()
    assert page.count('<a href="/-/images/packages/other">') == 1
    assert "in other repositories as well" in page


def test_pulls_over_time(served: Served) -> None:
    """Pulls are counted for each day, in a chart and in words."""
    manifest = served.digests("packages/hello")[0]
    served.get(f"/v2/packages/hello/manifests/{manifest}", [("Accept", "*/*")])
    served.clock.advance(86400.0)
    served.pull("packages/hello")
    served.clock.advance(10.0)
    text = text_of(served.get(PAGE))
    assert "3 pulls by tag and 1 by digest in 90 days" in text
    assert "2023-11-15 1 0 2023-11-14 2 1" in text
    served.clock.advance(100 * 86400.0)
    assert "Nobody pulled it for 90 days" in text_of(served.get(PAGE))


def test_hostile_image(tmp_path: Path) -> None:
    """Whatever an image says of itself is shown as text, and is not too long."""
    hostile = Recipe(
        more={
            "author": EVIL,
            "config": {
                "Env": [EVIL, "x" * 2**16],
                "Labels": {EVIL: EVIL},
                "Entrypoint": EVIL,
                "ExposedPorts": {EVIL: {}},
                "User": EVIL,
            },
            "history": [{"created_by": EVIL}, {"created_by": "y" * 2**19}],
        }
    )
    with serving(tmp_path) as served:
        served.nix.packages["hello"] = served.store.package("1", hostile, name="evil")
        served.pull("packages/hello")
        answer = served.get(PAGE)
        assert EVIL.replace("\u202e", r"\u202e") in unescape(answer.body.decode())
        assert b"<script>alert" not in answer.body
        assert b"<b onclick" not in answer.body
        assert len(answer.body) < 100_000
        assert "\u202e".encode() not in answer.body


def test_config_that_is_not_at_hand(served: Served) -> None:
    """Where the configuration lies nowhere unpacked, the rest is shown all the same."""
    config = served.digests("packages/hello")[1]
    (path,) = served.state.rglob(config.removeprefix("sha256:"))
    path.unlink()
    answer = served.get(PAGE)
    assert answer.status == 200
    assert "does not lie here unpacked" in text_of(answer)
    assert served.nix.count("build") == 1


@pytest.mark.parametrize(
    "path",
    [
        "packages/nothing",
        "packages/HELLO",
        "other/hello",
        "packages/hello/x",
        "%3Cscript%3E",
        "packages%2Fhello%00",
        "applications/nothing",
        "applications/nothing/web",
        "x" * 300,
    ],
)
def test_name_that_nobody_knows(served: Served, path: str) -> None:
    """What is not there is answered with what there is."""
    served.pull("packages/hello")
    served.get("/v2/_catalog")
    answer = served.get(f"/-/images/{path}")
    assert answer.status == 404
    assert "packages/hello" in text_of(answer)
    assert b"<script>" not in answer.body


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("tag=nothing", 404),
        ("tag=%3Cscript%3E", 404),
        ("digest=sha256:" + "0" * 64, 404),
        ("digest=nonsense", 404),
        ("digest=md5:0", 400),
        ("tag=", 200),
        ("platform=%3Cscript%3E", 200),
        ("tag=%FF", 404),
    ],
)
def test_query_that_makes_no_sense(served: Served, query: str, status: int) -> None:
    """A tag or digest that is not there is answered with a page that says so."""
    served.pull("packages/hello")
    answer = served.get(f"{PAGE}?{query}")
    assert answer.status == status
    assert text_of(answer)
    assert b"<script>" not in answer.body


def test_application(served: Served) -> None:
    """The page of an application lists its images, and what starts it."""
    folder = served.store.folder("shop", {"web.tar.gz": archive(HELLO)})
    served.nix.packages["shop"] = Package(None, {"containers": folder}, ["web.tar.gz"])
    served.get("/v2/_catalog")
    answer = served.get("/-/images/applications/shop")
    assert answer.status == 200
    assert '<a href="/-/images/applications/shop/web">' in answer.body.decode()
    assert "/-/applications/shop/compose.yaml" in text_of(answer)
    image = served.get("/-/images/applications/shop/web")
    assert "has not been built yet" in text_of(image)
    assert b'<a href="/-/images/applications/shop">shop</a>' in image.body
    served.pull("applications/shop/web")
    assert "latest" in text_of(served.get("/-/images/applications/shop/web"))


def test_what_made_a_layer() -> None:
    """A list of store paths is told by its names; a long command is cut."""
    paths = [f"/nix/store/{'0' * 32}-{name}" for name in ("glibc-2.37", "hello-2.12")]
    assert in_short(f"store paths: {paths}") == "glibc-2.37, hello-2.12"
    assert in_short(f"COPY {paths[0]}") == f"COPY {paths[0]}"
    assert in_short("x" * 1000) == "x" * 160 + "…"
    assert in_short("") == ""
