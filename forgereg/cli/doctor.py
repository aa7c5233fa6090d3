"""
The command ``forge-registry doctor``: looks at everything that the registry needs, and
says what to do about what is wrong.

It reads the settings as the start does, and may be run beside a registry that runs. The
status is 0 where nothing is wrong, 1 where something is, 2 where it was called wrongly.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import asdict
from rich.console import Console
from rich.text import Text
from twisted.internet.task import Clock
from twisted.python.usage import UsageError

from forgereg import tap
from forgereg.cli import checks, disk
from forgereg.cli.address import is_answered, look_at_port
from forgereg.cli.certificates import look_at_tls
from forgereg.cli.findings import Finding, Level, doubtful, fine, skipped, wrong
from forgereg.cli.screen import clean, say
from forgereg.config import SettingInvalid, Settings
from forgereg.endpoint import parse_endpoint
from forgereg.lines import masked

_COLOURS = {
    Level.OK: "green",
    Level.SKIPPED: "cyan",
    Level.WARNING: "yellow",
    Level.ERROR: "bold red",
}

#: As shells have it for what SIGINT ended.
_INTERRUPTED = 130


class Options(tap.Options):
    """The settings, and how the doctor tells of them."""

    synopsis = "Usage: forge-registry doctor [options]"
    longdesc = (
        "Look at everything that the registry needs, with the settings that it would"
        " start with, and say what to do about what is wrong. Status 0: nothing is"
        " wrong; 1: something is; 2: called wrongly."
    )
    optFlags = [["json", None, "Write JSON, for programs."]]

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def opt_name(self, name: str) -> None:
        """What clients call the registry; may be given several times."""
        self.names.append(name)

    def postOptions(self) -> None:
        """Read nothing yet: settings that make no sense are a finding."""


def examine(options: Options, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at everything, one after another. Blocking."""
    try:
        settings = options.read()
    except SettingInvalid as e:
        advice = "set it to something that is"
        yield wrong("settings", masked(str(e)), f"{advice}: README, 'Settings'")
        yield from skipped("the settings make no sense", "everything else")
        return
    yield fine("settings", "make sense")
    for name, advice in options.strangers.items():
        yield doubtful("settings", f"{name} is no setting", advice)
    with ExitStack() as stack:
        env = _nix_environment(environ, settings, stack)
        machine = checks.Machine(settings, env, platform.machine(), uuid.uuid4().hex)
        broken = ""
        for finding in checks.look_at_nix(machine):
            if finding.level is Level.ERROR:
                broken = "build" if finding.what == "builds" else "work"
            yield finding
        yield from checks.look_at_programs(machine)
        yield from disk.look_at_store(settings)
        yield from disk.look_at_state(settings)
        yield from checks.look_at_secrets(machine)
        yield from checks.look_at_traces(environ)
        yield from _look_at_address(settings, options.names)
        if broken:
            names = map(checks.name_of, checks.flakes_of(settings))
            yield from skipped(f"nix does not {broken}", *names)
        else:
            yield from checks.look_at_flakes(machine)


def _nix_environment(
    environ: Mapping[str, str], settings: Settings, stack: ExitStack
) -> dict[str, str]:
    env = tap.nix_environment(environ, settings)
    if "XDG_CACHE_HOME" not in environ and "XDG_CACHE_HOME" in env:
        # Rather than in the state directory, which may be another user's.
        env["XDG_CACHE_HOME"] = stack.enter_context(tempfile.TemporaryDirectory())
    return env


def _look_at_address(settings: Settings, names: Sequence[str]) -> Iterator[Finding]:
    endpoint = parse_endpoint(settings.endpoint)
    found = [*look_at_port(endpoint, disk.is_running(Path(settings.state_dir)))]
    if endpoint.has_tls:
        here, is_live = socket.getfqdn(), is_answered(endpoint)
        found += look_at_tls(endpoint, names, here, is_live)
    yield from found
    # What the start says of it itself, where we have not found words of our own; its
    # sockets systemd gives to nobody else.
    is_told = any(each.level is Level.ERROR for each in found)
    if not is_told and endpoint.kind != "systemd":
        try:
            tap.open_endpoint(settings, Clock())
        except ValueError as e:
            yield wrong(
                "port", str(e), "see Twisted's 'Getting Connected with Endpoints'"
            )


def show(console: Console, finding: Finding) -> None:
    """Write a line; it is coloured on a terminal."""
    word = finding.level.value
    told = "; ".join(filter(None, (finding.detail, finding.advice)))
    line = f"{word:8}{clean(f'{finding.what}: {told}')}"
    if console.is_terminal:
        text = Text(line)
        text.stylize(_COLOURS[finding.level], 0, len(word))
        console.print(text, soft_wrap=True)
    else:
        say(console, line)


def main(words: Sequence[str]) -> None:
    """Do what the command line says, and end the process with a status."""
    options = Options()
    try:
        options.parseOptions(list(words))
    except UsageError as e:
        print(f"forge-registry doctor: {e}", file=sys.stderr)
        raise SystemExit(2) from e
    try:
        is_ok = tell(examine(options, os.environ), bool(options["json"]))
    except KeyboardInterrupt as e:
        raise SystemExit(_INTERRUPTED) from e
    except BrokenPipeError as e:
        # Whoever read has left; nor is there anybody to be told so at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from e
    raise SystemExit(0 if is_ok else 1)


def tell(findings: Iterable[Finding], as_json: bool) -> bool:
    """Write what was found, each when it is; say whether nothing is wrong."""
    console = Console(highlight=False, emoji=False)
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            show(console, finding)
    is_ok = all(each.level is not Level.ERROR for each in found)
    if as_json:
        told = [asdict(each) | {"level": each.level.value} for each in found]
        print(json.dumps({"ok": is_ok, "findings": told}, indent=2))
    sys.stdout.flush()
    return is_ok
