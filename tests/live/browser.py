"""
See pages as people do: in real Chromium, light and dark, on a desk and on a phone.

Pictures of every page that is looked at go to ``FORGE_SCREENSHOTS``, if that is set, so
that a person can look, too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal

from attrs import define, field, frozen
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

#: How much of a page may move while it loads: Cumulative Layout Shift.
MOST_SHIFT = 0.01

_WATCH_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) {
    const moved = each.sources.map((source) => source.node?.nodeName ?? "?");
    if (!each.hadRecentInput) window.shifts.push([each.value, moved.join(" ")]);
  }
}).observe({ type: "layout-shift", buffered: true });
"""
_WIDER = """() => {
  const most = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= most) return [];
  const wide = (each) => each.getBoundingClientRect().right > most + 1;
  return [...document.body.querySelectorAll("*")].filter(wide)
    .map((each) => each.outerHTML.slice(0, 120)).concat("the page");
}"""


@frozen
class Look:
    """
    What somebody has the page in.

    :ivar scheme: which colours.
    :ivar device: what the window is on; it is ``width`` by ``height`` CSS pixels.
    """

    scheme: Literal["light", "dark"]
    device: str
    width: int
    height: int


_DEVICES = (("desk", 1280, 800), ("phone", 360, 740))
LOOKS = tuple(
    Look("dark" if is_dark else "light", *device)
    for is_dark, device in product((False, True), _DEVICES)
)
DESK, PHONE = LOOKS[:2]


@define(slots=False)  # Playwright leaves notes in whose methods it calls
class Tab:
    """
    A tab of a browser, and what went wrong in it so far.

    :ivar faults: errors in the console, among them violations of the policy, exceptions
        and dialogs.
    """

    page: Page
    look: Look
    pictures: Path
    has_scripts: bool
    faults: list[str] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        page = self.page
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("dialog", self._asked)
        page.on("crash", lambda _: self.faults.append("the tab crashed"))

    def _said(self, message: Any) -> None:
        # The browser says so of every page that is answered with an error.
        is_status = "the server responded with a status of" in message.text
        if message.type == "error" and not (
            is_status and message.location["url"] == self.page.url
        ):
            self.faults.append(f"console: {message.text}")

    def _asked(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check(self, name: str, is_judged: bool = True) -> None:
        """
        Take a picture, and fail if the page as it is now has a fault.

        :param name: of the picture, to which the look is added.
        :param is_judged: whether axe is asked, which takes longer than all else.
        """
        look = self.look
        path = self.pictures / f"{name}-{look.device}-{look.scheme}.png"
        self.page.screenshot(path=path, full_page=True)
        wide = [f"too wide: {each}" for each in self.page.evaluate(_WIDER)]
        found = [*self.faults, *wide]
        if self.has_scripts:  # they are what measures
            shifts = self.page.evaluate("window.shifts")
            if sum(value for value, _ in shifts) > MOST_SHIFT:
                found.append(f"moves while it loads: {shifts}")
            if is_judged:
                found += _violations(self.page)
        assert not found, "\n".join([path.name, *found])


def _violations(page: Page) -> list[str]:
    """List what those meet who cannot see or point, as axe finds it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['impact']}: {each['id']}: {each['help']}: {node['html'][:200]}:"
        f" {node.get('failureSummary', '')}"
        for each in found
        for node in each["nodes"]
    ]


@define
class Chromium:
    """A browser; each tab is somebody else's, and remembers nothing of another."""

    browser: Browser
    pictures: Path

    @contextmanager
    def tab(
        self, look: Look = DESK, scripts: bool = True, **more: Any
    ) -> Iterator[Tab]:
        """
        Open a tab.

        :param scripts: whether pages may run theirs.
        :param more: of `playwright.sync_api.Browser.new_context`.
        """
        context: BrowserContext = self.browser.new_context(
            color_scheme=look.scheme,
            viewport={"width": look.width, "height": look.height},
            is_mobile=look.device == "phone",
            has_touch=look.device == "phone",
            java_script_enabled=scripts,
            reduced_motion="reduce",
            **more,
        )
        try:
            context.add_init_script(_WATCH_SHIFTS)
            yield Tab(context.new_page(), look, self.pictures, scripts)
        finally:
            context.close()

    def look_at(self, url: str, name: str) -> None:
        """Look at a page in every way, take pictures, and fail if it has a fault."""
        for look in LOOKS:
            with self.tab(look) as tab:
                tab.page.goto(url)
                # The dark phone has the layout of one, and the colours of another.
                tab.check(name, is_judged=look != LOOKS[-1])
        with self.tab(PHONE, scripts=False) as tab:
            tab.page.goto(url)
            tab.check(f"{name}-bare")


@contextmanager
def chromium(pictures: Path) -> Iterator[Chromium]:
    """
    Start the browser of this machine.

    :param pictures: where those go unless ``FORGE_SCREENSHOTS`` names another place.
    """
    pictures = Path(os.environ.get("FORGE_SCREENSHOTS") or pictures)
    pictures.mkdir(parents=True, exist_ok=True)
    arguments = [
        # Whatever a page asked of another host would be a fault.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
        # In containers /dev/shm is small.
        "--disable-dev-shm-usage",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        yield Chromium(browser, pictures)
        browser.close()
