"""
The first page of a large catalogue, in Chromium, against nginx with the same bytes.

Chromium alone takes half of the time, or more, and as many cores as there are: what the
registry takes, and what an empty page would, is told beside it.
"""

from __future__ import annotations

import platform
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.table import Mark, Row
from benchmarks.timing import in_turns
from tests.daemon import Daemon
from tests.live.browser import Chromium, chromium

PACKAGES = 2000
LIMIT_MS = 100.0
_READ_SECONDS = 300.0
#: What is not built needs no builder.
_FLAKE = """
{
  outputs = _: {
    packages.%(system)s = builtins.listToAttrs (builtins.genList (n:
      let name = "package-${toString n}"; made = name: derivation {
        inherit name; system = "%(system)s"; builder = "/bin/sh";
      };
      in {
        inherit name;
        value = made name // {
          version = "1.${toString n}";
          image = made "${name}.tar";
          meta = {
            description = "Package number ${toString n}, one of many of its kind";
            homepage = "https://example.org/${name}";
            license = { spdxId = "MIT"; };
          };
        };
      }) %(packages)s);
  };
}
"""
_READY = """() => {
  const painted = performance.getEntriesByName("first-contentful-paint")[0];
  const loaded = performance.getEntriesByType("navigation")[0];
  return painted && loaded.loadEventEnd > 0 && [
    Math.max(painted.startTime, loaded.domContentLoadedEventEnd), loaded.responseEnd
  ];
}"""


def measure(bench: Bench) -> Iterator[Row]:
    """Measure how soon the page is painted, and its document ready."""
    folder = bench.folder()
    with (
        bench.serving(_flake(bench.folder())) as running,
        peers.nginx(folder, peers.make_certificate(folder)) as nginx,
        chromium(bench.folder()) as browser,
    ):
        _save(_read(running), running, nginx.root)
        (nginx.root / "empty.html").write_text("<!doctype html><p>nothing")
        answered: list[float] = []
        empty: list[float] = []

        def visit() -> float:
            empty.append(_ready_ms(browser, nginx.port, "empty.html")[0])
            ready, first = _ready_ms(browser, running.port)
            answered.append(first)
            return ready

        ours, theirs = in_turns(
            visit, lambda: _ready_ms(browser, nginx.port)[0], bench.times * 3
        )
    remark = (
        f"The registry's answer was there after {statistics.median(answered):.0f} ms;"
        f" an empty page takes this browser {statistics.median(empty):.0f} ms."
    )
    work = f"ready and painted: the first page of {PACKAGES:,} packages, in Chromium"
    mark = Mark(1.0)
    yield Row(
        "page", work, "as long as it may take", ours, LIMIT_MS, "ms", mark, remark
    )
    peer = "nginx with the same bytes"
    yield Row("page-nginx", "the same", peer, ours, theirs, "ms", Mark(2.0))


def _flake(folder: Path) -> str:
    given = {"system": f"{platform.machine()}-linux", "packages": PACKAGES}
    (folder / "flake.nix").write_text(_FLAKE % given)
    return f"path:{folder}"


def _read(running: Daemon) -> bytes:
    """Give the page, once the flake has been read."""
    deadline = time.monotonic() + _READ_SECONDS
    while b'class="entry"' not in (page := running.ask("/").body):
        if time.monotonic() > deadline:
            raise RuntimeError("the catalogue does not come")
        time.sleep(0.2)
    return page


def _save(page: bytes, running: Daemon, root: Path) -> None:
    """Put the page, and all that belongs to it, where the peer serves it from."""
    (root / "index.html").write_bytes(page)
    for path in re.findall(rb'"(/-/static/[^"]+)', page):
        name = path.decode()
        file = root / name[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(running.ask(name).body)


def _ready_ms(browser: Chromium, port: int, path: str = "") -> tuple[float, float]:
    """Give how soon a page is ready, and answered, for who has been there before."""
    with browser.tab() as tab:
        for _ in range(2):  # the first time the browser starts a process
            tab.page.goto(f"http://localhost:{port}/{path}")
            ready, answered = tab.page.wait_for_function(_READY).json_value()
            # What it still does for one visit is not to be part of the next.
            tab.page.wait_for_load_state("networkidle")
        return float(ready), float(answered)
