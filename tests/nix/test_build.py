"""Tests for `forgereg.nix.build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from forgereg.flow.errand import Errand
from forgereg.nix.build import Listener, Nix
from forgereg.nix.events import Event, Line
from forgereg.nix.flake import Command, package_query
from forgereg.nix.longlines import LineCutter
from forgereg.nix.process import Exit
from forgereg.oci.errors import (
    BuildFailed,
    BuildTimedOut,
    DiskFull,
    EvaluationFailed,
    FlakeUnavailable,
    NixEnded,
    RegistryError,
    ShuttingDown,
)
from tests.conftest import Log
from tests.deferreds import begin, no_result, result_of
from tests.doubles import FLAKE, SYSTEM, Output, Package, ScriptedNix, store_path

COMMAND = Command(SYSTEM)
OUTPUT = Output(store_path("hello.tar.gz"), lambda: None, store_path("hello.drv"))
ATTRIBUTE = COMMAND.installable("hello", "image")
QUERY = package_query("hello", "image")


@define
class Bench:
    """`Nix`, and what it stands on."""

    nix: Nix
    scripted: ScriptedNix
    clock: Clock
    roots: Path

    @property
    def errand(self) -> Errand:
        """An errand of 100 s."""
        return Errand("packages/hello:latest", ["192.0.2.1"], 100.0)

    def lock(self) -> str:
        return result_of(self.nix.lock(self.errand, FLAKE))

    def evaluate(self) -> Any:
        return result_of(self.nix.evaluate(self.errand, self.scripted.locked, QUERY))

    def build(self) -> str:
        return result_of(
            self.nix.build(
                self.errand, self.scripted.locked, ATTRIBUTE, OUTPUT.derivation
            )
        )


@define(eq=False)
class Hearing(Errand):
    """An errand that remembers the lines that it hears."""

    said: list[str] = field(init=False, factory=list)

    def hear(self, event: Event) -> None:
        assert isinstance(event, Line)
        self.said.append(event.text)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    scripted = ScriptedNix({"hello": Package("2.12", {"image": OUTPUT})})
    clock = Clock()
    nix = Nix(scripted, COMMAND, {"HOME": "/x"}, clock.seconds, tmp_path)
    return Bench(nix, scripted, clock, tmp_path)


def said(level: int, text: str) -> str:
    return "@nix " + json.dumps({"action": "msg", "level": level, "msg": text})


def built(text: str) -> str:
    event = {"action": "result", "type": 101, "fields": [text], "id": 1}
    return "@nix " + json.dumps(event)


def test_lock(bench: Bench) -> None:
    """A flake ref becomes one that can only ever mean this revision."""
    assert bench.lock() == bench.scripted.locked


def test_evaluate(bench: Bench) -> None:
    """A question about a flake is answered without building anything."""
    assert bench.evaluate() == {
        "status": "ok",
        "attribute": "hello",
        "derivation": OUTPUT.derivation,
        "version": "2.12",
    }
    assert bench.scripted.count("build") == 0


def test_build_gives_the_output(bench: Bench) -> None:
    """A build gives the path of what was built."""
    assert bench.build() == OUTPUT.path


def test_build_keeps_its_output(bench: Bench) -> None:
    """What was built has a root of its own, named after what it was built from."""
    bench.build()
    (root,) = bench.roots.iterdir()
    assert f"{root.name}.drv" == OUTPUT.derivation.rpartition("/")[2]
    assert str(root.readlink()) == OUTPUT.path


def test_environment_and_time(bench: Bench) -> None:
    """Nix runs with the environment that is set, while the errand has time left."""
    errand = bench.errand
    for _ in range(2):
        bench.scripted.pause()
        locked = begin(bench.nix.lock(errand, FLAKE))
        bench.clock.advance(70.0)
        bench.scripted.resume()
        result_of(locked)
        bench.clock.advance(1000.0)  # between the two, which does not count
    with pytest.raises(FlakeUnavailable, match="timed out"):
        result_of(bench.nix.lock(errand, FLAKE))
    assert bench.scripted.limits == [100.0, 30.0, -40.0]
    assert bench.scripted.envs == [{"HOME": "/x"}] * 3


def test_waits_for_the_end(bench: Bench) -> None:
    """Nothing is answered before nix has ended."""
    bench.scripted.pause()
    locked = begin(bench.nix.lock(bench.errand, FLAKE))
    no_result(locked)
    bench.scripted.resume()
    assert result_of(locked) == bench.scripted.locked


@pytest.mark.parametrize(
    ("verb", "ask", "error"),
    [
        ("metadata", Bench.lock, FlakeUnavailable),
        ("eval", Bench.evaluate, EvaluationFailed),
        ("build", Bench.build, BuildFailed),
    ],
)
def test_failure_is_told_in_the_words_of_nix(
    bench: Bench, verb: str, ask: Any, error: type[RegistryError]
) -> None:
    """Whoever pulls reads what nix said was wrong."""
    bench.scripted.fail(verb, said(0, "error: \x1b[31mit is broken\x1b[0m"))
    with pytest.raises(error, match="failed: it is broken"):
        ask(bench)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("syntax error, unexpected end of file", EvaluationFailed),
        ("undefined variable 'y'", EvaluationFailed),
        ("flake 'github:a/b' lacks attribute 'outputs'", EvaluationFailed),
        ("flake 'github:a/b' has an unsupported attribute 'foo'", EvaluationFailed),
        (
            "getting status of '/nix/store/x-source/flake.nix': No such file",
            EvaluationFailed,
        ),
        ("expected a set but got an integer (at flake.nix:1:3)", EvaluationFailed),
        ("getting status of '/srv/flake': No such file", FlakeUnavailable),
        ("program 'git' failed with exit code 128", FlakeUnavailable),
        ("unable to download 'https://example.org/x'", FlakeUnavailable),
    ],
)
def test_a_flake_that_is_there_and_makes_no_sense(
    bench: Bench, text: str, error: type[RegistryError]
) -> None:
    """A flake that was fetched, and is broken, is told from one that is away."""
    bench.scripted.fail("metadata", f"error: {text}")
    with pytest.raises(error):
        bench.lock()


def test_failed_build_ends_with_its_log(bench: Bench) -> None:
    """Of a build that fails the last ten lines of its log are told, in order."""
    lines = [built(f"line {n}") for n in range(25)]
    bench.scripted.fail("build", *lines, said(0, "builder failed with exit code 2"))
    with pytest.raises(BuildFailed) as failed:
        bench.build()
    message, _, log = str(failed.value).partition("\nlast lines of the log:\n")
    assert message == (
        "build of packages/hello:latest failed: builder failed with exit code 2"
    )
    assert log.split("\n") == [f"> line {n}" for n in range(15, 25)]


def test_last_errors_matter(bench: Bench) -> None:
    """Of many errors the last ones are told, each cut to a size that can be read."""
    errors = [said(0, f"error: {n} {'x' * 10_000}") for n in range(9)]
    bench.scripted.fail("eval", *errors)
    with pytest.raises(EvaluationFailed) as failed:
        bench.evaluate()
    assert " 4 " not in str(failed.value)
    assert all(f"{n} xxx" in str(failed.value) for n in (5, 6, 7, 8))
    assert len(str(failed.value)) < 10_000


def test_errors_of_git_and_ssh(bench: Bench) -> None:
    """What git and ssh say is told too, if it says that something is wrong."""
    bench.scripted.fail(
        "metadata", "remote: counting", "fatal: could not read Username"
    )
    with pytest.raises(FlakeUnavailable) as failed:
        bench.lock()
    assert "fatal: could not read Username" in str(failed.value)
    assert "counting" not in str(failed.value)


def test_silent_failure(bench: Bench) -> None:
    """A nix that fails without a word is said to have been silent."""
    bench.scripted.fail("build")
    with pytest.raises(BuildFailed, match="nix did not say why"):
        bench.build()


def test_killed_nix(bench: Bench) -> None:
    """A nix that somebody killed may do better the next time, and that is said."""
    interrupted = (said(0, "error: interrupted by the user"), Exit(1))
    for line, exit in (("", Exit(None)), interrupted):
        bench.scripted.fail("build", line, exit=exit)
        with pytest.raises(NixEnded, match="nix was ended; pull again"):
            bench.build()


def test_a_builder_that_claims_to_be_killed(bench: Bench) -> None:
    """A builder that fails has failed, though its log says that somebody ended it."""
    fields = '"fields":["interrupted by the user"],"id":1,"type":101'
    bench.scripted.fail("build", f'@nix {{"action":"result",{fields}}}')
    with pytest.raises(BuildFailed):
        bench.build()


def test_forged_lines_change_nothing(bench: Bench) -> None:
    """A builder that prints errors and then succeeds has succeeded."""
    bench.scripted.fail(
        "build",
        said(0, "error: No space left on device"),
        exit=Exit(0, b'["/nix/store/x"]'),
    )
    assert bench.build() == "/nix/store/x"


@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
def test_timeout(bench: Bench, verb: str) -> None:
    """A nix whose time is up is named with the limit and the setting to change it."""
    exit = Exit(None, timed_out=True)
    bench.scripted.fail(verb, built("still compiling"), exit=exit)
    ask = {"metadata": bench.lock, "eval": bench.evaluate, "build": bench.build}[verb]
    with pytest.raises(
        BuildTimedOut if verb != "metadata" else FlakeUnavailable
    ) as failed:
        ask()
    assert "timed out after 100 s (NIX_BUILD_TIMEOUT)" in str(failed.value)
    assert "> still compiling" in str(failed.value)


def test_stopping(bench: Bench) -> None:
    """Whoever waits while the registry stops is told so, not that it failed."""
    bench.scripted.fail("build", exit=Exit(None, stopped=True))
    with pytest.raises(ShuttingDown):
        bench.build()


@pytest.mark.parametrize(
    "error",
    [
        "error: writing to file: No space left on device",
        "error: executing SQLite statement: database or disk is full",
        "error: disk I/O error",
    ],
)
@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
def test_full_disk(bench: Bench, verb: str, error: str) -> None:
    """A nix that found no room on the disk is told apart from a broken flake."""
    bench.scripted.fail(verb, said(0, error))
    ask = {"metadata": bench.lock, "eval": bench.evaluate, "build": bench.build}[verb]
    with pytest.raises(DiskFull, match="the disk is full"):
        ask()


def test_builder_that_speaks_of_full_disks(bench: Bench) -> None:
    """A line of a builder's log that speaks of a full disk is not nix's word for it."""
    bench.scripted.fail("build", built("No space left on device"), said(0, "failed"))
    with pytest.raises(BuildFailed):
        bench.build()


@pytest.mark.parametrize("out", [b"", b"{}", b"[]", b'{"url": 5}', b"\xff"])
def test_metadata_of_no_known_shape(bench: Bench, out: bytes) -> None:
    """A nix that says nothing of a locked ref is not believed."""
    bench.scripted.answer("metadata", out)
    with pytest.raises(FlakeUnavailable, match="no locked ref"):
        bench.lock()


@pytest.mark.parametrize("out", [b"", b"not json", b"null"])
def test_evaluation_of_no_known_shape(bench: Bench, out: bytes) -> None:
    """A nix that answers something else than JSON is not believed."""
    bench.scripted.answer("eval", out)
    with pytest.raises(EvaluationFailed, match="not JSON"):
        bench.evaluate()


def test_build_of_no_known_shape(bench: Bench) -> None:
    """A nix that does not say what it built is not believed."""
    bench.scripted.answer("build", b"[]")
    with pytest.raises(BuildFailed, match="without saying what"):
        bench.build()


def test_the_log_has_every_line(bench: Bench, log: Log) -> None:
    """All that nix says is in the registry's log, marked with the image."""
    bench.scripted.fail("build", built("compiling"), said(1, "a warning"))
    with pytest.raises(BuildFailed):
        bench.build()
    assert "packages/hello:latest: compiling" in log.text
    assert "packages/hello:latest: a warning" in log.text
    assert "packages/hello:latest: failed: nix did not say why" in log.text


