"""Tests for what people read: each page leads on, and says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forgereg.cli import COMMANDS, DOCTOR
from forgereg.config import TABLE
from tests.daemon import ROOT

SETTINGS = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Give what the headings of a page are called in a link, as forges have it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every link within the documentation leads somewhere."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_found() -> None:
    """The README leads to every page."""
    readme = PAGES[0].read_text()
    assert all(f"](docs/{page.name})" in readme for page in PAGES[1:])


def test_commands() -> None:
    """The README shows every command."""
    for command in (*COMMANDS, DOCTOR):
        assert f"\nforge-registry {command} " in PAGES[0].read_text()


def test_faces_of_the_settings() -> None:
    """README and .env.example tell the same of every setting as the options."""
    example = (ROOT / ".env.example").read_text()
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `--([a-z-]+)` \|", SETTINGS, re.M))
    assert rows == {row.variable: row.option for row in TABLE}
    lines = dict(re.findall(r"^#([A-Z_]+)=(.*)$", example, re.M))
    fixed = {row.variable: row.default for row in TABLE if "{" not in row.default}
    assert lines.keys() == {row.variable for row in TABLE}
    assert {name: lines[name] for name in fixed} == fixed
    for row in TABLE:
        (line,) = re.findall(rf"^\| `{row.variable}` .*$", SETTINGS, re.M)
        assert row.unit in line
        if "{" not in row.default and row.default:
            assert f"| `{row.default}`" in line


def test_what_needs_a_restart() -> None:
    """README names every setting that SIGHUP does not apply, and no other."""
    (named,) = re.findall(r"a restart is needed for\s(.*?)\.\n\n", SETTINGS, re.S)
    needed = [row.variable for row in TABLE if not row.live]
    assert re.findall(r"`([A-Z_]+)`", named) == needed
