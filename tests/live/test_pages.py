"""What people see of a registry: its pages in a browser."""

from __future__ import annotations

from tests.daemon import Daemon
from tests.live.browser import Chromium


def test_pages(chromium: Chromium, registry: Daemon) -> None:
    """Every page can be read in light and dark, on a phone, and without scripts."""
    registry.ask("/v2/packages/hello/manifests/latest")
    pages = {
        "home": "/?client=podman",
        "home-search": "/?q=app&kind=application",
        "home-nothing": "/?q=zzz",
        "status": "/-/status",
        "missing": "/-/status/nothing",
    }
    for name, path in pages.items():
        chromium.look_at(f"http://localhost:{registry.port}{path}", name)