@pytest.mark.parametrize("length", [300_009, 2**20, 2**22])
def test_long_line(bench: Bench, length: int) -> None:
    """Of a builder's line that is very long one reads the beginning, and what is missing."""
    errand = Hearing("packages/hello:latest", ["192.0.2.1"], 100.0)
    line = built("x" * length).encode()
    (raw,) = LineCutter().feed(line + b"\n")
    listener = Listener(errand, str)
    listener.hear(raw)
    (said,) = errand.said
    kept, _, mark = said.partition("… (")
    assert kept == "x" * 2**14
    left_out = int(mark.removesuffix(" characters left out)"))
    assert length - 2**14 <= left_out < length
    assert f"… ({left_out + 2**14 - 2000} characters left out)" in listener.report()


@pytest.mark.parametrize(
    "noise",
    [
        said(0, "error (ignored): error: SQLite database '/x/v2/1.sqlite' is busy"),
        said(0, "\x1b[31;1merror (ignored):\x1b[0m SQLite database '/x' is busy"),
        said(0, "error: unable to download 'http://x': timed out; retrying in 268 ms"),
        said(1, "warning: Git tree '/x' is dirty"),
        "warning: redirecting to https://forge.example/",
        "error (ignored): SQLite database '/x' is busy",
    ],
)
def test_noise_is_no_reason(bench: Bench, noise: str) -> None:
    """What nix gets over is in the log, and not among the reasons of a failure."""
    bench.scripted.fail("build", noise, said(0, "error: it is broken"))
    with pytest.raises(BuildFailed) as raised:
        bench.build()
    assert raised.value.detail.endswith("failed: it is broken")
