"""
From a flake ref to a path in the Nix store, by way of nix.

::

    roots/<derivation>      link into the store: a GC root for each image that is kept
"""

from __future__ import annotations

import json
import shlex
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import DeferredSemaphore

from forgereg.logs import logger
from forgereg.nix.events import Said, parse_line
from forgereg.nix.flake import Command, masked, parse_locked, parse_outputs
from forgereg.nix.process import Exit
from forgereg.oci.errors import (
    BuildFailed,
    BuildTimedOut,
    DiskFull,
    EvaluationFailed,
    FlakeUnavailable,
    NameUnknown,
    NixEnded,
    RegistryError,
    ShuttingDown,
)

_log = logger(__name__)

#: How much of what nix said a message repeats: errors, builders' last lines, and
#: characters of each.
_ERRORS, _LAST_LINES, _CHARACTERS = 4, 10, 2000

#: How many nix may be at work at once; an evaluation of nixpkgs wants a core and up to
#: a gigabyte, while a build of many derivations spends its time waiting.
_MOST_EVALUATIONS, _MOST_BUILDS = 2, 16

#: How much of one line goes to the log, in characters.
_LOGGED = 2**14

#: What nix says to whoever sits before it.
_ASIDE, _INTERRUPTED = "(use '--show-trace'", "interrupted by the user"

_DISK_FULL = ("No space left on device", "disk I/O error", "database or disk is full")


class Run(Protocol):
    """Run a child process: `forgereg.nix.process.Processes.run`."""

    def __call__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
    ) -> Awaitable[Exit]: ...


@frozen
class Errand:
    """
    On whose behalf nix runs, and until when.

    :ivar image: what the lines in the log are marked with.
    :ivar deadline: when its time is up, in seconds on the clock of `Nix`.
    :ivar timeout_seconds: how long that was in all, for the message.
    """

    image: str
    deadline: float
    timeout_seconds: float


@define
class _Listener:
    """What nix says: all of it into the log, and what a person must read kept."""

    _image: str
    errors: deque[str] = field(init=False, factory=lambda: deque(maxlen=_ERRORS))
    interrupted: bool = field(init=False, default=False)
    _others: deque[str] = field(init=False, factory=lambda: deque(maxlen=_ERRORS))
    _lines: deque[str] = field(init=False, factory=lambda: deque(maxlen=_LAST_LINES))

    def hear(self, raw: bytes) -> None:
        line = parse_line(raw)
        if line is None:
            return
        text = masked(line.text[:_LOGGED])
        _log.info("{image}: {line}", image=self._image, line=text, said=line.said.value)
        text = text[:_CHARACTERS].removeprefix("error: ")
        if text.startswith(_INTERRUPTED):
            self.interrupted = True
        elif text.startswith(_ASIDE):
            return
        elif line.said is Said.ERROR or (
            line.said is Said.OTHER and line.text.startswith(("error", "fatal"))
        ):
            self.errors.append(text)
        elif line.said is Said.BUILDER:
            self._lines.append(text)
        elif line.said is Said.OTHER:
            self._others.append(text)

    def report(self) -> str:
        """What nix said was wrong, and the last lines of the log."""
        said = "\n".join(self.errors or self._others) or "nix did not say why"
        lines = "\n".join(f"> {line}" for line in self._lines)
        return f"{said}\nlast lines of the log:\n{lines}" if lines else said


