"""
From a flake ref to a path in the Nix store, by way of nix.

::

    roots/<derivation>      link into the store: a GC root for each image that is kept
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred

from forgereg.lines import masked
from forgereg.logs import logger
from forgereg.nix.events import (
    Event,
    Line,
    Said,
    is_builder_line,
    parse_event,
    parse_line,
)
from forgereg.nix.flake import (
    Command,
    abandoned,
    limited,
    parse_locked,
    parse_outputs,
)
from forgereg.nix.longlines import shortened, without_mark
from forgereg.nix.process import Exit
from forgereg.nix.refs import ls_remote
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

T = TypeVar("T")

#: How much of what nix said a message repeats: errors, builders' last lines, and
#: characters of each.
_ERRORS, _LAST_LINES, _CHARACTERS = 4, 10, 2000

#: How much of one line goes to the log, in characters.
_LOGGED = 2**14

#: What nix says to whoever sits before it.
_ASIDE, _INTERRUPTED = "(use '--show-trace'", "interrupted by the user"

#: What nix does without, or tries again: how git and nix warn, and nix ignores errors.
_NOISE = re.compile(r"error \(ignored\):|(?i:warning):|.*; retrying in \d+ ms$")

#: How nix, its garbage collector and C++ say that there is no memory.
_MEMORY_FULL = ("out of memory", "Out of Memory", "bad_alloc", "Cannot allocate memory")
_DISK_FULL = ("No space left on device", "disk I/O error", "database or disk is full")
#: How nix says that a flake was fetched, and makes no sense. Tried on 2.8.
_NO_FLAKE = (
    "(at flake.nix:",
    "-source/flake.nix",
    "'/flake.nix' file",
    "syntax error",
    "undefined variable",
    "lacks attribute",
    "unsupported attribute",
)


_OLD_BRANCH = "refs/heads/master"


class Run(Protocol):
    """Run a child process: `forgereg.nix.process.Processes.run`."""

    def __call__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
    ) -> Deferred[Exit]: ...


@frozen
class Limit:
    """
    How much one evaluation may take.

    :ivar memory_bytes: 0 for any.
    """

    seconds: float = math.inf
    memory_bytes: int = 0


class Errand(Protocol):
    """
    On whose behalf nix runs.

    :ivar image: what the lines in the log are marked with.
    :ivar timeout_seconds: how long nix may work for it in all.
    :ivar left_seconds: how much of that is left.
    :ivar is_full: whether it wants to hear no more of builders than their last lines.
    """

    image: str
    timeout_seconds: float
    left_seconds: float

    @property
    def is_full(self) -> bool: ...

    def hear(self, event: Event) -> None:
        """Be told what nix says."""

    def skip(self, read: Callable[[], str]) -> None:
        """Be told, once it is full, of a builder's line that need not be read."""

    async def wait(self, awaited: Deferred[T]) -> T:
        """Await something that ends when the errand is cancelled."""
        ...


