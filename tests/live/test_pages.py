"""What people see of a registry: its pages in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.browser import DESK, PHONE, Chromium, Tab
from tests.live.clients import Podman


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Daemon]:
    """A registry whose flake says nothing that is not an attack."""
    tmp = tmp_path_factory.mktemp("hostile")
    flake = daemon.flake(ROOT / "tests" / "flakes" / "hostile", tmp / "flake")
    with daemon.registry(tmp, flake, "--store", str(store)) as running:
        yield running


def address(registry: Daemon, path: str) -> str:
    """Give the address of a page."""
    return f"http://localhost:{registry.port}{path}"


def open_home(tab: Tab, registry: Daemon, query: str = "") -> None:
    """Open the first page, and wait until the flake has been read."""
    tab.page.goto(address(registry, f"/{query}"))
    expect(tab.page.locator(".entry").first).to_be_visible(timeout=60_000)


PAGES = {
    "home": "/?client=podman",
    "home-search": "/?q=app&kind=application",
    "home-nothing": "/?q=zzz",
    "image": "/-/images/packages/hello",
    "image-unbuilt": "/-/images/packages/hello-single",
    "image-unknown": "/-/images/packages/nothing",
    "builds": "/-/builds",
    "status": "/-/status",
    "missing": "/-/status/nothing",
}


@pytest.mark.parametrize("name", PAGES)
def test_pages(chromium: Chromium, registry: Daemon, name: str) -> None:
    """Every page can be read in light and dark, on a phone, and without scripts."""
    registry.ask("/v2/packages/hello/manifests/latest")
    with chromium.tab() as tab:
        open_home(tab, registry)
    chromium.look_at(address(registry, PAGES[name]), name)


def test_copied_command(chromium: Chromium, registry: Daemon, podman: Podman) -> None:
    """Who copies the command beside a package has its image by running that."""
    granted = ["clipboard-read", "clipboard-write"]
    with chromium.tab(permissions=granted) as tab:
        open_home(tab, registry, "?client=podman")
        entry = tab.page.locator(".entry").filter(has_text="hello-plain")
        entry.get_by_role("button", name="Copy").click()
        expect(entry.get_by_role("button", name="Copy")).to_contain_text("Copied")
        command = tab.page.evaluate("navigator.clipboard.readText()")
        assert tab.faults == []
    assert command.startswith("podman pull")
    outcome = podman.shell(command)
    assert outcome.status == 0, outcome.text


def test_search(chromium: Chromium, registry: Daemon) -> None:
    """Who types sees what matches, and goes on from there by the address alone."""
    with chromium.tab() as tab:
        open_home(tab, registry)
        entries = tab.page.locator(".entry")
        tab.page.get_by_role("searchbox").press_sequentially("hello-pl", delay=20)
        expect(entries).to_have_count(1)
        expect(entries).to_contain_text("hello-plain")
        expect(tab.page).to_have_url(address(registry, "/?q=hello-pl"))
        tab.check("home-found")
        tab.page.get_by_role("searchbox").fill("nothing is called so")
        expect(entries).to_have_count(0)
        tab.check("home-typed-nothing")


def test_keyboard(chromium: Chromium, registry: Daemon) -> None:
    """Who has no mouse skips to the content, searches, and opens what was found."""
    with chromium.tab() as tab:
        open_home(tab, registry)
        keyboard = tab.page.keyboard
        keyboard.press("Tab")
        expect(tab.page.get_by_role("link", name="Skip to the content")).to_be_focused()
        keyboard.press("Enter")
        expect(tab.page.get_by_role("main")).to_be_focused()
        keyboard.press("/")
        expect(tab.page.get_by_role("searchbox")).to_be_focused()
        keyboard.type("hello-plain")
        entries = tab.page.locator(".entry")
        expect(entries).to_have_count(1)
        link = entries.get_by_role("link", name="hello-plain")
        for _ in range(30):
            keyboard.press("Tab")
            if link.evaluate("each => each === document.activeElement"):
                break
        expect(link).to_be_focused()
        keyboard.press("Enter")
        expect(tab.page).to_have_url(
            address(registry, "/-/images/packages/hello-plain")
        )


def test_search_without_scripts(chromium: Chromium, registry: Daemon) -> None:
    """Who lets no script run searches all the same."""
    with chromium.tab(PHONE, scripts=False) as tab:
        tab.page.goto(address(registry, "/"))
        tab.page.get_by_role("searchbox").fill("hello-plain")
        tab.page.get_by_role("button", name="Search").click()
        expect(tab.page.locator(".entry")).to_have_count(1)


def test_status_stays_new(chromium: Chromium, registry: Daemon) -> None:
    """The status page shows what has changed, without being loaded again."""
    with chromium.tab() as tab:
        tab.page.goto(address(registry, "/-/status"))
        tab.page.evaluate("window.mine = 1")
        time = tab.page.locator("#head time")
        before = time.inner_text()
        expect(time).not_to_have_text(before, timeout=15_000)
        assert tab.page.evaluate("window.mine") == 1
        tab.check("status-later")


def test_status_of_what_has_gone(
    chromium: Chromium, tmp_path: Path, example: str
) -> None:
    """Who watches a registry end is told so, and sees how it was."""
    with daemon.registry(tmp_path, example) as registry, chromium.tab() as tab:
        tab.page.goto(address(registry, "/-/status"))
        registry.stop()
        away = tab.page.get_by_text("The registry does not answer")
        expect(away).to_be_visible(timeout=15_000)
        expect(tab.page.get_by_role("heading", name="Space")).to_be_visible()


HOSTILE_PAGES = {
    "home": "/",
    "image": "/-/images/packages/shouts",
    "builds": "/-/builds",
    "build": "",
    "status": "/-/status",
}


@pytest.mark.parametrize("name", HOSTILE_PAGES)
def test_hostile_words(chromium: Chromium, hostile: Daemon, name: str) -> None:
    """Whatever a flake, a build or an image says is text, and moves nothing."""
    for image in ("shouts", "fails"):
        hostile.ask(f"/v2/packages/{image}/manifests/latest")
    failed = hostile.ask("/-/api/builds").json["builds"]
    path = HOSTILE_PAGES[name] or f"/-/builds/{failed[0]['id']}"
    for look in (DESK, PHONE):
        with chromium.tab(look) as tab:
            open_home(tab, hostile)
            tab.page.goto(address(hostile, path))
            tab.check(f"hostile-{name}")
            assert tab.page.evaluate("window.pwned") is None
            assert tab.page.locator("main img, main script").count() == 0
            links = tab.page.locator("a").evaluate_all(
                "all => all.map((a) => a.protocol)"
            )
            assert set(links) <= {"http:", "https:"}
