"""The command line as its users have it: a process of its own, and a real socket."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
import pytest_twisted
from attrs import define, evolve, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.server import Site

from forgereg.flow.report import State
from tests.daemon import ROOT, free_port
from tests.works import BEGIN, RUNNING, Controlled

DONE = evolve(RUNNING, state=State.DONE, finished_at=BEGIN + 31.5)


@define(eq=False)
class Terminal(ProcessProtocol):
    """
    A command, and what it has written.

    :ivar interrupt_at: at which words of its output somebody presses ctrl-C.
    :ivar ended: fires with the exit status.
    """

    interrupt_at: bytes = b""
    out: bytes = b""
    err: bytes = b""
    ended: Deferred[int] = field(factory=Deferred)

    def outReceived(self, data: bytes) -> None:
        """Keep what is written, and press ctrl-C in time."""
        self.out += data
        if self.interrupt_at and self.interrupt_at in self.out:
            self.interrupt_at = b""
            assert self.transport is not None
            cast(Any, self.transport).signalProcess("INT")

    def errReceived(self, data: bytes) -> None:
        """Keep what is told of errors."""
        self.err += data

    def processEnded(self, reason: Failure) -> None:
        """Tell the exit status."""
        self.ended.callback(cast(Any, reason.value).exitCode)


async def type_(
    *words: str, url: str, tty: bool = False, interrupt_at: bytes = b""
) -> tuple[int, str, str]:
    """Type a command; give status, standard output and standard error."""
    argv = [sys.executable, "-c", "from forgereg.cli import run; run()", *words]
    env = {**os.environ, "FORGE_URL": url, "TERM": "xterm"}
    terminal = Terminal(interrupt_at)
    cast(Any, reactor).spawnProcess(
        terminal, sys.executable, argv, env, str(ROOT), usePTY=tty
    )
    status = await terminal.ended
    return status, terminal.out.decode(), terminal.err.decode()


@pytest.fixture
def control() -> Controlled:
    """Builds that are played."""
    return Controlled()


@pytest.fixture
def url(control: Controlled) -> Iterator[str]:
    """A registry whose builds are played."""
    port = cast(Any, reactor).listenTCP(
        0, Site(control.resource), interface="127.0.0.1"
    )
    yield f"http://127.0.0.1:{port.getHost().port}"
    pytest_twisted.blockon(port.stopListening())


@pytest.mark.parametrize("tty", [True, False])
@pytest_twisted.ensureDeferred
async def test_build(control: Controlled, url: str, tty: bool) -> None:
    """Who has an image built sees its log, and in the end that it is there."""
    control.works.logs["b2"] = b"unpacking\x1b[2J\n"
    control.works.coming = [RUNNING, DONE]
    status, out, err = await type_("build", "packages/hello", url=url, tty=tty)
    assert status == 0, err
    assert r"unpacking\x1b[2J" in out and "3/10 derivations" in out
    assert out.endswith(
        "packages/hello:latest is there, after 30 s" + "\r\n"[not tty :]
    )
    assert ("━" in out) == tty


@pytest.mark.parametrize("tty", [True, False])
@pytest_twisted.ensureDeferred
async def test_leaving(control: Controlled, url: str, tty: bool) -> None:
    """Ctrl-C leaves the build running, says how to end it, and the terminal is whole."""
    status, out, err = await type_(
        "build", "packages/hello", url=url, tty=tty, interrupt_at=b"3/10"
    )
    assert status == 130
    assert "'forge-registry cancel b2' ends it" in (out if tty else err)
    assert "Traceback" not in out + err
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h")
    assert control.works.asked == [("start", "packages/hello:latest", "192.0.2.1")]


@pytest_twisted.ensureDeferred
async def test_nobody_there() -> None:
    """Where no registry listens, one line says so."""
    url = f"http://127.0.0.1:{free_port()}"
    for words in (["builds"], ["build", "packages/hello"], ["sweep"]):
        status, out, err = await type_(*words, url=url)
        assert (status, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith(f"forge-registry: {url} cannot be reached: ")


@pytest_twisted.ensureDeferred
async def test_help_of_the_service() -> None:
    """The help of the service names the commands, and has every option still."""
    status, out, _ = await type_("--help", url="")
    assert status == 0
    assert "build, builds, cancel, log, retry, sweep" in out
    assert "--nix-build-timeout=" in out


@pytest_twisted.ensureDeferred
async def test_starting_the_service() -> None:
    """Without a command, the first word is an option of the service."""
    status, _, err = await type_("--port", "70000", url="")
    assert status == 1
    assert "--port is '70000'" in err
