"""
Run child processes to their ends, or end them.

The only file that spawns. A child leads a process group of its own, and is told to
end (SIGTERM) when the registry is gone, however that went.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from forgereg.metrics import Metrics
from forgereg.nix.longlines import LineCutter
from forgereg.nix.outlet import Outlet

#: How long a child has between SIGTERM and SIGKILL, in seconds.
GRACE_SECONDS = 10.0
#: How long whoever survives a child may hold its pipes open, in seconds.
PIPES_SECONDS = 1.0
#: How much standard output is kept, in bytes; a child that writes more is ended.
MAX_OUT = 64 * 2**20

#: Source: setpriv(1), setsid(1) of util-linux. Without the first, a nix whose parent
#: was killed goes on for ever; without the second its children could not be killed.
_WRAPPERS = ("setsid", "setpriv", "prlimit")
_WRAP = ("setsid", "setpriv", "--pdeathsig", "TERM", "--")

#: What a child is called in the metrics, by the first of these words in its command.
_KINDS = {
    "metadata": "lock",
    "ls-remote": "refs",
    "eval": "evaluate",
    "build": "build",
    "path-info": "closure",
    "bwrap": "script",
}
_OTHER = "other"


class ProcessReactor(IReactorTime, IReactorProcess):
    """The part of a reactor that `Processes` needs, named for the type checker."""


@frozen
class Exit:
    """
    How a child ended.

    :ivar status: its exit status, or None when a signal ended it.
    :ivar out: all it wrote on standard output.
    :ivar timed_out: whether it was ended because its time was up.
    :ivar stopped: whether it was ended because the registry is stopping.
    """

    status: int | None
    out: bytes = b""
    timed_out: bool = False
    stopped: bool = False


@define(eq=False)
class _Child(ProcessProtocol):
    _clock: IReactorTime
    _on_line: Callable[[bytes], object]
    _on_end: Callable[[_Child], object]
    _outlet: Outlet | None
    kind: str
    done: Deferred[Exit] = field(init=False)
    _pid: int = field(init=False, default=0)
    _out: list[bytes] = field(init=False, factory=list)
    _out_bytes: int = field(init=False, default=0)
    _lines: LineCutter = field(init=False, factory=LineCutter)
    _timed_out: bool = field(init=False, default=False)
    _stopped: bool = field(init=False, default=False)
    _ending: bool = field(init=False, default=False)
    _timers: list[IDelayedCall] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(lambda _: self.end())

    def connectionMade(self) -> None:
        self._pid = self.transport.pid  # type: ignore[union-attr]
        self.transport.closeStdin()  # type: ignore[union-attr]

    def limit(self, seconds: float) -> None:
        def expire() -> None:
            self._timed_out = True
            self.end()

        self._later(max(0.0, seconds), expire)

    def stop(self) -> None:
        self._stopped = True
        self.end()

    def end(self) -> None:
        if self._ending:
            return
        self._ending = True
        self._later(GRACE_SECONDS, lambda: self._signal(signal.SIGKILL))
        self._signal(signal.SIGTERM)

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        self._timers.append(self._clock.callLater(seconds, call))

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            # The child has not come as far as setsid yet.
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess(int(number))  # type: ignore[union-attr]

    def outReceived(self, data: bytes) -> None:
        self._out_bytes += len(data)
        if self._out_bytes > MAX_OUT:
            self._out.clear()
            self.end()
        else:
            self._out.append(data)

    def errReceived(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._on_line(line)

    def processExited(self, reason: Failure) -> None:
        # What is left of its group is nobody's, and may hold our pipes open.
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        close = self.transport.loseConnection  # type: ignore[union-attr]
        self._later(PIPES_SECONDS, close)

    def processEnded(self, reason: Failure) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        if rest := self._lines.rest():
            self._on_line(rest)
        if self._outlet is not None:
            self._outlet.finish()
        status = getattr(reason.value, "exitCode", None)
        if not self.done.called:
            out = b"".join(self._out)
            self.done.callback(Exit(status, out, self._timed_out, self._stopped))
        self._on_end(self)


@define
class Processes:
    """The children that are running."""

    _reactor: ProcessReactor
    _metrics: Metrics = field(factory=Metrics)
    _children: set[_Child] = field(init=False, factory=set)
    _stopped: Deferred[None] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        for kind in (*_KINDS.values(), _OTHER):
            self._metrics.started_processes.labels(kind)
        self._metrics.watch(self._measure)

    def _measure(self) -> None:
        kinds = Counter(child.kind for child in self._children)
        for kind in (*_KINDS.values(), _OTHER):
            self._metrics.processes.labels(kind).set(kinds[kind])

    def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
    ) -> Deferred[Exit]:
        """
        Spawn a child and wait for its end.

        Cancelling the result ends the child and all it started: SIGTERM, and SIGKILL
        `GRACE_SECONDS` later to those that are still there.

        :param argv: program and arguments; no shell reads them.
        :param timeout_seconds: how long it may run.
        :param on_line: called with each line of its standard error, as it comes; the long
            ones as `longlines` cuts them.
        :returns: how it ended; fires once, after all its output has been read.
        """
        return self._start(argv, env, timeout_seconds, on_line, None)

    def stream(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
    ) -> tuple[Outlet, Deferred[Exit]]:
        """
        Spawn a child whose standard output a thread reads, as it comes.

        The child waits while nobody reads.

        :returns: what it writes; whoever gets it closes or abandons it, upon which a
            child that goes on writing gets SIGPIPE. And how it ended, as `run`, which
            may be before all it wrote has been read.
        """
        outlet = Outlet()
        return outlet, self._start(argv, env, timeout_seconds, on_line, outlet)

    def _start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
        outlet: Outlet | None,
    ) -> Deferred[Exit]:
        if self._stopped is not None:
            return succeed(Exit(None, stopped=True))
        kind = next((_KINDS[word] for word in argv if word in _KINDS), _OTHER)
        child = _Child(self._reactor, on_line, self._ended, outlet, kind)
        try:
            with nullcontext("r") if outlet is None else outlet.inlet() as out:
                self._reactor.spawnProcess(
                    child,
                    _WRAP[0],
                    [*_WRAP, *argv],
                    dict(env),
                    childFDs={0: "w", 1: out, 2: "r"},
                )
        except OSError as e:
            # No file descriptor, no memory or no process left: for now, maybe.
            on_line(f"error: cannot start {argv[0]}: {e.strerror}".encode())
            return succeed(Exit(None))
        self._children.add(child)
        self._metrics.started_processes.labels(kind).inc()
        child.limit(timeout_seconds)
        return child.done

    def stop(self) -> Deferred[None]:
        """
        End every child, and start no more.

        :returns: fires when all have ended.
        """
        self._stopped = Deferred()
        for child in list(self._children):
            child.stop()
        self._tell()
        return self._stopped

    def _ended(self, child: _Child) -> None:
        self._children.discard(child)
        self._tell()

    def _tell(self) -> None:
        if (
            self._stopped is not None
            and not self._children
            and not self._stopped.called
        ):
            self._stopped.callback(None)


def ask_now(
    argv: Sequence[str], env: Mapping[str, str], seconds: float = 30.0
) -> tuple[int, str, str]:
    """
    Run a short child where there is no reactor. Blocking.

    :param seconds: how long it may take.
    :returns: exit status, standard output, standard error.
    :raises OSError: there is no such program.
    :raises subprocess.TimeoutExpired: it took longer.
    """
    ended = subprocess.run(
        argv,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    out, err = (
        text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr)
    )
    return ended.returncode, out, err


def missing_wrappers() -> list[str]:
    """List the programs that `Processes` needs and that are not on the PATH."""
    return [name for name in _WRAPPERS if shutil.which(name) is None]