@define
class Listener:
    """
    What a child says: all of it told to the errand, and what a person must read kept.

    :ivar errand: on whose behalf the child runs.
    :ivar hide: takes secrets out.
    :ivar who: the child, for a person.
    :ivar errors: what it said was wrong.
    :ivar interrupted: whether it said that somebody else had ended it.
    """

    errand: Errand
    hide: Callable[[str], str]
    who: str = "nix"
    errors: deque[str] = field(init=False, factory=lambda: deque(maxlen=_ERRORS))
    interrupted: bool = field(init=False, default=False)
    _others: deque[str] = field(init=False, factory=lambda: deque(maxlen=_ERRORS))
    _lines: deque[bytes] = field(init=False, factory=lambda: deque(maxlen=_LAST_LINES))

    def hear(self, raw: bytes) -> None:
        """Be told a line of nix's standard error."""
        if self.errand.is_full and is_builder_line(raw):
            self._lines.append(raw)
            self.errand.skip(lambda: self._read(raw))
            return
        event = parse_event(raw)
        if not isinstance(event, Line):
            if event is not None:
                self.errand.hear(event)
            return
        line = self._hidden(event)
        self.errand.hear(line)
        text = self._brief(event).removeprefix("error: ")
        if line.said is Said.BUILDER:
            self._lines.append(raw)
        elif text.startswith(_INTERRUPTED):
            self.interrupted = True
        elif text.startswith(_ASIDE) or _NOISE.match(text):
            return
        elif line.said is Said.ERROR or (
            line.said is Said.OTHER and line.text.startswith(("error", "fatal"))
        ):
            self.errors.append(text)
        elif line.said is Said.OTHER:
            self._others.append(text)

    def hear_script(self, raw: bytes) -> None:
        """Be told a line of what is no nix, and is read as a builder's."""
        self._lines.append(raw)
        if self.errand.is_full:
            self.errand.skip(lambda: self._read(raw))
            return
        kept, left_out = without_mark(raw)
        line = Line.read(Said.BUILDER, kept.decode("utf-8", "replace"))
        if line.text:
            self.errand.hear(self._hidden(evolve(line, left_out=left_out)))

    def _hidden(self, line: Line) -> Line:
        kept, mark = shortened(line.text, _LOGGED, line.left_out)
        text = self.hide(kept) + mark
        # In colours a secret may not be found.
        is_same = text == line.text and len(line.coloured) <= 2 * _LOGGED
        return Line(line.said, text, line.coloured if is_same else "")

    def _read(self, raw: bytes) -> str:
        line = parse_line(raw)
        return "" if line is None else self._brief(line)

    def _brief(self, line: Line) -> str:
        kept, mark = shortened(line.text, _CHARACTERS, line.left_out)
        return self.hide(kept) + mark

    @property
    def has_said_why(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.errors or self._others or self._lines)

    def report(self) -> str:
        """What it said was wrong, and the last lines of the log."""
        said = "\n".join(self.errors or self._others) or f"{self.who} did not say why"
        lines = "\n".join(f"> {self._read(raw)}" for raw in self._lines)
        return f"{said}\nlast lines of the log:\n{lines}" if lines else said


