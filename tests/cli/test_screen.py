"""Tests for `forgereg.cli.screen`: what people see of a build."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from forgereg.cli.remote import Build
from forgereg.cli.screen import Bar, Lines, clean, list_builds, screen_of
from forgereg.web.reports import build_json
from tests.works import FAILED, RUNNING

BUILDING = Build.read(build_json(RUNNING))
BROKEN = Build.read(build_json(FAILED))


def console(is_terminal: bool = True) -> Console:
    """A terminal of 80 columns whose text is kept."""
    return Console(
        file=io.StringIO(), force_terminal=is_terminal, width=80, _environ={}
    )


def seen(console: Console) -> str:
    """Give what was written."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@given(line=st.text())
def test_lines_are_harmless(line: str) -> None:
    """Nothing that a build says can move the cursor, ring, or begin a new line."""
    assert clean(line).replace("\t", "").isprintable()


@given(line=st.text(st.characters(whitelist_categories=("L", "N", "P", "S"))))
def test_words_stay(line: str) -> None:
    """Letters, digits and signs of any script are shown as they are."""
    assert clean(line) == line


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[1;31merror:\x1b[0m no", "error: no"),
        ("\x1b\x1b[m[31m", r"\x1b[31m"),
        ("a\tb", "a\tb"),
        ("50%\r60%", r"50%\r60%"),
        ("\u202eevil", r"\u202eevil"),
    ],
)
def test_clean(line: str, shown: str) -> None:
    """Colours are left out, tabs stay, and all else that is obeyed is written out."""
    assert clean(line) == shown


def test_bar() -> None:
    """On a terminal there is a bar with derivations, bytes and phase under the log."""
    terminal = console()
    screen = screen_of(terminal)
    assert isinstance(screen, Bar)
    with screen:
        screen.show(BUILDING)
        screen.log("[bold]unpacking\x1b[2J")
        assert "━" in seen(terminal)
        assert (
            "building, 3/10 derivations, hello-2.12 buildPhase, 1.0 of 4.0 MiB"
            in seen(terminal)
        )
        assert r"[bold]unpacking\x1b[2J" in seen(terminal)
        assert "\x1b[?25l" in seen(terminal)
    assert seen(terminal).rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in seen(
        terminal
    )


def test_bar_without_numbers() -> None:
    """A build of which nothing is known yet has a bar, too."""
    terminal = console()
    with Bar(terminal) as screen:
        screen.show(evolve(BUILDING, progress=type(BUILDING.progress)()))
        assert "building" in seen(terminal)


def test_lines() -> None:
    """Where there is no terminal, a line is written whenever something is new."""
    file = console(is_terminal=False)
    screen = screen_of(file)
    assert isinstance(screen, Lines)
    with screen:
        for build in (BUILDING, BUILDING, BROKEN):
            screen.show(build)
    assert len(seen(file).splitlines()) == 2
    assert "\x1b" not in seen(file)


def test_table() -> None:
    """On a terminal, builds are a table whose ids can be copied whole."""
    terminal = console()
    now = BUILDING.asked_at + timedelta(seconds=75)
    long = evolve(BROKEN, image=f"[red]x\x1b[2J@sha256:{'0' * 64}")
    list_builds(terminal, [BUILDING, long], now)
    assert "75 s" in seen(terminal) and "00000…" in seen(terminal)
    assert "IMAGE" in seen(terminal) and "b2" in seen(terminal)
    assert "[red]x" in seen(terminal) and "\x1b[2J" not in seen(terminal)
