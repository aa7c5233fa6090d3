"""
What the doctor finds, and what it says to do about it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from attrs import frozen


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    ERROR = "error"


@frozen
class Finding:
    """
    One thing that was looked at.

    :ivar what: was looked at, in a word or two.
    :ivar detail: what was found.
    :ivar advice: what to do about it; empty where nothing need be done.
    """

    what: str
    level: Level
    detail: str
    advice: str = ""


def fine(what: str, detail: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(what, Level.OK, detail)


def skipped(why: str, *things: str) -> Iterator[Finding]:
    """Say of things that nobody has looked at them, as something else is wrong."""
    for what in things:
        yield Finding(what, Level.SKIPPED, f"not looked at, because {why}")


def doubtful(what: str, detail: str, advice: str) -> Finding:
    """Say that something may become a problem."""
    return Finding(what, Level.WARNING, detail, advice)


def wrong(what: str, detail: str, advice: str) -> Finding:
    """Say that something does not work."""
    return Finding(what, Level.ERROR, detail, advice)


#: What nix, git and ssh say → what helps. The first that fits counts.
_REMEDIES = (
    (("nixbld",), "set 'build-users-group =' in nix.conf or NIX_CONFIG, or use nix's daemon"),
    (("daemon-socket",), "start nix's daemon: systemctl start nix-daemon.socket"),
    (
        ("install nix", "upgrade nix", "install util-linux"),
        "see that the service's PATH has it as well",
    ),
    (("No space left",), "make room, as with nix-collect-garbage"),
    (("not owned by", "dubious ownership", "exit code 129"), "git config --global --add safe.directory <it>"),
    (("publickey",), "give the registry's user a key that the forge knows"),
    (("Host key verification",), "put the forge into known_hosts of the registry's user"),
    (
        ("resolve host", "resolve hostname"),
        "see that this machine resolves the name, and reaches the network or a proxy",
    ),
    (
        ("HTTP error 401", "HTTP error 403", "HTTP error 404", "Authentication failed"),
        "see that it is spelt right; a private flake needs FORGE_TOKEN_FILE",
    ),
    (
        ("does not contain a", "could not find a flake.nix", "flake.nix' does not exist", "flake.nix': No such file"),
        "name a directory or repository that has a flake.nix",
    ),
    (
        ("(at flake.nix:", "syntax error", "undefined variable", "-source/flake.nix"),
        "mend it where nix says: 'nix flake show' says the same",
    ),
    (("does not provide attribute",), "see that FORGE_SYSTEM is one that the flake has packages for"),
    (("does not exist", "No such file"), "see that it is spelt right"),
    (
        ("ermission denied", "eadonly", "ead-only"),
        "let the registry's user write there, use nix's daemon, or set FORGE_STORE",
    ),
)  # fmt: skip


def remedy(said: str, otherwise: str) -> str:
    """Say what helps against what a program said."""
    for signs, advice in _REMEDIES:
        if any(sign in said for sign in signs):
            return advice
    return otherwise
