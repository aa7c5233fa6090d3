"""What people do with the pages of builds in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.browser import PHONE, Chromium

TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Daemon]:
    """A registry whose images take their time, and that has a token."""
    tmp = tmp_path_factory.mktemp("sleepy")
    (tmp / "token").write_text(TOKEN)
    flake = daemon.flake(ROOT / "tests" / "flakes" / "sleepy", tmp / "flake")
    options = ["--store", str(store), "--admin-token-file", str(tmp / "token")]
    with daemon.registry(tmp, flake, *options) as running:
        yield running


def begin(chromium: Chromium, registry: Daemon, image: str) -> str:
    """Have an image built by the form; give the address of the build's page."""
    with chromium.tab() as tab:
        tab.page.goto(f"http://localhost:{registry.port}/-/builds")
        tab.page.get_by_label("Build an image").fill(f"packages/{image}")
        tab.page.get_by_role("button", name="Build", exact=True).click()
        expect(tab.page.locator("#log")).to_contain_text("asleep", timeout=60_000)
        return tab.page.url


def test_watching(chromium: Chromium, sleepy: Daemon) -> None:
    """Who watches a build sees its log and progress come, and cancels it."""
    url = begin(chromium, sleepy, "sleep-360")
    chromium.look_at(url, "build-running")
    chromium.look_at(f"http://localhost:{sleepy.port}/-/builds", "builds-running")
    with chromium.tab() as tab, chromium.tab(PHONE) as beside:
        tab.page.goto(url)
        beside.page.goto(f"http://localhost:{sleepy.port}/-/builds")
        beside.page.evaluate("window.mine = 1")
        expect(tab.page.get_by_role("progressbar")).to_be_visible()
        time = tab.page.locator('[aria-current="step"] .meta')
        before = time.inner_text()
        expect(time).not_to_have_text(before, timeout=10_000)
        tab.page.get_by_role("button", name="Cancel").click()
        expect(tab.page.locator(".badge")).to_have_text("cancelled", timeout=15_000)
        expect(tab.page.get_by_role("button", name="Retry")).to_be_visible()
        row = beside.page.locator("tr").filter(has_text="sleep-360")
        expect(row).to_contain_text("cancelled", timeout=15_000)
        assert beside.page.evaluate("window.mine") == 1
        assert tab.faults == beside.faults == []


def test_log_that_grows(chromium: Chromium, sleepy: Daemon) -> None:
    """Lines come while one watches, whatever one has focused, and are all there."""
    with chromium.tab() as tab:
        tab.page.goto(f"http://localhost:{sleepy.port}/-/builds")
        tab.page.get_by_label("Build an image").fill("packages/fails-after-25")
        tab.page.get_by_role("button", name="Build", exact=True).click()
        log = tab.page.locator("#log")
        expect(log).to_contain_text("all is well", timeout=60_000)
        tab.page.get_by_role("button", name="Cancel").focus()
        expect(tab.page.get_by_role("button", name="Cancel")).to_be_focused()
        expect(log).to_contain_text("the tape ran out", timeout=60_000)
        expect(tab.page.locator(".badge")).to_have_text("failed", timeout=15_000)
        assert tab.faults == []
        url = tab.page.url
    chromium.look_at(url, "build-failed")
    chromium.look_at(f"{url}?q=tape", "build-searched")


def test_logging_in(chromium: Chromium, sleepy: Daemon) -> None:
    """The page to log in can be read by anyone, and a wrong token is told of."""
    url = f"http://localhost:{sleepy.port}/-/login"
    chromium.look_at(url, "login")
    with chromium.tab() as tab:
        tab.page.goto(url)
        tab.page.get_by_label("Token").fill("wrong")
        tab.page.get_by_role("button", name="Log in").click()
        expect(tab.page.get_by_role("alert")).to_contain_text("not the token")
        tab.page.get_by_label("Token").fill(TOKEN)
        tab.page.get_by_role("button", name="Log in").click()
        expect(tab.page.get_by_role("button", name="Log out")).to_be_visible()
