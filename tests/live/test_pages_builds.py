"""What people see of builds in a browser, and do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.browser import PHONE, Chromium

#: How long nix may take to begin, and to end, in milliseconds.
SOON, LATER = 60_000, 180_000
#: How long a long log is, and how much the registry may take then, in bytes.
FLOOD, MEMORY = 200_000_000, 400_000_000
#: How many lines a page has at most.
MOST_LINES = 12_000
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Daemon]:
    """A registry whose images take their time, of which none is there yet."""
    tmp = tmp_path_factory.mktemp("sleeper")
    (tmp / "token").write_text(TOKEN)
    flake = daemon.flake(ROOT / "tests" / "flakes" / "sleepy", tmp / "flake")
    (tmp / "flake" / "salt").write_text("pages")
    options = ("--store", str(store), "--admin-token-file", str(tmp / "token"))
    # At the level debug, each line of a build is one of the registry's own log, too.
    with daemon.registry(tmp, flake, *options, "--log-level", "info") as running:
        yield running


def url(registry: Daemon, path: str = "/-/builds") -> str:
    """Give the address of a page."""
    return f"http://localhost:{registry.port}{path}"


def build(page: Page, registry: Daemon, image: str) -> None:
    """Have an image built, and go to its build's page."""
    page.goto(url(registry))
    page.get_by_label("Build an image").fill(image)
    page.get_by_role("button", name="Build", exact=True).click()
    expect(page).to_have_url(re.compile(r"/-/builds/[a-z0-9]+$"))


def test_watching_a_pull(chromium: Chromium, sleeper: Daemon) -> None:
    """Who has the list open sees a pull arrive, and follows its bar and log to the end."""
    with ThreadPoolExecutor(1) as pool, chromium.tab() as tab:
        page = tab.page
        page.goto(url(sleeper))
        path = "/v2/packages/sleep-10/manifests/latest"
        pull = pool.submit(sleeper.ask, path)
        page.get_by_role("link", name="packages/sleep-10").click(timeout=SOON)
        expect(page.get_by_role("progressbar")).to_be_visible(timeout=SOON)
        log = page.get_by_role("log")
        expect(log).to_contain_text("falling asleep", timeout=SOON)
        tab.check("build-running")
        expect(page.locator("#state .badge")).to_have_text("done", timeout=SOON)
        expect(page.get_by_role("progressbar")).to_have_count(0)
        assert pull.result().status == 200
        tab.check("build-done")


def test_cancel_and_retry(chromium: Chromium, sleeper: Daemon) -> None:
    """Who is on the machine ends a build, which others see at once, and retries it."""
    with chromium.tab(PHONE) as tab, chromium.tab(PHONE) as beside:
        page = tab.page
        build(page, sleeper, "packages/sleep-360:latest")
        badge = page.locator("#state .badge")
        expect(badge).to_have_text("building", timeout=SOON)
        tab.check("build-to-cancel")
        beside.page.goto(url(sleeper))
        beside.page.evaluate("window.mine = 1")
        beside.check("builds-running")
        step = page.locator('[aria-current="step"] .meta')
        expect(step).not_to_have_text(step.inner_text(), timeout=SOON)
        first = page.url
        page.get_by_role("button", name="Cancel").click()
        expect(badge).to_have_text("cancelled", timeout=SOON)
        row = beside.page.locator("tr").filter(has_text="sleep-360")
        expect(row).to_contain_text("cancelled", timeout=SOON)
        assert beside.page.evaluate("window.mine") == 1  # it was never loaded anew
        page.get_by_role("button", name="Retry").click()
        expect(page).not_to_have_url(first)
        expect(badge).to_have_text("building", timeout=SOON)
        page.get_by_role("button", name="Cancel").click()
        expect(badge).to_have_text("cancelled", timeout=SOON)
        assert tab.faults == beside.faults == []


def test_build_that_fails(chromium: Chromium, sleeper: Daemon) -> None:
    """Who watches a build fail reads why, and what is focused stays so meanwhile."""
    with chromium.tab() as tab:
        page, log = tab.page, tab.page.locator("#log")
        build(page, sleeper, "packages/fails-after-8:latest")
        expect(log).to_contain_text("all is well", timeout=SOON)
        page.get_by_role("button", name="Cancel").focus()
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        expect(log).to_contain_text("the tape ran out", timeout=SOON)
        expect(page.locator("#state .badge")).to_have_text("failed", timeout=SOON)
        tab.check("build-failed")
        page.goto(f"{page.url}?q=tape")
        tab.check("build-searched")


def test_logging_in(chromium: Chromium, sleeper: Daemon) -> None:
    """Who has the token logs in with it, and whoever has another is told so."""
    with chromium.tab() as tab:
        page = tab.page
        page.goto(url(sleeper, "/-/login"))
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("button", name="Log out")).to_be_visible()


def test_without_scripts(chromium: Chromium, sleeper: Daemon) -> None:
    """Who lets no script run begins a build, sees it by reloading, and ends it."""
    with chromium.tab(scripts=False) as tab:
        page = tab.page
        build(page, sleeper, "packages/sleep-100:latest")
        log = page.locator("#log")
        for _ in range(100):
            if "falling asleep" in log.inner_text():
                break
            page.wait_for_timeout(200)
            page.reload()
        expect(log).to_contain_text("falling asleep")
        tab.check("build-bare")
        page.get_by_role("button", name="Cancel").click()
        page.goto(url(sleeper))
        row = page.locator("tr").filter(has_text="sleep-100")
        expect(row).to_contain_text("cancelled")


def test_lists(chromium: Chromium, sleeper: Daemon) -> None:
    """The list, the log-in page and a build that is unknown can be read everywhere."""
    pages = {"builds": "/-/builds", "login": "/-/login", "unknown": "/-/builds/none"}
    for name, path in pages.items():
        chromium.look_at(url(sleeper, path), name)


def test_fast_log(chromium: Chromium, sleeper: Daemon) -> None:
    """Who follows a log that comes faster than anyone reads sees how it ends."""
    with chromium.tab() as tab:
        build(tab.page, sleeper, "packages/floods-5:latest")
        badge = tab.page.locator("#state .badge")
        expect(badge).to_have_text("done", timeout=LATER)
        expect(tab.page.get_by_role("log")).to_contain_text("123456789")
        lines = "document.querySelectorAll('.line').length"
        tab.page.wait_for_function(f"{lines} < {MOST_LINES}")
        tab.check("build-fast")


def test_endless_log(chromium: Chromium, sleeper: Daemon) -> None:
    """A log of 200 MB is looked at, looked through and had whole; nobody runs out."""
    with chromium.tab() as tab:
        page = tab.page
        build(page, sleeper, "packages/many-1:latest")
        expect(page.locator("#state .badge")).to_have_text("done", timeout=SOON)
        path = page.url.partition(str(sleeper.port))[2]
        # Nix takes a minute for as much.
        log = sleeper.state / "logs" / f"{path.rpartition('/')[2]}.log"
        with log.open("ab") as file:
            for _ in range(FLOOD // 10**6):
                file.write(
                    b"123456789" * 11 + b"\n" + b"0123456789" * 99_989 + b"\n" * 10
                )
        page.reload()
        assert page.locator(".line").count() < MOST_LINES
        tab.check("build-endless")
        page.get_by_role("searchbox").fill("91234")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("lines with")).to_be_visible(timeout=SOON)
        tab.check("build-endless-found")
    assert len(sleeper.ask(f"{path}/log.txt").body) >= FLOOD
    assert sleeper.resident_bytes() < MEMORY
