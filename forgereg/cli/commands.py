"""
The commands that speak to a registry that runs: words in, lines and a status out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import update_wrapper
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater, react
from twisted.web.client import Agent, HTTPConnectionPool

from forgereg.cli.remote import Build, Remote, Trouble, parse_token, parse_url
from forgereg.cli.screen import clean, list_builds, list_swept, say, screen_of
from forgereg.flow.report import State

#: How long between two looks at a build, in seconds.
_LOOK_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
#: As shells have it for what SIGINT ended.
_INTERRUPTED = 130

#: Comes back when it is time to look again.
Wait = Callable[[], Deferred[None]]
#: What a command does.
Story = Callable[[Remote, Wait], Coroutine[Any, Any, None]]
#: Plays a story with the registry at a URL, and a token.
Play = Callable[[str, str, Story], None]


@click.group("forge-registry", context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Watch and steer the builds of a registry that runs."""


_URL = click.option(
    "--url",
    envvar="FORGE_URL",
    default="http://localhost:6443",
    show_default=True,
    help="Where the registry is (FORGE_URL).",
)
_TOKEN_FILE = click.option(
    "--token-file",
    envvar="FORGE_ADMIN_TOKEN_FILE",
    help="File with the token of who may change things (FORGE_ADMIN_TOKEN_FILE).",
)


def _speaks(tell: Callable[..., Story]) -> Callable[..., None]:
    """Have a command say to which registry it speaks, and play its story there."""

    def command(play: Play, /, url: str, token_file: str | None, **words: Any) -> None:
        play(parse_url(url), _token(token_file), tell(**words))

    return _URL(_TOKEN_FILE(update_wrapper(click.pass_obj(command), tell)))


def _token(path: str | None) -> str:
    if not path:
        return ""
    try:
        return parse_token(Path(path).read_text("utf-8"))
    except UnicodeDecodeError:
        raise Trouble("--token-file is not text") from None
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise Trouble(f"--token-file {path} cannot be read: {why}") from e


@commands.command()
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
@_speaks
def builds(everything: bool, as_json: bool) -> Story:
    """List what is being built."""

    async def story(remote: Remote, wait: Wait) -> None:
        states = () if everything else [each for each in State if not each.is_over]
        found = await remote.builds(states)
        if as_json:
            click.echo(json.dumps([build.raw for build in found], indent=2))
        elif found:
            list_builds(_console(), found, datetime.now(UTC))
        else:
            hint = "" if everything else "; --all shows what is over"
            click.echo(f"nothing is being built{hint}", err=True)

    return story


@commands.command()
@click.argument("id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the build is over.")
@_speaks
def log(id: str, follow: bool) -> Story:
    """Show what nix said in a build."""

    async def story(remote: Remote, wait: Wait) -> None:
        console = _console()
        reader = _Reader(remote, id, lambda lines: say(console, lines))
        while True:
            build = await remote.build(id)
            await reader.read_on()
            if build.state.is_over or not follow:
                reader.end()
                return
            await wait()

    return story


@commands.command()
@click.argument("id")
@_speaks
def cancel(id: str) -> Story:
    """End a build; whoever waits for it is told."""

    async def story(remote: Remote, wait: Wait) -> None:
        _tell(await remote.cancel(id))

    return story


@commands.command()
@click.argument("id")
@_speaks
def retry(id: str) -> Story:
    """Forget that a build failed, and start anew."""

    async def story(remote: Remote, wait: Wait) -> None:
        _tell(await remote.retry(id))

    return story


