"""What people see of a registry: its pages in a browser."""

from __future__ import annotations

from tests.daemon import Daemon
from tests.live.browser import Chromium


def test_pages(chromium: Chromium, registry: Daemon) -> None:
    """Every page can be read in light and dark, on a phone, and without scripts."""
    pages = {"status": "/-/status", "missing": "/-/status/nothing"}
    for name, path in pages.items():
        chromium.look_at(f"http://localhost:{registry.port}{path}", name)
