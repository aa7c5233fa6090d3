"""Tests for `forgereg.nix.stream`, with real sandboxes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor, threads
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater

from forgereg.flow.errand import Errand
from forgereg.nix.events import Event, Line, Said
from forgereg.nix.outlet import Outlet
from forgereg.nix.process import Exit, Processes, ProcessReactor
from forgereg.nix.stream import Scripts
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildCancelled,
    BuildFailed,
    BuildTimedOut,
    ShuttingDown,
)
from tests.archives import build_layered_image
from tests.streams import HELLO, ScriptStore

MEMBERS = {e.name: e.data for e in build_layered_image(HELLO) if e.data}
#: What makes a sandbox impossible: that there are no more user namespaces to be had.
FORBID = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
FORBIDDEN = ["unshare", "-r", "sh", "-c", FORBID, "sh"]
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


@define(eq=False)
class Heard(Errand):
    """An errand that keeps what it hears."""

    lines: list[str] = field(factory=list)

    def hear(self, event: Event) -> None:
        assert isinstance(event, Line) and event.said is Said.BUILDER
        self.lines.append(event.text)


@define
class Bench:
    """Scripts in a store, and what runs them."""

    store: ScriptStore
    processes: Processes = field(
        factory=lambda: Processes(cast(ProcessReactor, reactor))
    )
    wrap: Sequence[str] = ()
    memory_bytes: int = 0

    @property
    def scripts(self) -> Scripts:
        return Scripts(
            self._run,
            self._closure,
            {"PATH": os.environ["PATH"]},
            self.store.root,
            self.memory_bytes,
            reactor.seconds,
            lambda call, file: threads.deferToThread(call, file),
        )

    async def _closure(self, errand: object, path: str) -> list[str]:
        store = self.store.real("/nix/store")
        return [f"/nix/store/{each.name}" for each in store.iterdir()]

    def _run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        timeout_seconds: float,
        on_line: Callable[[bytes], object],
    ) -> tuple[Outlet, Deferred[Exit]]:
        argv = [*self.wrap, *argv]
        return self.processes.stream(argv, env, timeout_seconds, on_line)

    async def members(
        self, name: str, seconds: float = 60.0, errand: Errand | None = None
    ) -> Mapping[str, bytes]:
        """Run a script of the flake and unpack what it writes."""
        errand = errand or an_errand(seconds)
        return await self.scripts.read(errand, self.store.script(name), unpack)


def an_errand(seconds: float = 60.0) -> Heard:
    return Heard("packages/hello:latest", [], seconds)


def unpack(file: BinaryIO) -> dict[str, bytes]:
    """Read an archive, as far as it is one."""
    data = file.read(2**24)
    if len(data) == 2**24:
        raise ArchiveInvalid("too large")
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            found = ((info.name, tar.extractfile(info)) for info in tar)
            return {name: member.read() for name, member in found if member}
    except tarfile.TarError as e:
        raise ArchiveInvalid("broken") from e


def running(script: str) -> list[int]:
    """List the processes that run a script, or something that it started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if script in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def until(true: Callable[[], object]) -> None:
    """Let the reactor run until something is so."""
    while not true():
        await deferLater(reactor, 0.02)


@pytest.fixture
def bench() -> Iterator[Bench]:
    # Not below pytest's own directory, which is for its owner alone.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Bench(ScriptStore(Path(folder)))


@pytest_twisted.ensureDeferred
async def test_hello(bench: Bench) -> None:
    """What a script writes is the archive, and what it says is in the build's log."""
    errand = an_errand()
    assert await bench.members("hello", errand=errand) == MEMBERS
    assert len(errand.lines) == len(MEMBERS)
    assert errand.lines[0].startswith("adding ./")
    assert 0 < errand.left_seconds < errand.timeout_seconds


@pytest_twisted.ensureDeferred
async def test_unprivileged(bench: Bench) -> None:
    """A registry that runs as nobody in particular has its sandboxes as well."""
    if os.getuid() == 0:
        bench.wrap = NOBODY
    assert await bench.members("hello") == MEMBERS
    assert await bench.members("nosy") == MEMBERS


@pytest_twisted.ensureDeferred
async def test_nosy(bench: Bench) -> None:
    """A script sees and changes nothing of the machine, nor of the network."""
    assert await bench.members("nosy") == MEMBERS


