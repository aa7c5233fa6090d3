"""
Run an executable of the Nix store that writes an archive, as streamLayeredImage makes.

It comes from a flake, and nobody has built it yet: so it runs in a sandbox of its own,
with no more than a builder would have. It sees of the Nix store what it refers to, and
cannot write there, an empty ``/tmp`` in memory, and neither files, processes and network
of this machine nor what the registry has in its environment.

Its memory is bounded as an evaluation's is: it, too, is a child of the registry, and
shares its memory; a builder is one of nix's daemon. Its time is what the errand has
left, as a build's.

Source: bwrap(1); nixpkgs, pkgs/build-support/docker/stream_layered_image.py, which
wants nothing but the store.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

from forgereg.lines import masked
from forgereg.nix.build import Errand, Listener, failure
from forgereg.nix.flake import limited
from forgereg.nix.outlet import Outlet
from forgereg.nix.process import Exit
from forgereg.oci.errors import BuildFailed

T = TypeVar("T")

#: What bwrap takes are 9000 arguments, of which each path needs three.
#: Source: bubblewrap.c, MAX_ARGS.
_MOST_PATHS = 2900
#: How much a script may put aside in its /tmp, in bytes.
_TMP_BYTES = 256 * 2**20

#: Ended with all that it started: the kernel kills a namespace with its first process.
_SANDBOX = (
    "bwrap", "--unshare-all", "--die-with-parent", "--new-session",
    "--cap-drop", "ALL", "--hostname", "localhost",
    "--proc", "/proc", "--dev", "/dev", "--size", str(_TMP_BYTES), "--tmpfs", "/tmp",
    "--clearenv", "--setenv", "PATH", "/path-not-set",
    "--setenv", "HOME", "/tmp", "--setenv", "TMPDIR", "/tmp", "--chdir", "/tmp",
)  # fmt: skip

#: All but /tmp, once all is there. Root's /proc/sys would be this machine's.
_READ_ONLY = ("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/")

#: What is said where there is no sandbox to be had: by bwrap, unless it cannot find
#: the script's interpreter, or by those that were to run it.
_NO_SANDBOX = re.compile(
    r"^> (bwrap: (?!execvp).*|\w+: failed to execute bwrap.*)", re.MULTILINE
)
_NO_INTERPRETER = "bwrap: execvp"
_NO_MEMORY = ("Cannot allocate memory", "MemoryError", "out of memory")


class RunStream(Protocol):
    """Run a child whose output a thread reads: `process.Processes.stream`."""

    def __call__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
    ) -> tuple[Outlet, Deferred[Exit]]: ...


class Closure(Protocol):
    """Say what a store path refers to: `build.Nix.closure`."""

    async def __call__(self, errand: Errand, path: str) -> Sequence[str]: ...


class CallInThread(Protocol):
    """Call a function in a thread; cancelling only drops its result."""

    def __call__(self, call: Callable[[Outlet], T], file: Outlet, /) -> Deferred[T]: ...


@define(eq=False)
class Stream:
    """
    What a script writes; whoever has it closes it.

    :ivar file: for one thread, which may leave off anywhere; nothing else waits for
        what is not read.
    """

    file: Outlet
    _ended: Deferred[Exit]
    _listener: Listener
    _memory_bytes: int
    _clock: Callable[[], float]
    _start: float = field(init=False)
    _is_closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._start = self._clock()

    async def end(self) -> None:
        """
        Wait for the script's end, once its output has been read.

        :raises BuildFailed: it ended with a non-zero status, or there is no sandbox.
        :raises BuildTimedOut: there was no time left.
        :raises NixEnded: the sandbox was ended, or never began, and not by us.
        :raises ShuttingDown: it was ended with the registry.
        """
        errand = self._listener.errand
        ended = await errand.wait(self._ended)
        if ended.status == 0:
            return
        if ended.status is not None:
            self._listener.errors.append(_said_by_status(ended.status))
        what = f"streaming of {errand.image}"
        after = f"{errand.timeout_seconds:g} s (NIX_BUILD_TIMEOUT)"
        error = failure(ended, self._listener, BuildFailed, what, after)
        if refused := _NO_SANDBOX.search(error.detail):
            raise BuildFailed(
                f"{what} failed: the image is a script, and there is no sandbox to run"
                f" it in ({refused[1]}): install bubblewrap, and let the registry make"
                " user namespaces; or use buildLayeredImage"
            )
        if _NO_INTERPRETER in error.detail:
            raise BuildFailed(
                f"{error.detail}\nits first line, or what it is linked with, names a"
                " program that its sandbox has not: name one of the Nix store, such as"
                " ${pkgs.runtimeShell}"
            )
        if self._memory_bytes and any(sign in error.detail for sign in _NO_MEMORY):
            limit = f"it may have {self._memory_bytes} bytes (FORGE_EVALUATION_MEMORY)"
            raise BuildFailed(f"{error.detail}\n{limit}")
        raise error

    def close(self) -> None:
        """End the script if it still runs, and let go of what it wrote."""
        if self._is_closed:
            return
        self._is_closed = True
        self._listener.errand.left_seconds -= self._clock() - self._start
        self._ended.addErrback(lambda _: None)
        self._ended.cancel()
        self.file.abandon()


@define(eq=False)
class Scripts:
    """
    The executables that write images.

    :ivar closure: says what of the store a script may see.
    :ivar env: with the PATH that bwrap is on, and no secrets: scripts may see it.
    :ivar root: what stands before ``/nix/store`` where the store's files really lie.
    :ivar memory_bytes: of each process of a script; 0 for any.
    :ivar clock: gives seconds that only ever go forwards.
    :ivar in_thread: where what they write is read.
    :ivar hide: takes secrets out of what they say.
    """

    _run: RunStream
    _closure: Closure
    _env: Mapping[str, str]
    _root: Path
    _memory_bytes: int
    _clock: Callable[[], float]
    _in_thread: CallInThread
    _hide: Callable[[str], str] = masked

    async def open(self, errand: Errand, script: str) -> Stream:
        """
        Begin to run a script.

        :param script: its store path, links followed.
        :raises BuildFailed: it refers to nothing, or to too much.
        """
        paths = await self._closure(errand, script)
        if len(paths) > _MOST_PATHS:
            raise BuildFailed(
                f"the image is a script that refers to {len(paths)} store paths, and"
                f" its sandbox takes {_MOST_PATHS}: use buildLayeredImage"
            )
        view = []
        for path in paths:
            view += ["--ro-bind", f"{self._root / path.lstrip('/')}", path]
        view += _READ_ONLY
        argv = limited([*_SANDBOX, *view, "--", script], self._memory_bytes)
        listener = Listener(errand, self._hide, "the script")
        file, ended = self._run(
            argv, self._env, errand.left_seconds, listener.hear_script
        )
        return Stream(file, ended, listener, self._memory_bytes, self._clock)

    async def read(self, errand: Errand, script: str, read: Callable[[Outlet], T]) -> T:
        """
        Run a script, and have a thread read what it writes.

        :param read: may stop early, which ends the script. Where it came to the end,
            what it made of that counts only if the script ended well.
        :raises RegistryError: as `Stream.end`, before whatever ``read`` raises.
        """
        stream = await self.open(errand, script)
        try:
            try:
                return await errand.wait(self._in_thread(read, stream.file))
            finally:
                if stream.file.at_end:
                    await stream.end()
        finally:
            stream.close()


def _said_by_status(status: int) -> str:
    try:
        # As a shell, bwrap says so which signal it was.
        return f"it was ended by {signal.Signals(status - 128).name}"
    except ValueError:
        return f"it ended with status {status}"
