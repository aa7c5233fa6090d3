"""What stands in for nix and for threads: no process, and no waiting."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, execute

from forgereg.nix.flake import parse_locked
from forgereg.nix.outlet import Outlet
from forgereg.nix.process import Exit
from forgereg.nix.refs import at_revision, remote_url

P = ParamSpec("P")
T = TypeVar("T")

SYSTEM = "x86_64-linux"
FLAKE = "github:acme/forge"


def at_once(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
    """Be the thread: call, and give what came of it."""
    return execute(call, *args, **kwargs)


@define
class Threads:
    """
    Threads that call at once, or, while they are paused, when they are resumed.

    :ivar calls: the names of what was asked for, in order.
    """

    calls: list[str] = field(factory=list)
    _paused: bool = False
    _waiting: deque[Callable[[], object]] = field(init=False, factory=deque)

    def __call__(
        self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        self.calls.append(getattr(call, "__name__", "?"))
        result: Deferred[T] = Deferred()

        def work() -> None:
            execute(call, *args, **kwargs).chainDeferred(result)

        self._waiting.append(work)
        if not self._paused:
            self.resume()
        return result

    def pause(self) -> None:
        """Begin nothing from now on."""
        self._paused = True

    def step(self) -> bool:
        """Do what waits longest, and whatever that leads to wait; say whether it did."""
        if self._waiting:
            self._waiting.popleft()()
            return True
        return False

    def resume(self) -> None:
        """Do all that waits."""
        self._paused = False
        while self._waiting and not self._paused:
            self._waiting.popleft()()


def store_path(name: str, salt: str = "") -> str:
    """Give the path that something of this name has in the Nix store."""
    digits = hashlib.sha256(f"{name}{salt}".encode()).hexdigest()
    alphabet = "0123456789abcdfghijklmnpqrsvwxyz"
    return f"/nix/store/{''.join(alphabet[int(d, 16)] for d in digits[:32])}-{name}"


@frozen
class Output:
    """
    What an attribute of a package builds.

    :ivar path: in the store.
    :ivar make: puts it there.
    """

    path: str
    make: Callable[[], object]
    derivation: str


@frozen
class Package:
    """
    A package as the scripted nix sees it.

    :ivar outputs: ``image``, ``containers``, or what else it has.
    :ivar entries: what the catalogue can know of its containers.
    :ivar program: what is run of it, if it says so.
    :ivar meta: what else it says of itself, as the catalogue has it.
    """

    version: str | None = None
    outputs: Mapping[str, Output] = field(factory=dict)
    entries: Sequence[str] = ()
    underivable: Sequence[str] = ()
    program: str | None = None
    meta: Mapping[str, Any] = field(factory=dict)


@define
class ScriptedNix:
    """
    A `Run` that reads its command line and answers out of a flake in memory.

    Children wait while it is paused. Each command fails for as long as it is told to,
    and when it was given no time.

    :ivar packages: what the flake has now.
    :ivar flake: in a repository elsewhere; or ``path:…``, or ``git+file:…`` of a tree
        with changes.
    :ivar refs: of its repository, as ``git ls-remote`` names them, with what each is of.
        As nix 2.8, it finds a revision only in a ref that leads to it.
    :ivar others: that have other flakes, and do what is asked of those.
    :ivar system: for which it has them.
    :ivar argvs: every command line, in order.
    :ivar envs: the environment of each child.
    :ivar limits: how many seconds each child was given.
    :ivar killed: the command lines of children that were told to end.
    """

    packages: dict[str, Package] = field(factory=dict)
    flake: str = FLAKE
    system: str = SYSTEM
    refs: dict[str, str] = field(factory=dict)
    others: list[ScriptedNix] = field(factory=list)
    argvs: list[list[str]] = field(factory=list)
    envs: list[Mapping[str, str]] = field(factory=list)
    limits: list[float] = field(factory=list)
    killed: list[list[str]] = field(factory=list)
    _revision: int = 1
    #: by revision, what the flake had before
    _past: dict[str, dict[str, Package]] = field(init=False, factory=dict)
    _paused: bool = False
    _failures: dict[str, tuple[list[bytes], Exit]] = field(init=False, factory=dict)
    _waiting: deque[tuple[Callable[[], object], Callable[[bytes], object]]] = field(
        init=False, factory=deque
    )

    def __call__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
    ) -> Deferred[Exit]:
        for other in self.others:
            if argv[-1].startswith((other.flake, remote_url(other.flake) or "-")):
                return other(argv, env, timeout_seconds, on_line)
        self.argvs.append(list(argv))
        self.envs.append(env)
        self.limits.append(timeout_seconds)
        # What is built, or told, is what the flake was when nix began.
        packages, metadata = dict(self.packages), self._metadata

        def end() -> None:
            if timeout_seconds <= 0:
                ended.callback(Exit(None, timed_out=True))
            else:
                ended.callback(self._play(list(argv), packages, metadata, on_line))

        def kill(ended: Deferred[Exit]) -> None:
            self.killed.append(list(argv))
            self._waiting.remove((end, on_line))

        ended: Deferred[Exit] = Deferred(kill)
        self._waiting.append((end, on_line))
        if not self._paused:
            self.resume()
        return ended

    def pause(self) -> None:
        """Let children begin, and none of them end."""
        self._paused = True

    def resume(self) -> None:
        """Let every child end."""
        self._paused = False
        while self._waiting and not self._paused:
            self._waiting.popleft()[0]()

    def step(self) -> None:
        """Let the children that wait end, and those that come after wait."""
        for _ in range(len(self._waiting)):
            self._waiting.popleft()[0]()

    def overtake(self) -> None:
        """Let the child that began last end before all others."""
        self._waiting.pop()[0]()

    def say(self, *lines: str) -> None:
        """Let the child that waits and began last say something."""
        for line in lines:
            self._waiting[-1][1](line.encode())

    def finish(self) -> None:
        """Let all children end, those that began together before later ones."""
        while self._waiting:
            self.step()
        self._paused = False

    def die(self) -> None:
        """Let every child vanish with the registry that began it."""
        self._waiting.clear()
        self._paused = False

    def fail(self, verb: str, *lines: str | bytes, exit: Exit | None = None) -> None:
        """
        Make a command fail from now on.

        :param verb: ``metadata``, ``eval``, ``build`` or ``ls-remote``; ``meta`` for
            the evaluation of what packages say of themselves.
        :param lines: what it says on standard error.
        """
        said = [line.encode() if isinstance(line, str) else line for line in lines]
        self._failures[verb] = (said, exit or Exit(1))

    def answer(self, verb: str, out: bytes) -> None:
        """Make a command end well, and print this whatever it is asked."""
        self._failures[verb] = ([], Exit(0, out))

    def mend(self) -> None:
        """Make every command work again."""
        self._failures.clear()

    def push(self) -> None:
        """Give the flake a new revision."""
        self._past[self.revision] = dict(self.packages)
        self._revision += 1

    @property
    def revision(self) -> str:
        """The newest revision."""
        return f"{self._revision:040x}"

    @property
    def locked(self) -> str:
        """The flake as it is now, as the registry tells it from what it was."""
        locked = parse_locked(self._metadata)
        assert locked is not None
        return locked

    @property
    def _metadata(self) -> dict[str, Any]:
        content = {"narHash": f"sha256-{self._revision:040x}"}
        if self.flake.startswith("git+file:"):
            return {"url": self.flake, "locked": content}
        if self.flake.startswith("path:"):
            url = f"{self.flake}?narHash={content['narHash']}"
            return {"url": url, "locked": content}
        url = at_revision(self.flake, self.revision, None)
        return {"url": url, "revision": self.revision, "locked": content}

    def count(self, verb: str) -> int:
        """Say how often a command was run."""
        return sum(_verb(argv) == verb for argv in self.argvs)

    @property
    def counts(self) -> tuple[int, int, int]:
        """How often nix was asked for metadata, evaluated, and built."""
        return self.count("metadata"), self.count("eval"), self.count("build")

    def _play(
        self,
        argv: list[str],
        packages: Mapping[str, Package],
        metadata: Mapping[str, Any],
        on_line: Callable[[bytes], object],
    ) -> Exit:
        verb = _verb(argv)
        lines, exit = self._failures.get(verb, ([], None))
        if "meta" in self._failures and any(_DESCRIBES in word for word in argv):
            lines, exit = self._failures["meta"]
        for line in lines:
            on_line(line)
        if exit is not None:
            return exit
        if argv[-1] == "builtins ? getFlake":
            return Exit(0, b"true\n")
        assert argv[-2] == "--"
        if verb == "path-info":
            return Exit(0, argv[-1].encode() + b"\n")
        if verb == "ls-remote":
            assert argv[-1] == remote_url(self.flake)
            refs = [f"{its}\t{name}\n" for name, its in sorted(self.refs.items())]
            return Exit(0, "".join(refs).encode())
        if verb == "metadata":
            if argv[-1] == self.flake:
                return _printed(metadata)
            revision = self._fetched(argv[-1])
            if revision is None:
                on_line(b"error: it cannot be found there")
                return Exit(1)
            return _printed({"url": argv[-1], "revision": revision})
        locked, _, fragment = argv[-1].partition("#")
        assert locked.startswith(self.flake), locked
        if locked.startswith("path:") and locked != self.locked:
            on_line(b"error: NAR hash mismatch")
            return Exit(1)
        packages = self._past.get(_revision_in(locked), packages)
        if verb == "eval":
            assert fragment == f"packages.{self.system}"
            return _printed(_apply(argv[argv.index("--apply") + 1], packages))
        return self._build(argv[argv.index("--out-link") + 1], fragment, packages)

    def _fetched(self, ref: str) -> str | None:
        """Give the revision at which the flake is asked for, if it is there."""
        revision = _revision_in(ref)
        assert ref.startswith(self.flake) and revision
        if revision != self.revision and revision not in self._past:
            return None
        names = [n for n, its in self.refs.items() if its == revision]
        through = [None, *(name.removesuffix("^{}") for name in names)]
        if revision != self.revision and not self.flake.startswith("github:"):
            del through[0]
        known = [at_revision(self.flake, revision, name) for name in through]
        return revision if ref in known else None

    def _build(self, link: str, fragment: str, packages: Mapping[str, Package]) -> Exit:
        wanted = re.fullmatch(rf'packages\.{self.system}\."([^"]+)"\.(\w+)', fragment)
        assert wanted is not None, fragment
        output = packages[wanted[1]].outputs[wanted[2]]
        output.make()
        Path(link).unlink(missing_ok=True)
        Path(link).symlink_to(output.path)
        return _printed(
            [{"drvPath": output.derivation, "outputs": {"out": output.path}}]
        )


#: What only the question has that asks packages to describe themselves.
_DESCRIBES = "meta.license"


def _verb(argv: list[str]) -> str:
    verbs = {"metadata", "eval", "build", "ls-remote", "path-info"}
    (verb,) = verbs.intersection(argv)
    return verb


def _revision_in(ref: str) -> str:
    return "".join(re.findall(r"[/=]([0-9a-f]{40})\Z", ref))


def _printed(value: Any) -> Exit:
    return Exit(0, json.dumps(value).encode() + b"\n")


def _apply(query: str, packages: Mapping[str, Package]) -> Any:
    """Answer one of the queries of `forgereg.nix.flake`."""
    want = re.search(r'want = "([^"]*)";', query)
    if want is None:
        details = _DESCRIBES in query
        return [
            {
                "name": name,
                "image": "image" in package.outputs,
                "containers": "containers" in package.outputs,
                "entries": list(package.entries),
                **({"version": package.version, **package.meta} if details else {}),
            }
            for name, package in sorted(packages.items())
        ]
    output = re.search(r'output = "([^"]*)";', query)
    assert output is not None
    names = [want[1]] if want[1] in packages else []
    names = names or [name for name in packages if name.lower() == want[1]]
    if len(names) != 1:
        listed = [
            name
            for name, package in packages.items()
            if output[1] != "containers" or "containers" in package.outputs
        ]
        return {"status": "no-package", "names": sorted(listed)}
    package = packages[names[0]]
    if output[1] in package.underivable:
        return {"status": "no-derivation"}
    if output[1] not in package.outputs:
        has = [name for name in ("image", "containers") if name in package.outputs]
        return {
            "status": "no-output",
            "attribute": names[0],
            "has": has,
            "program": package.program,
        }
    return {
        "status": "ok",
        "attribute": names[0],
        "derivation": package.outputs[output[1]].derivation,
        "version": package.version,
    }


@define
class Part:
    """
    What a scripted script does.

    :ivar data: what it writes.
    :ivar lines: what it says.
    """

    data: bytes = b""
    lines: Sequence[bytes] = ()
    exit: Exit = Exit(0)


@define
class ScriptedScripts:
    """
    A `RunStream` whose scripts write at once, and end unless they are paused.

    :ivar parts: by the store path of the script.
    :ivar argvs: every command line, in order.
    :ivar limits: how many seconds each script was given.
    :ivar killed: the scripts that were told to end before they had.
    :ivar outlets: what they wrote.
    """

    parts: dict[str, Part] = field(factory=dict)
    argvs: list[list[str]] = field(factory=list)
    limits: list[float] = field(factory=list)
    killed: list[str] = field(factory=list)
    outlets: list[Outlet] = field(factory=list)
    _paused: bool = False
    _running: list[tuple[Deferred[Exit], Exit]] = field(init=False, factory=list)

    def __call__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
    ) -> tuple[Outlet, Deferred[Exit]]:
        self.argvs.append(list(argv))
        self.limits.append(timeout_seconds)
        script = argv[-1]
        part = self.parts[script]
        with tempfile.TemporaryFile() as file:
            file.write(part.data)
            file.seek(0)
            outlet = Outlet(os.dup(file.fileno()))
        self.outlets.append(outlet)
        for line in part.lines:
            on_line(line)
        ended: Deferred[Exit] = Deferred(lambda _: self.killed.append(script))
        in_time = timeout_seconds > 0
        exit = part.exit if in_time else Exit(None, timed_out=True)
        self._running.append((ended, exit))
        if not self._paused:
            self.resume()
        return outlet, ended

    def pause(self) -> None:
        """Let scripts write, and none of them end."""
        self._paused = True

    def resume(self) -> None:
        """Let every script end."""
        self._paused = False
        while self._running:
            ended, exit = self._running.pop(0)
            if not ended.called:
                ended.callback(exit)
