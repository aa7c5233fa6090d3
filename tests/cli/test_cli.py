"""Tests for `forgereg.cli`: one command for the service and for its users."""

from __future__ import annotations

import sys

import pytest

from forgereg.cli import run


def test_unknown_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is none is answered by those that there are."""
    monkeypatch.setattr(sys, "argv", ["forge-registry", "brew"])
    with pytest.raises(SystemExit, match="no command 'brew'; there are build, "):
        run()
