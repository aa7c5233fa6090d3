"""Tests for `forgereg.nix.stream`."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from forgereg.flow.errand import Errand
from forgereg.nix.process import Exit
from forgereg.nix.stream import Scripts
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildCancelled,
    BuildFailed,
    BuildTimedOut,
    NixEnded,
    RegistryError,
    ShuttingDown,
)
from tests.deferreds import begin, no_result, result_of
from tests.doubles import Part, ScriptedScripts, Threads, store_path

SCRIPT = store_path("stream-hello")
WELL = Exit(0)


@define
class Bench:
    """`Scripts`, and what they stand on."""

    scripted: ScriptedScripts = field(factory=ScriptedScripts)
    clock: Clock = field(factory=Clock)
    threads: Threads = field(factory=Threads)
    errand: Errand = field(factory=lambda: Errand("packages/hello:1.0", [], 100.0))
    memory_bytes: int = 0
    others: list[str] = field(factory=list)

    @property
    def scripts(self) -> Scripts:
        return Scripts(
            self.scripted,
            self.closure,
            {"PATH": "/bin"},
            Path("/elsewhere"),
            self.memory_bytes,
            self.clock.seconds,
            self.threads,
        )

    async def closure(self, errand: object, path: str) -> list[str]:
        return [path, *self.others]

    def play(self, data: bytes, *lines: bytes, exit: Exit = WELL) -> None:
        self.scripted.parts[SCRIPT] = Part(data, lines, exit)

    def failure(self, *lines: bytes, exit: Exit) -> RegistryError:
        """Say why a script that wrote something is no image."""
        self.play(b"something", *lines, exit=exit)
        with pytest.raises(RegistryError) as failure:
            result_of(self.scripts.read(self.errand, SCRIPT, whole))
        return failure.value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def whole(file: BinaryIO) -> bytes:
    return file.read()


def refuse(file: BinaryIO) -> bytes:
    raise ArchiveInvalid(f"this is no archive: {file.read(4)!r}")


def test_whole(bench: Bench) -> None:
    """What a script writes is read to its end."""
    bench.play(bytes(3_000_000) + b"end")
    assert result_of(bench.scripts.read(bench.errand, SCRIPT, whole)).endswith(b"\0end")
    assert bench.scripted.outlets[0].closed


def test_sandbox(bench: Bench) -> None:
    """A script sees itself in the store that it was built in, and cannot write there."""
    bench.memory_bytes = 1000
    bench.play(b"")
    result_of(bench.scripts.read(bench.errand, SCRIPT, whole))
    (argv,) = bench.scripted.argvs
    assert argv[:3] == ["prlimit", "--data=1000", "bwrap"]
    place = argv.index("--ro-bind")
    assert argv[place + 1 : place + 3] == [f"/elsewhere{SCRIPT}", SCRIPT]
    assert argv[-2:] == ["--", SCRIPT]


def test_time(bench: Bench) -> None:
    """A script has the time that its errand has left, and uses it up."""
    bench.play(b"")
    bench.scripted.pause()
    reading = begin(bench.scripts.read(bench.errand, SCRIPT, whole))
    bench.clock.advance(70.0)
    bench.scripted.resume()
    result_of(reading)
    result_of(bench.scripts.read(bench.errand, SCRIPT, whole))
    assert bench.scripted.limits == [100.0, 30.0]


@pytest.mark.parametrize(
    ("exit", "error", "said"),
    [
        (Exit(3), BuildFailed, "it ended with status 3"),
        (Exit(139), BuildFailed, "it was ended by SIGSEGV"),
        (Exit(None), NixEnded, "the script was ended; pull again"),
        (Exit(None, timed_out=True), BuildTimedOut, "after 100 s (NIX_BUILD_TIMEOUT)"),
        (Exit(None, stopped=True), ShuttingDown, "the registry is shutting down"),
    ],
)
def test_ends(bench: Bench, exit: Exit, error: type[RegistryError], said: str) -> None:
    """Whatever a script wrote, it counts only if the script ended well."""
    failure = bench.failure(b"its last words", exit=exit)
    assert type(failure) is error and said in failure.detail
    assert error is ShuttingDown or "> its last words" in failure.detail


def test_status_comes_before_what_was_written(bench: Bench) -> None:
    """When a script dies in the middle, its own words are told, not that it is cut."""
    bench.play(b"", b"no space", exit=Exit(1))
    with pytest.raises(BuildFailed, match="no space"):
        result_of(bench.scripts.read(bench.errand, SCRIPT, refuse))


def test_what_was_written_is_wrong(bench: Bench) -> None:
    """A script that writes something else is ended without waiting for its end."""
    bench.play(bytes(3_000_000))
    bench.scripted.pause()
    with pytest.raises(ArchiveInvalid):
        result_of(bench.scripts.read(bench.errand, SCRIPT, refuse))
    assert bench.scripted.killed == [SCRIPT]
    assert bench.scripted.outlets[0].closed


def test_cancelling(bench: Bench) -> None:
    """When a build is cancelled, its script ends, and what it wrote is let go of."""
    bench.play(b"")
    bench.scripted.pause()
    bench.threads.pause()
    reading = begin(bench.scripts.read(bench.errand, SCRIPT, whole))
    no_result(reading)
    bench.errand.cancel()
    with pytest.raises(BuildCancelled):
        result_of(reading)
    assert bench.scripted.killed == [SCRIPT]
    assert bench.scripted.outlets[0].closed


@pytest.mark.parametrize(
    "said",
    [
        b"bwrap: No permissions to create new namespace",
        b"setpriv: failed to execute bwrap: No such file or directory",
    ],
)
def test_no_sandbox(bench: Bench, said: bytes) -> None:
    """Where there is no sandbox, it is said what to do."""
    detail = bench.failure(said, exit=Exit(1)).detail
    assert said.decode() in detail and "install bubblewrap" in detail


def test_memory(bench: Bench) -> None:
    """When the memory was too little, the setting is named."""
    bench.memory_bytes = 1000
    detail = bench.failure(b"MemoryError", exit=Exit(1)).detail
    assert "FORGE_EVALUATION_MEMORY" in detail


def test_closure(bench: Bench) -> None:
    """A script sees what it refers to, and nothing else of the store."""
    bench.others = [store_path("shell")]
    bench.play(b"", exit=Exit(0))
    result_of(bench.scripts.read(bench.errand, SCRIPT, whole))
    argv = bench.scripted.argvs[0]
    binds = [argv[n + 1 : n + 3] for n, word in enumerate(argv) if word == "--ro-bind"]
    assert binds == [[f"/elsewhere{path}", path] for path in (SCRIPT, *bench.others)]


def test_closure_that_is_too_large(bench: Bench) -> None:
    """A script that refers to more than a sandbox takes is refused, with advice."""
    bench.others = [store_path(f"{n}") for n in range(3000)]
    with pytest.raises(BuildFailed, match="buildLayeredImage"):
        result_of(bench.scripts.read(bench.errand, SCRIPT, whole))


def test_opening(bench: Bench) -> None:
    """Whoever reads a script's output in their own way closes it in their own time."""
    bench.play(b"something", exit=Exit(0))
    stream = result_of(bench.scripts.open(bench.errand, SCRIPT))
    assert stream.file.peek(4)[:4] == b"some"
    assert stream.file.read() == b"something" and stream.file.at_end
    result_of(stream.end())
    for _ in range(2):
        stream.close()
    assert stream.file.closed and not bench.scripted.killed
