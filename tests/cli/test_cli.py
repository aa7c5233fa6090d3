"""Tests for `forgereg.cli`: one command for the service and for its users."""

from __future__ import annotations

import sys

import pytest

from forgereg.cli import COMMANDS, run
from tests.daemon import ROOT


def test_unknown_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is none is answered by those that there are."""
    monkeypatch.setattr(sys, "argv", ["forge-registry", "brew"])
    with pytest.raises(SystemExit, match="no command 'brew'; there are build, "):
        run()


def test_readme() -> None:
    """The README shows every command."""
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"\nforge-registry {command} " in readme