@define(eq=False)
class Nix:
    """
    What the registry wants of nix.

    :ivar env: what it runs with; may hold a token.
    :ivar clock: gives seconds that only ever go forwards.
    :ivar roots: directory for the GC roots; as nix's daemon sees it, too.
    :ivar hide: takes secrets out of what nix says.
    """

    _run: Run
    _command: Command
    env: Mapping[str, str] = field(repr=False)
    _clock: Callable[[], float]
    _roots: Path
    hide: Callable[[str], str] = masked

    async def lock(self, errand: Errand, flake: str) -> str:
        """
        Resolve a flake ref to a locked one.

        :raises FlakeUnavailable: it cannot be fetched, or not in time.
        :raises EvaluationFailed: it is there, and its ``flake.nix`` makes no sense.
        """
        what = f"flake {masked(flake)}"
        argv = self._command.lock(flake)
        try:
            out = await self._nix(errand, argv, FlakeUnavailable, what)
        except BuildTimedOut as e:
            raise FlakeUnavailable(e.detail) from e
        except FlakeUnavailable as e:
            if any(sign in e.detail for sign in _NO_FLAKE):
                raise EvaluationFailed(e.detail) from e
            if _OLD_BRANCH in e.detail:
                # Nix 2.8 looks for no other; newer ones ask the repository.
                hint = "name the branch in the flake ref, as in ?ref=main"
                raise FlakeUnavailable(f"{e.detail} ({hint})") from e
            raise
        locked = parse_locked(_json(out))
        if locked is None:
            raise FlakeUnavailable(f"nix gave no locked ref for the {what}")
        return locked

    async def remote_refs(self, errand: Errand, url: str) -> bytes:
        """
        Ask a git repository for its tags and branches.

        :returns: as ``git ls-remote`` prints them.
        :raises FlakeUnavailable: it cannot be reached, or not in time.
        """
        what = f"list of git refs of {masked(url)}"
        try:
            return await self._nix(errand, ls_remote(url), FlakeUnavailable, what)
        except BuildTimedOut as e:
            raise FlakeUnavailable(e.detail) from e

    async def evaluate(
        self,
        errand: Errand,
        locked: str,
        query: str,
        *,
        builds: bool = True,
        limit: Limit = Limit(),
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
        argv = abandoned(limited(argv, limit.memory_bytes))
        what = f"evaluation of {errand.image}"
        try:
            out = await self._nix(errand, argv, EvaluationFailed, what, limit.seconds)
        except (EvaluationFailed, NixEnded) as e:
            if limit.memory_bytes and _is_out_of_memory(e.detail):
                raise EvaluationFailed(
                    f"{what} takes more than {limit.memory_bytes} bytes of memory"
                    f" (FORGE_EVALUATION_MEMORY): {e.detail}"
                ) from e
            if "does not provide attribute" in e.detail:
                system = self._command.system
                raise NameUnknown(
                    f"the flake {self.hide(locked)} has no packages for {system}"
                    " (FORGE_SYSTEM)"
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
        out = await self._nix(errand, argv, BuildFailed, what)
        try:
            output, built = parse_outputs(out)
        except ValueError as e:
            raise BuildFailed(f"nix built {errand.image} without saying what") from e
        if built not in (None, derivation):
            raise EvaluationFailed(f"the flake changed during the {what}; pull again")
        return output

    async def closure(self, errand: Errand, path: str) -> list[str]:
        """
        Say what a store path refers to, itself included.

        :param path: or of a file below it.
        :raises BuildFailed: the store does not know it.
        """
        what = f"closure of {errand.image}"
        out = await self._nix(errand, self._command.closure(path), BuildFailed, what)
        return out.decode().split()

    async def _nix(
        self,
        errand: Errand,
        argv: list[str],
        error: type[RegistryError],
        what: str,
        most_seconds: float = math.inf,
    ) -> bytes:
        listener = Listener(errand, self.hide)
        command = masked(shlex.join(argv))
        _log.debug("{image}: {command}", image=errand.image, command=command)
        is_whole = errand.left_seconds <= most_seconds
        limit = min(errand.left_seconds, most_seconds)
        start = self._clock()
        try:
            running = self._run(argv, self.env, limit, listener.hear)
            ended = await errand.wait(running)
        finally:
            errand.left_seconds -= self._clock() - start
        if ended.status == 0:
            return ended.out
        after = f"{most_seconds:g} s (FORGE_EVALUATION_TIMEOUT)"
        if is_whole:
            after = f"{errand.timeout_seconds:g} s (NIX_BUILD_TIMEOUT)"
        raise failure(ended, listener, error, what, after)


def failure(
    ended: Exit,
    listener: Listener,
    error: type[RegistryError],
    what: str,
    after: str,
) -> RegistryError:
    """
    Say why a child did not do what it should.

    :param error: what it is if the child is to blame.
    :param what: it should have done.
    :param after: how much time it had, and which setting says so.
    """
    if ended.stopped:
        return ShuttingDown("the registry is shutting down; pull again")
    report = listener.report()
    image = listener.errand.image
    _log.warn("{image}: failed: {report}", image=image, report=report)
    if ended.timed_out:
        said = f": {report}" if listener.has_said_why else ""
        return BuildTimedOut(f"{what} timed out after {after}{said}")
    if any(sign in text for text in listener.errors for sign in _DISK_FULL):
        return DiskFull(f"{what} failed, the disk is full: {report}")
    if ended.status is None or listener.interrupted:
        return NixEnded(
            f"{what} failed, {listener.who} was ended; pull again: {report}"
        )
    return error(f"{what} failed: {report}")


def _is_out_of_memory(text: str) -> bool:
    return any(sign in text for sign in _MEMORY_FULL)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
