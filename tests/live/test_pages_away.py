"""What people see who have a page open while the registry is away."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests import daemon
from tests.live.browser import DESK, PHONE, Chromium

#: How long nix may take to begin, and a page to notice, in milliseconds.
SOON = 60_000
COLOURS = "(all) => [...new Set(all.map((each) => getComputedStyle(each).color))]"


def test_registry_that_is_away(
    chromium: Chromium, sleepy: str, store: Path, tmp_path: Path
) -> None:
    """Pages say that the registry is away, move nothing, and go on when it is back."""
    port, options = daemon.free_port(), ("--store", str(store))
    here = f"http://localhost:{port}/-"
    with chromium.tab() as a, chromium.tab(PHONE) as b, chromium.tab(DESK) as c:
        tabs = {"build": a, "builds": b, "status": c}
        with daemon.registry(tmp_path, sleepy, *options, port=port) as running:
            a.page.goto(f"{here}/builds")
            a.page.get_by_label("Build an image").fill("packages/sleep-360")
            a.page.get_by_role("button", name="Build", exact=True).click()
            expect(a.page.locator("#log")).to_contain_text("asleep", timeout=SOON)
            b.page.goto(f"{here}/builds")
            c.page.goto(f"{here}/status")
            for tab in tabs.values():
                expect(tab.page.locator(".badge").first).to_be_visible(timeout=SOON)
            running.kill()
            for name, tab in tabs.items():
                away = tab.page.locator("#away")
                expect(away).to_contain_text("does not answer", timeout=SOON)
                expect(away).to_be_in_viewport()
                assert away.evaluate("(it) => it.scrollWidth <= it.clientWidth")
                colours = tab.page.eval_on_selector_all(".badge", COLOURS)
                assert len(colours) == 1, "a badge looks as if all were well"
                tab.faults.clear()  # the browser says that nobody answers, too
                tab.check(f"{name}-away")
            expect(a.page.get_by_role("button", name="Cancel")).to_be_disabled()
        with daemon.registry(tmp_path, sleepy, *options, port=port):
            for tab in tabs.values():
                expect(tab.page.locator("#away")).to_be_empty(timeout=SOON)
            for tab in (a, b):
                badge = tab.page.locator(".badge").first
                expect(badge).to_have_text("interrupted", timeout=SOON)
