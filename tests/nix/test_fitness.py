"""Tests for `forgereg.nix.fitness`: what nix says is wrong, in one line."""

from __future__ import annotations

import pytest

from forgereg.nix.fitness import NixUnfit, check_nix, told
from forgereg.nix.flake import Command

RETRY = (
    r'@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m'
    r" \u001b[31;1merror:\u001b[0m unable to download 'https://a.b': Couldn't resolve"
    r' host name (6); retrying in 337 ms"}'
)
ERROR = (
    '@nix {"action":"msg","column":null,"file":null,"level":0,"line":null,'
    '"msg":"error: no way","raw_msg":"unable to download \'https://a.b\'"}'
)
HINT = '@nix {"action":"msg","level":0,"msg":"(use \'--show-trace\' to show more)"}'


def test_the_cause_comes_first() -> None:
    """Of tries that failed, and other warnings, nothing is left before the cause."""
    said = "\n".join([RETRY, RETRY, "fatal: no such host", ERROR, ERROR, HINT])
    assert told(said) == "fatal: no such host unable to download 'https://a.b'"


def test_nothing_but_warnings() -> None:
    """Where there is no cause, warnings are better than nothing, each of them once."""
    assert told(f"{RETRY}\n{RETRY}").count("retrying in") == 1
    assert told("") == ""


def test_nothing_is_installed() -> None:
    """Where everything is missing, nix is named, and named first."""
    with pytest.raises(NixUnfit) as raised:
        check_nix(Command("x86_64-linux", ""), {"PATH": ""})
    assert str(raised.value).startswith("nix not found on the PATH: install nix 2.8")