@frozen
class Nix:
    """
    What the registry wants of nix.

    :ivar clock: gives the time that deadlines are on, in seconds.
    :ivar roots: directory for the GC roots; as nix's daemon sees it, too.
    """

    _run: Run
    _command: Command
    _env: Mapping[str, str]
    _clock: Callable[[], float]
    _roots: Path
    _evaluations: DeferredSemaphore = field(
        factory=lambda: DeferredSemaphore(_MOST_EVALUATIONS)
    )
    _builds: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(_MOST_BUILDS))

    async def lock(self, errand: Errand, flake: str) -> str:
        """
        Resolve a flake ref to a locked one.

        :raises FlakeUnavailable: it cannot be fetched or read.
        :raises BuildTimedOut: there was no time left.
        """
        argv = self._command.lock(flake)
        what = f"flake {masked(flake)}"
        out = await self._nix(self._evaluations, errand, argv, FlakeUnavailable, what)
        locked = parse_locked(_json(out))
        if locked is None:
            raise FlakeUnavailable(f"nix gave no locked ref for the {what}")
        return locked

    async def evaluate(
        self, errand: Errand, locked: str, query: str, *, builds: bool = True
    ) -> Any:
        """
        Apply a query to the packages of a locked flake.

        :param builds: whether the flake may build something to evaluate the rest.
        :returns: what it gave, as Python reads JSON.
        :raises EvaluationFailed: the flake is broken there.
        :raises NameUnknown: it has no packages for this system.
        :raises BuildTimedOut: there was no time left.
        """
        argv = self._command.evaluate(locked, query, builds=builds)
        what = f"evaluation of {errand.image}"
        try:
            out = await self._nix(
                self._evaluations, errand, argv, EvaluationFailed, what
            )
        except EvaluationFailed as e:
            if "does not provide attribute" in e.detail:
                system = self._command.system
                raise NameUnknown(
                    f"the flake has no packages for {system} (FORGE_SYSTEM)"
                ) from e
            raise
        answer = _json(out)
        if answer is None:
            raise EvaluationFailed(f"{what}: nix answered something that is not JSON")
        return answer

    async def build(
        self, errand: Errand, locked: str, attribute: str, derivation: str
    ) -> str:
        """
        Build an attribute, and keep nix's garbage collector from the output.

        :param attribute: as `Command.installable` writes it.
        :param derivation: store path of what it evaluates to.
        :returns: the output's store path.
        :raises BuildFailed: nix ended with a non-zero status.
        :raises EvaluationFailed: it evaluates to something else by now.
        :raises BuildTimedOut: there was no time left.
        :raises DiskFull: nix found no room.
        """
        link = self._roots / derivation.rpartition("/")[2].removesuffix(".drv")
        argv = self._command.build(locked, attribute, str(link))
        what = f"build of {errand.image}"
        out = await self._nix(self._builds, errand, argv, BuildFailed, what)
        try:
            output, built = parse_outputs(out)
        except ValueError as e:
            raise BuildFailed(f"nix built {errand.image} without saying what") from e
        if built not in (None, derivation):
            raise EvaluationFailed(f"the flake changed during the {what}; pull again")
        return output

    async def _nix(
        self,
        slots: DeferredSemaphore,
        errand: Errand,
        argv: list[str],
        error: type[RegistryError],
        what: str,
    ) -> bytes:
        listener = _Listener(errand.image)
        await slots.acquire()
        try:
            left = errand.deadline - self._clock()
            command = masked(shlex.join(argv))
            _log.debug("{image}: {command}", image=errand.image, command=command)
            ended = await self._run(argv, self._env, left, listener.hear)
        finally:
            slots.release()
        if ended.status == 0:
            return ended.out
        if ended.stopped:
            raise ShuttingDown("the registry is shutting down; pull again")
        report = listener.report()
        _log.warn("{image}: failed: {report}", image=errand.image, report=report)
        if ended.timed_out:
            raise BuildTimedOut(
                f"{what} timed out after {errand.timeout_seconds:g} s"
                f" (NIX_BUILD_TIMEOUT): {report}"
            )
        if any(sign in text for text in listener.errors for sign in _DISK_FULL):
            raise DiskFull(f"{what} failed, the disk is full: {report}")
        if ended.status is None or listener.interrupted:
            raise NixEnded(f"{what} failed, nix was ended; pull again: {report}")
        raise error(f"{what} failed: {report}")


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
