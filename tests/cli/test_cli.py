"""Tests for `forgereg.cli`: one command for the service and for its users."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from forgereg.cli import run


def start(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as the console script does."""
    program = "from forgereg.cli import run; run()"
    root = Path(__file__).parents[2]
    script = f"import sys; sys.path.insert(0, {str(root)!r}); {program}"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_unknown_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is none is answered by those that there are."""
    monkeypatch.setattr(sys, "argv", ["forge-registry", "bulids"])
    with pytest.raises(SystemExit, match="no command 'bulids'; there are build, "):
        run()
