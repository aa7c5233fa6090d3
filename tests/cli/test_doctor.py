"""Tests for `forgereg.cli.doctor`: how findings are told, and what helps."""

from __future__ import annotations

import io
import json
import sys

import pytest
from rich.console import Console

from forgereg.cli import run
from forgereg.cli.doctor import show, tell
from forgereg.cli.findings import doubtful, fine, remedy, wrong

FINDINGS = [
    fine("nix", "nix (Nix) 2.8.0, with flakes"),
    doubtful("git", "is not on the PATH", "install git"),
    wrong("flake", "[red]\x1b[2J\ngone", "see that it is spelt right"),
]


def shown(*, is_terminal: bool) -> str:
    """Give what is written."""
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=is_terminal, width=40, color_system="standard"
    )
    for finding in FINDINGS:
        show(console, finding)
    return file.getvalue()


def test_lines() -> None:
    """Each finding is one line, whatever is in it; the terminal obeys none of it."""
    assert shown(is_terminal=False).splitlines() == [
        "ok      nix: nix (Nix) 2.8.0, with flakes",
        "warning git: is not on the PATH; install git",
        r"error   flake: [red]\x1b[2J\ngone; see that it is spelt right",
    ]


def test_colours() -> None:
    """On a terminal it is seen at once how bad something is."""
    lines = shown(is_terminal=True).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("\x1b[32mok\x1b[0m") and "\x1b[33mwarning" in lines[1]
    assert "\x1b[1;31merror" in lines[2] and r"\x1b[2J" in lines[2]


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning is no reason to fail, an error is; programs read the same as JSON."""
    assert tell(FINDINGS[:2], False) and not tell(FINDINGS, False)
    capsys.readouterr()
    assert not tell(FINDINGS, True)
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["findings"][1] == {
        "what": "git",
        "level": "warning",
        "detail": "is not on the PATH",
        "advice": "install git",
    }


def test_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The help says which status means what, and has the options of the service."""
    monkeypatch.setattr(sys, "argv", ["forge-registry", "doctor", "--help"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code in (0, None)
    said = " ".join(capsys.readouterr().out.split())
    assert "forge-registry doctor [options]" in said
    assert "Status 0: nothing is wrong; 1: something is; 2: called wrongly." in said
    assert "--json" in said and "--name=" in said and "--state-dir=" in said


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        ("the group 'nixbld' specified in 'build-users-group'", "build-users-group ="),
        ("cannot connect to socket at '/nix/var/nix/daemon-socket/socket'", "daemon"),
        ("unable to download 'https://x': HTTP error 404", "FORGE_TOKEN_FILE"),
        (
            "fatal: repository path '/srv/x' is not owned by current user",
            "safe.directory",
        ),
        ("error: No space left on device", "nix-collect-garbage"),
        ("source tree of 'path:/x' does not contain a '/flake.nix' file", "that has a"),
        ("error: could not find a flake.nix file", "that has a"),
        ("getting status of '/nix/store/x/flake.nix': No such file", "that has a"),
        ("syntax error, unexpected '}' (at flake.nix:3:1)", "where nix says"),
        (
            "error: syntax error\nat /nix/store/x-source/flake.nix:3:1:",
            "where nix says",
        ),
        ("the attribute 'x' of flake.nix is odd", "otherwise"),
        ("something quite new", "otherwise"),
    ],
)
def test_remedies(said: str, helps: str) -> None:
    """What nix says leads to what helps."""
    assert helps in remedy(said, "otherwise")