@commands.command()
@click.argument("image")
@click.option("--no-wait", is_flag=True, help="Do not stay until it is over.")
@_speaks
def build(image: str, no_wait: bool) -> Story:
    """
    Build an image without pulling it, and watch.

    IMAGE is a repository and maybe a tag, such as packages/hello:latest. The status is
    0 if the image is there. Ctrl-C leaves the build running.
    """

    async def story(remote: Remote, wait: Wait) -> None:
        begun = await remote.start(image)
        _tell(begun)
        if no_wait:
            return
        try:
            ended = await _watch(remote, begun, wait)
        except CancelledError:
            raise Trouble(
                f"the build goes on; 'forge-registry cancel {begun.id}' ends it",
                _INTERRUPTED,
            ) from None
        if ended.state is not State.DONE:
            why = ended.error or ended.state.value
            raise Trouble(f"{ended.image} was not built ({ended.id}): {why}")
        took = "" if ended.seconds is None else f", after {ended.seconds:.0f} s"
        say(_console(), f"{ended.image} is there{took}")

    return story


@commands.command()
@click.option("--dry-run", is_flag=True, help="Touch nothing, and only say.")
@_speaks
def sweep(dry_run: bool) -> Story:
    """Let go of images that nobody pulls."""

    async def story(remote: Remote, wait: Wait) -> None:
        swept = await remote.sweep(dry_run)
        try:
            list_swept(_console(), swept)
        except (LookupError, TypeError, ValueError) as e:
            raise Trouble("what the registry answers is not about a sweep") from e

    return story


class _Reader:
    """Reads a log on from where it was, and gives its lines, many at once."""

    def __init__(self, remote: Remote, id: str, give: Callable[[str], None]) -> None:
        self._remote, self._id, self._give = remote, id, give
        self._offset, self._rest = 0, b""

    async def read_on(self) -> None:
        """Give the whole lines that have come since the last time."""
        while True:
            piece, self._offset = await self._remote.log(self._id, self._offset)
            if not piece:
                return
            lines, ended, self._rest = (self._rest + piece).rpartition(b"\n")
            if ended:
                self._give(lines.decode("utf-8", "replace"))

    def end(self) -> None:
        """Give the last line, which may have no end."""
        if self._rest:
            self._give(self._rest.decode("utf-8", "replace"))


async def _watch(remote: Remote, build: Build, wait: Wait) -> Build:
    """Show a build until it is over."""
    with screen_of(_console()) as screen:
        reader = _Reader(remote, build.id, screen.log)
        while True:
            # First the state: once that is the last one, the log is whole.
            await reader.read_on()
            screen.show(build)
            if build.state.is_over:
                reader.end()
                return build
            await wait()
            build = await remote.build(build.id)


def _tell(build: Build) -> None:
    words = build.id, build.image, build.state.value
    click.echo("\t".join(map(clean, words)))


def _console() -> Console:
    return Console(highlight=False, emoji=False)


def _play(url: str, token: str, story: Story) -> None:
    """Play a story on the network, and end the process with its status."""

    async def main(reactor: Any) -> None:
        pool = HTTPConnectionPool(reactor)
        agent = Agent(reactor, connectTimeout=_CONNECT_SECONDS, pool=pool)
        remote = Remote(url, HTTPClient(agent).request, token, reactor)
        playing = Deferred.fromCoroutine(
            story(remote, lambda: deferLater(reactor, _LOOK_SECONDS))
        )
        # In place of Twisted's handlers, which would end us in the midst of it.
        reactor.callLater(0, _heed, lambda: reactor.callFromThread(playing.cancel))
        try:
            await playing
            sys.stdout.flush()
        except Trouble as e:
            e.show()
            raise SystemExit(e.exit_code) from e
        except CancelledError as e:
            raise SystemExit(_INTERRUPTED) from e
        except BrokenPipeError as e:
            # Whoever read has left; nor is there anybody to be told so at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from e

    react(main)


def _heed(stop: Callable[[], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def main() -> None:
    """Do what the command line says."""
    if isinstance(sys.stdout, TextIOWrapper):
        # Builds write letters that not every locale has.
        sys.stdout.reconfigure(errors="backslashreplace")
    commands(prog_name="forge-registry", obj=_play)
