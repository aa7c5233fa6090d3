"""The first page: what flakes say of their packages, and how one looks through it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.browser import PHONE, Chromium


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Daemon]:
    """A registry of packages that say of themselves what nobody expects."""
    tmp = tmp_path_factory.mktemp("words")
    flake = daemon.flake(ROOT / "tests" / "flakes" / "words", tmp / "flake")
    with daemon.registry(tmp, flake, "--store", str(store)) as running:
        yield running


def shown(chromium: Chromium, registry: Daemon, name: str) -> str:
    """Give what a person reads of one package, once nix has read the flake."""
    with chromium.tab() as tab:
        tab.page.goto(f"http://localhost:{registry.port}/?q=packages/{name}")
        entry = tab.page.locator(".entry").first
        entry.wait_for()
        tab.check(f"words-{name}", is_judged=name == "long")
        return entry.inner_text()


def test_what_packages_say(chromium: Chromium, words: Daemon) -> None:
    """What a package says of itself is shown as text, whatever it is, and not all of it."""
    assert "Says hello" in shown(chromium, words, "plain")
    assert "<script>alert(1)</script>" in shown(chromium, words, "script")
    assert len(shown(chromium, words, "long")) < 1500
    others = shown(chromium, words, "other-kinds")
    assert "gpl, BSD" in others
    assert "example.org" in others
    for name in ("throws", "throws-inside"):
        assert name in shown(chromium, words, name)


def test_search_as_one_types(chromium: Chromium, words: Daemon) -> None:
    """A key leads to the search, which shows what matches while one types."""
    with chromium.tab(PHONE) as tab:
        page = tab.page
        page.goto(f"http://localhost:{words.port}/")
        page.locator(".entry").first.wait_for()
        page.keyboard.press("/")
        page.keyboard.type("number-19")
        page.get_by_text(re.compile("^111 of 2,0")).wait_for()
        assert page.locator(".entry .name").first.inner_text() == "packages/number-19"
        assert page.url.endswith("/?q=number-19")
        tab.check("home-typed")
        page.get_by_role("link", name="Next").click()
        page.wait_for_url("**page=2")
        assert page.locator(".entry").count() == 50


def test_command_is_copied(chromium: Chromium, words: Daemon) -> None:
    """The command that is copied is the one that is shown, for the client chosen."""
    with chromium.tab(permissions=["clipboard-read", "clipboard-write"]) as tab:
        page = tab.page
        page.goto(f"http://localhost:{words.port}/?q=plain")
        page.get_by_role("link", name="Podman").click()
        page.wait_for_url("**client=podman")
        page.get_by_role("button", name="packages/plain").click()
        page.get_by_text("Copied", exact=True).wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        host = f"localhost:{words.port}"
        assert copied == f"podman pull --tls-verify=false {host}/packages/plain"


def test_page_stays_new(chromium: Chromium, tmp_path: Path, example: str) -> None:
    """An open page tells of what others pull, and nobody loses their place in it."""
    with daemon.registry(tmp_path, example) as registry, chromium.tab() as tab:
        registry.ask("/v2/applications/web-app/web/manifests/latest")
        page = tab.page
        page.goto(f"http://localhost:{registry.port}/")
        entry = page.locator(".entry").filter(has_text="packages/hello-plain")
        entry.get_by_text("not built").wait_for(timeout=60_000)
        link = entry.get_by_role("link", name="hello-plain")
        link.focus()
        details = page.locator(".entry details").first
        details.evaluate("each => each.open = true")
        registry.ask("/v2/packages/hello-plain/manifests/latest")
        entry.get_by_text("ready", exact=True).wait_for(timeout=20_000)
        assert link.evaluate("each => each === document.activeElement")
        assert details.evaluate("each => each.open")
        assert page.get_by_role("button", name="Copy").first.is_visible()
        assert tab.faults == []
