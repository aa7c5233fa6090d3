"""Tests for `forgereg.web.status`: the page that says how the registry does."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from forgereg.config import TABLE
from forgereg.flow.status import MOST_SECONDS
from tests.registry import Served, serving

PATH = "/-/status"


def text(served: Served, path: str = PATH) -> str:
    """Give what a reader sees of the page, with single spaces."""
    answer = served.get(path)
    assert answer.status == 200, answer.body
    body = answer.body.decode().partition("<main")[2] or answer.body.decode()
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_page(served: Served) -> None:
    """Whoever opens the page sees that the registry can serve, and what it stands on."""
    served.pull("packages/hello")
    page = text(served)
    assert "Status ready" in page
    assert "0 of 8 running" in page
    assert served.nix.flake in page
    assert "x86_64-linux" in page


def test_fragment(served: Served) -> None:
    """What is shown anew every few seconds is a part of the page, without a frame."""
    answer = served.get(f"{PATH}/now")
    assert answer.body.lstrip().startswith(b'<div id="head"')
    assert answer["Content-Security-Policy"] is not None
    assert answer["Cache-Control"] == "no-store"
    assert "Space" in text(served, f"{PATH}/now")


def test_every_setting(served: Served) -> None:
    """Every setting is there, and those come first that somebody has set."""
    served.set(max_builds=3)
    page = text(served)
    own, _, usual = page.partition("Settings ")[2].partition("settings have their")
    assert "FORGE_MAX_BUILDS 3 builds" in own
    assert all(row.variable in page for row in TABLE)
    assert "FORGE_TAG_TTL 300 seconds" in usual


def test_setting_that_needs_a_restart(served: Served) -> None:
    """A setting that was changed and not yet applied shows both values."""
    served.set(cache_size=7)
    assert "settings have their defaults" in text(served).partition("CACHE_SIZE")[2]
    assert "CACHE_SIZE 1000 manifests after a restart 7" in text(served)


def test_no_secrets(tmp_path: Path) -> None:
    """Passwords in flake refs, and what is in the files of tokens, stay hidden."""
    token = tmp_path / "token"
    token.write_text("geheim")
    ref = "git+https://me:hunter2@example.org/it?access_token=hunter3"
    settings = {"flake": ref, "admin_token_file": str(token)}
    with serving(tmp_path / "registry", **settings) as served:
        page = text(served)
        assert "git+https://***@example.org" in page
        assert str(token) in page
        assert "hunter" not in page and "geheim" not in page


def test_hostile_texts(served: Served) -> None:
    """What is logged cannot become a part of the page."""
    recent = served.assembly.parts.machine.recent
    event = {"log_level": LogLevel.error, "log_format": "{it}", "log_time": 0.0}
    recent({**event, "log_namespace": "x", "it": "<script>alert(1)</script>\u202e"})
    body = served.get(PATH).body
    assert b"<script>alert" not in body and b"&lt;script&gt;alert" in body
    assert "\u202e".encode() not in body


def test_room(served: Served) -> None:
    """The page says how much layers and images take, of how much they may."""
    served.set(blobs_size=2**30, sweep_bytes=2**20)
    served.pull("packages/hello")
    page = text(served)
    assert re.search(r"Unpacked layers [\d.]+ (B|KiB) of 1.0 GiB", page), page
    assert re.search(r"Images that are kept [\d.]+ (B|KiB) of 1.0 MiB", page), page


def test_room_on_the_disk(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a disk, what is used and what is free are all there is, as df has it."""
    disk = SimpleNamespace(total=252 * 2**30, used=30 * 2**30, free=73 * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    assert "State directory's disk 30.0 GiB of 103.0 GiB" in text(served)


def test_sweep(served: Served) -> None:
    """After a sweep the page says when that was, and what came of it."""
    assert "Last sweep none since the start" in text(served)
    served.pull("packages/hello")
    Deferred.fromCoroutine(served.assembly.parts.works.sweep(dry_run=False))
    assert "Last sweep just now : let go of 0 images" in text(served)


def test_disk_that_does_not_answer(served: Served) -> None:
    """The page comes even where the disk of the state directory hangs."""
    served.readers.pause()
    answer = served.begin(PATH)
    for _ in range(10):
        served.clock.advance(MOST_SECONDS)
    assert b"not ready" in answer.answer().body
    served.readers.resume()


@pytest.mark.parametrize("path", ["/-/status/x", "/-/status/now/x"])
def test_other_paths(running: Served, path: str) -> None:
    """Below the page there is nothing else, and that is said in a page, too."""
    answer = running.get(path)
    assert answer.status == 404
    assert b"There is no such page." in answer.body


def test_lines_of_a_message(served: Served) -> None:
    """A message of several lines is shown as several, bounded."""
    recent = served.assembly.parts.machine.recent
    event = {"log_level": LogLevel.warn, "log_format": "{it}", "log_time": 0.0}
    recent({**event, "log_namespace": "x", "it": "exit code 7\n> words" + "\n" * 999})
    body = served.get(PATH).body.decode()
    assert "exit code 7\n&gt; words\n" in body and body.count("\n" * 400) == 0