@pytest_twisted.ensureDeferred
async def test_chatty(bench: Bench) -> None:
    """A script may say much while it writes."""
    errand = an_errand()
    assert await bench.members("chatty", errand=errand) == MEMBERS
    assert len(errand.lines) == 20_000 + len(MEMBERS)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dies", "it ended with status 3\n.*> cannot read the second layer"),
        ("regrets", "it ended with status 4\n.*> a layer is missing"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_failures(bench: Bench, name: str, said: str) -> None:
    """When a script fails, its last words are told, whatever it had written."""
    with pytest.raises(BuildFailed, match=f"(?s){said}"):
        await bench.members(name)


@pytest_twisted.ensureDeferred
async def test_killed(bench: Bench) -> None:
    """When something kills a script, its signal is told."""
    script = bench.store.write("killed", "kill -9 $$")
    with pytest.raises(BuildFailed, match="it was ended by SIGKILL"):
        await bench.scripts.read(an_errand(), script, unpack)


@pytest.mark.parametrize("name", ["hangs", "lingers"])
@pytest_twisted.ensureDeferred
async def test_time_is_up(bench: Bench, name: str) -> None:
    """A script that does not end is ended when its time is up, and that is told."""
    errand = an_errand(2.0)
    with pytest.raises(BuildTimedOut, match=r"after 2 s \(NIX_BUILD_TIMEOUT\)"):
        await bench.members(name, errand=errand)
    assert errand.left_seconds <= 0
    await until(lambda: not running(bench.store.script(name)))


@pytest_twisted.ensureDeferred
async def test_endless(bench: Bench) -> None:
    """A script that writes for ever is ended when it has written too much."""
    with pytest.raises(ArchiveInvalid, match="too large"):
        await bench.members("endless")
    await until(lambda: not running(bench.store.script("endless")))


@pytest_twisted.ensureDeferred
async def test_deaf(bench: Bench) -> None:
    """A script that will not hear of its end is gone with all that it started."""
    errand = an_errand()
    reading = ensureDeferred(bench.members("deaf", errand=errand))
    await until(lambda: "ready" in errand.lines)
    before = sleepers()
    assert before
    errand.cancel()
    with pytest.raises(BuildCancelled):
        await reading
    await until(lambda: not running(bench.store.script("deaf")))
    await until(lambda: not before & sleepers())


def sleepers() -> set[int]:
    return set(running("sleep\x00100000"))


@pytest_twisted.ensureDeferred
async def test_stopping(bench: Bench) -> None:
    """When the registry stops, its scripts end first."""
    errand = an_errand()
    reading = ensureDeferred(bench.members("deaf", errand=errand))
    await until(lambda: "ready" in errand.lines)
    await bench.processes.stop()
    with pytest.raises(ShuttingDown):
        await reading
    assert not running(bench.store.script("deaf"))


def test_registry_is_killed(bench: Bench) -> None:
    """When the registry is killed, a script that ignores all is gone with it."""
    script = bench.store.script("deaf")
    code = (
        "import sys; from tests.socket.test_stream import *;"
        "bench = object.__new__(ScriptStore); bench.root = Path(sys.argv[1]);"
        "opening = Bench(bench).scripts.open(an_errand(), sys.argv[2]);"
        "Deferred.fromCoroutine(opening); reactor.run()"
    )
    argv = [sys.executable, "-c", code, str(bench.store.root), script]
    with subprocess.Popen(argv) as registry:
        while len(running(script)) < 4:  # this one, bwrap, its child, and the script
            assert registry.poll() is None
        registry.kill()
    while running(script):
        pass


@pytest_twisted.ensureDeferred
async def test_greedy(bench: Bench) -> None:
    """A script that takes too much memory fails, and the setting is named."""
    bench.memory_bytes = 2**27
    with pytest.raises(BuildFailed, match=r"134217728 bytes \(FORGE_EVALUATION_MEM"):
        await bench.members("greedy")


@pytest_twisted.ensureDeferred
async def test_no_interpreter(bench: Bench) -> None:
    """A script whose interpreter is not in the store fails for that."""
    script = bench.store.write("lost", "")
    bench.store.real(script).chmod(0o755)
    bench.store.real(script).write_text("#!/bin/sh\n")
    with pytest.raises(BuildFailed, match="execvp .* No such file") as failure:
        await bench.scripts.read(an_errand(), script, unpack)
    assert "name one of the Nix store" in failure.value.detail
    assert "bubblewrap" not in failure.value.detail


@pytest.mark.parametrize(
    "wrap", [[*FORBIDDEN, *POWERLESS], ["env", "PATH=/none", "/usr/bin/prlimit"]]
)
@pytest_twisted.ensureDeferred
async def test_no_sandbox(bench: Bench, wrap: list[str]) -> None:
    """Where no sandbox can be made, nothing is run, and it is said what to do."""
    bench.wrap = wrap
    with pytest.raises(BuildFailed, match=r"\(.*bwrap.*\): install bubblewrap, and"):
        await bench.members("hello")


@pytest_twisted.ensureDeferred
async def test_leaving_off(bench: Bench) -> None:
    """Whoever has read enough leaves off, and the script ends."""
    script = bench.store.script("endless")
    head = await bench.scripts.read(an_errand(), script, lambda f: f.read(10))
    assert head == bytes(10)
    await until(lambda: not running(script))
