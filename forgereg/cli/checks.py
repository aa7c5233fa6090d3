"""
Look at nix, at other programs, and at flakes and the secrets for them. Blocking.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from subprocess import TimeoutExpired

from attrs import field, frozen

from forgereg import traces
from forgereg.cli.findings import Finding, doubtful, fine, remedy, skipped, wrong
from forgereg.config import Settings
from forgereg.lines import masked, one_line
from forgereg.nix.fitness import NixUnfit, check_nix, told
from forgereg.nix.flake import Command, catalogue_query, limited, parse_locked
from forgereg.nix.process import ask_now
from forgereg.nix.tokens import environment, read_token, redact
from forgereg.secrets import read_secret
from forgereg.values import FlakeSetting

#: How long nix may take to build nothing, and to look a flake up, in seconds.
_TRIAL_SECONDS, _LOCK_SECONDS = 120.0, 120.0
_MAX_SAID = 300
#: How long a secret has to be that nobody guesses, in characters.
_LEAST_SECRET = 20


@frozen
class Machine:
    """
    What is looked at.

    :ivar env: what nix runs with.
    :ivar architecture: this machine's, as the kernel names it.
    :ivar nonce: another one each time.
    """

    settings: Settings
    env: Mapping[str, str] = field(repr=False)
    architecture: str
    nonce: str

    @property
    def command(self) -> Command:
        """How nix is called."""
        return Command(self.settings.system, self.settings.store)


def look_at_nix(machine: Machine) -> Iterator[Finding]:
    """Find nix, and have it build something small."""
    try:
        version = check_nix(machine.command, machine.env)
    except NixUnfit as e:
        otherwise = "see what nix.conf, NIX_CONFIG and FORGE_STORE say"
        yield wrong("nix", str(e), remedy(str(e), otherwise))
        yield from skipped("nix does not work", "builds")
    else:
        yield fine("nix", f"{version}, with flakes")
        yield _builds(machine)
    system, here = machine.settings.system, f"{machine.architecture}-linux"
    if system != here:
        yield doubtful(
            "system",
            f"FORGE_SYSTEM is {system}, and this machine is {here}",
            "see that nix has a remote builder or an emulator for it",
        )


def _builds(machine: Machine) -> Finding:
    command, env = machine.command, machine.env
    try:
        status, _, said = ask_now(command.trial(machine.nonce), env, _TRIAL_SECONDS)
    except TimeoutExpired:
        advice = "see whether other builds hold it up, and that substituters answer"
        what = f"nix builds nothing in {_TRIAL_SECONDS:.0f} s"
        return wrong("builds", what, advice)
    if status:
        text = one_line(told(said), _MAX_SAID) or f"nix ended with status {status}"
        advice = remedy(text, "have it build something by hand, as the same user")
        return wrong("builds", f"nix cannot build: {text}", advice)
    return fine("builds", "nix builds")


def look_at_programs(machine: Machine) -> Iterator[Finding]:
    """Find what is needed for some images and some flakes."""
    env = dict(machine.env)
    path = env.get("PATH")
    if shutil.which("git", path=path):
        yield fine("git", "is there")
    else:
        advice = "install git, for flakes in repositories, and tags"
        yield doubtful("git", "is not on the PATH", advice)
    if not shutil.which("bwrap", path=path):
        advice = "install bubblewrap, for images that are scripts (streamLayeredImage)"
        yield doubtful("bubblewrap", "bwrap is not on the PATH", advice)
        return
    argv = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    try:
        status, _, said = ask_now(argv, env)
    except (OSError, TimeoutExpired) as e:
        status, said = 1, str(e)
    if status:
        yield doubtful(
            "bubblewrap",
            f"has no sandbox for images that are scripts: {one_line(said, _MAX_SAID)}",
            "allow user namespaces: docs/operations.md, 'Images that are scripts'",
        )
    else:
        yield fine("bubblewrap", "has a sandbox for images that are scripts")


def look_at_secrets(machine: Machine) -> Iterator[Finding]:
    """See that the files with secrets are there, and that others cannot read them."""
    settings = machine.settings
    for variable, path in (
        ("FORGE_ADMIN_TOKEN_FILE", settings.admin_token_file),
        ("FORGE_HOOK_SECRET_FILE", settings.hook_secret_file),
    ):
        if path:
            try:
                secret = read_secret(path) or ""
            except ValueError as e:
                yield wrong(variable, str(e), "put one secret into it")
                continue
            yield _privacy(variable, path)
            # Nobody who tries one after another is slowed down enough.
            if len(secret) < _LEAST_SECRET:
                advice = f"make another: openssl rand -hex 32 > {path}"
                yield doubtful(variable, f"what {path} holds can be guessed", advice)
    for each in flakes_of(settings):
        if each.token_file:
            try:
                read_token(each.token_file)
            except ValueError as e:
                yield wrong(name_of(each), str(e), "put one token into it")
            else:
                yield _privacy(name_of(each), each.token_file)


def look_at_traces(environ: Mapping[str, str]) -> Iterator[Finding]:
    """See that traces can be sent, where they are wanted."""
    try:
        if traces.are_wanted(environ):
            yield fine("traces", "are sent to the collector that is set")
    except ValueError as e:
        yield wrong("traces", str(e), "docs/operations.md, 'Traces'")


def _privacy(what: str, path: str) -> Finding:
    mode = os.stat(path).st_mode
    if stat.S_IMODE(mode) & 0o077:
        return doubtful(what, f"others can read {path}", f"chmod 600 {path}")
    return fine(what, f"{path} can be read, and by nobody else")


def flakes_of(settings: Settings) -> list[FlakeSetting]:
    """List the flakes that are served, the one without a prefix first."""
    main = FlakeSetting("", settings.flake, settings.tags, settings.token_file)
    return [main, *settings.flakes]


def name_of(flake: FlakeSetting) -> str:
    """Name what is found out about a flake."""
    return f"flake {flake.prefix}".strip()


def look_at_flakes(machine: Machine) -> Iterator[Finding]:
    """Fetch each flake, and count what it has."""
    for each in flakes_of(machine.settings):
        yield _flake(machine, each)


def _flake(machine: Machine, flake: FlakeSetting) -> Finding:
    what, shown, settings = name_of(flake), masked(flake.flake), machine.settings
    try:
        token = read_token(flake.token_file) if flake.token_file else None
    except ValueError:
        token = None  # it was told of
    env = environment(flake.flake, token, machine.env)

    def ask(argv: list[str], seconds: float) -> tuple[str, str]:
        """Give what nix answers, or what it says is wrong."""
        try:
            status, answer, said = ask_now(argv, env, seconds)
        except TimeoutExpired:
            return "", f"nix has no answer in {seconds:.0f} s"
        except OSError as e:
            return "", f"nix cannot be run: {e.strerror}"
        if not status:
            return answer, ""
        # First what is secret is taken out: a half of it might not be found.
        text = one_line(redact(masked(told(said)), token), _MAX_SAID)
        return "", text or f"nix ended with status {status}"

    answer, said = ask(machine.command.lock(flake.flake), _LOCK_SECONDS)
    if said:
        advice = remedy(said, "see that it is spelt right, and can be reached")
        return wrong(what, f"{shown} cannot be read: {said}", advice)
    locked = parse_locked(json.loads(answer)) or flake.flake
    argv = machine.command.evaluate(locked, catalogue_query(), builds=False)
    argv = limited(argv, settings.evaluation_memory)
    answer, said = ask(argv, settings.evaluation_timeout)
    if said:
        advice = remedy(said, "see what 'nix flake show' says of it")
        return wrong(what, f"{shown} cannot be evaluated: {said}", advice)
    listed = json.loads(answer)
    packages = sum(bool(each["image"]) for each in listed)
    applications = sum(bool(each["containers"]) for each in listed)
    found = f"{packages} packages and {applications} applications have images"
    if not packages and not applications:
        advice = "give its packages an attribute image: docs/flakes.md"
        return doubtful(
            what, f"{shown}: of {len(listed)} packages none has one", advice
        )
    return fine(what, f"{redact(masked(locked), token)}: {found}")
