"""Tests for `forgereg.nix.process`, with real children."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from forgereg.metrics import Metrics
from forgereg.nix import process
from forgereg.nix.longlines import MAX_LINE, without_mark
from forgereg.nix.outlet import Outlet
from forgereg.nix.process import Exit, Processes, ProcessReactor

ENV = {"PATH": os.environ["PATH"]}


def sh(
    processes: Processes, script: str, lines: list[bytes], timeout: float = 20.0
) -> Deferred[Exit]:
    """Run a shell script as the registry runs nix."""
    return processes.run(["sh", "-c", script], ENV, timeout, lines.append)


@pytest.fixture
def processes() -> Processes:
    """Children of the test's own."""
    return Processes(cast(ProcessReactor, reactor))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill what does not end by itself after a moment."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(process, "PIPES_SECONDS", 0.3)


async def pause(seconds: float) -> None:
    """Let the reactor run for a while."""
    await deferLater(reactor, seconds)


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest_twisted.ensureDeferred
async def test_output_and_status(processes: Processes) -> None:
    """What a child prints, says on standard error, and ends with, all arrives."""
    lines: list[bytes] = []
    outcome = await sh(processes, "echo path; printf 'one\ntwo' >&2; exit 3", lines)
    assert outcome == Exit(3, b"path\n")
    assert lines == [b"one", b"two"]


@pytest_twisted.ensureDeferred
async def test_children_are_counted() -> None:
    """A child is seen while it runs, by what it does and whatever wraps it."""
    metrics = Metrics()
    processes = Processes(cast(ProcessReactor, reactor), metrics)

    def value(name: str, kind: str) -> float | None:
        metrics.look()
        return metrics.registry.get_sample_value(f"forge_{name}", {"kind": kind})

    argv = ["setpriv", "sh", "-c", "exit 0", "nix", "eval", "build"]
    done = processes.run(argv, ENV, 20.0, lambda line: None)
    assert value("processes", "evaluate") == 1
    await done
    await sh(processes, "exit 0", [])
    assert value("processes", "evaluate") == 0
    assert value("processes_started_total", "evaluate") == 1
    assert value("processes_started_total", "other") == 1
    assert value("processes_started_total", "build") == 0


@pytest_twisted.ensureDeferred
async def test_lines_come_as_they_are_said(processes: Processes) -> None:
    """A line of the build's log is seen while the build goes on."""
    lines: list[bytes] = []
    done = sh(processes, "echo early >&2; sleep 20", lines)
    while not lines:
        await pause(0.02)
    assert lines == [b"early"] and not done.called
    await processes.stop()


@pytest_twisted.ensureDeferred
async def test_a_long_line_is_cut(processes: Processes) -> None:
    """A builder that never ends its line does not fill the memory."""
    lines: list[bytes] = []
    (
        await sh(
            processes, "head -c 3000000 /dev/zero >&2; echo >&2; echo end >&2", lines
        )
    )
    assert list(map(without_mark, lines)) == [
        (bytes(MAX_LINE), 3000000 - MAX_LINE),
        (b"end", 0),
    ]


@pytest_twisted.ensureDeferred
async def test_endless_output_is_ended(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nix that prints without end is ended, and its output is not kept."""
    monkeypatch.setattr(process, "MAX_OUT", 2**20)
    outcome = await sh(processes, "exec cat /dev/zero", [])
    assert outcome.status is None and len(outcome.out) <= 2**20


@pytest_twisted.ensureDeferred
async def test_nothing_to_read(processes: Processes) -> None:
    """A child that asks a question gets no answer, and does not wait for one."""
    assert (await sh(processes, "read answer; exit 7", [])).status == 7


@pytest_twisted.ensureDeferred
async def test_time_is_up(processes: Processes) -> None:
    """A child that takes longer than it may is told to end."""
    outcome = await sh(processes, "exec sleep 20", [], timeout=0.2)
    assert outcome == Exit(None, b"", timed_out=True)


@pytest_twisted.ensureDeferred
async def test_no_time_at_all(processes: Processes) -> None:
    """A child whose time was up before it began is ended at once."""
    outcome = await sh(processes, "exec sleep 20", [], timeout=-5.0)
    assert outcome.timed_out


@pytest.mark.usefixtures("impatient")
@pytest_twisted.ensureDeferred
async def test_deaf_children_are_killed(processes: Processes) -> None:
    """A child that ignores SIGTERM is killed, with all that it started."""
    lines: list[bytes] = []
    script = "trap '' TERM; sleep 300 & echo $! $$ >&2; while :; do sleep 0.1; done"
    outcome = await sh(processes, script, lines, timeout=0.5)
    assert outcome.timed_out
    pids = [int(pid) for pid in lines[0].split()]
    while any(map(alive, pids)):
        await pause(0.02)


@pytest.mark.usefixtures("impatient")
@pytest_twisted.ensureDeferred
async def test_orphans_do_not_hold_us_up(processes: Processes) -> None:
    """What a child leaves behind is ended with it, or not waited for."""
    lines: list[bytes] = []
    start = time.monotonic()
    script = "sleep 300 & echo $! >&2; setsid sleep 40 & echo $! >&2; sleep 0.2; exit 0"
    outcome = await sh(processes, script, lines)
    assert outcome.status == 0 and time.monotonic() - start < 30
    orphan, elsewhere = map(int, lines)
    while alive(orphan):
        await pause(0.02)
    os.kill(elsewhere, signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_cancelling(processes: Processes) -> None:
    """Whoever has no more use for a child ends it by cancelling."""
    lines: list[bytes] = []
    done = sh(processes, "echo $$ >&2; exec sleep 300", lines)
    while not lines:
        await pause(0.02)
    failures: list[Any] = []
    done.addErrback(failures.append)
    done.cancel()
    assert failures[0].check(CancelledError)
    while alive(int(lines[0])):
        await pause(0.02)


@pytest_twisted.ensureDeferred
async def test_stopping(processes: Processes) -> None:
    """When the registry stops, its children end first, and no more are started."""
    lines: list[bytes] = []
    done = sh(processes, "echo $$ >&2; exec sleep 300", lines)
    while not lines:
        await pause(0.02)
    await processes.stop()
    while alive(int(lines[0])):
        await pause(0.02)
    assert (await done) == Exit(None, b"", stopped=True)
    assert (await sh(processes, "echo never", [])) == Exit(None, b"", stopped=True)


@pytest_twisted.ensureDeferred
async def test_no_such_program(processes: Processes) -> None:
    """A program that is not there is an exit status, not a traceback."""
    lines: list[bytes] = []
    argv = ["no-such-program-anywhere"]
    outcome = await processes.run(argv, ENV, 10.0, lines.append)
    assert outcome.status == 127
    assert b"no-such-program-anywhere" in lines[0]


@pytest_twisted.ensureDeferred
async def test_no_process_to_be_had(processes: Processes) -> None:
    """When the machine has no room for another process, that is told, and survived."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lines: list[bytes] = []
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        outcome = await sh(processes, "true", lines)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert outcome == Exit(None)
    assert lines == [b"error: cannot start sh: Too many open files"]
    await processes.stop()


def stream(
    processes: Processes, script: str, lines: list[bytes], timeout: float = 20.0
) -> tuple[Outlet, Deferred[Exit]]:
    """Run a shell script whose output a thread reads."""
    return processes.stream(["sh", "-c", script], ENV, timeout, lines.append)


async def read(out: Outlet) -> bytes:
    """Read to the end, in a thread."""
    data = await deferToThread(out.read)
    out.abandon()
    return data


@pytest_twisted.ensureDeferred
async def test_streaming(processes: Processes) -> None:
    """What a child writes is read while it runs, whatever its size."""
    lines: list[bytes] = []
    script = "head -c 5000000 /dev/zero; echo said >&2; exit 3"
    out, done = stream(processes, script, lines)
    assert len(await read(out)) == 5_000_000
    assert await done == Exit(3)
    assert lines == [b"said"]


@pytest_twisted.ensureDeferred
async def test_a_stream_has_no_descriptor_of_another(processes: Processes) -> None:
    """A child has its own three descriptors, and none of the registry's."""
    first, waiting = stream(processes, "exec sleep 300", [])
    out, done = stream(processes, "ls /proc/self/fd", [])
    # The fourth is that of the directory.
    assert (await read(out)).split() == [b"0", b"1", b"2", b"3"]
    await done
    await processes.stop()
    assert await read(first) == b""
    assert (await waiting).stopped


@pytest_twisted.ensureDeferred
async def test_nobody_reads_on(processes: Processes) -> None:
    """A child whose output nobody wants any more is told so when it writes."""
    out, done = stream(processes, "exec cat /dev/zero", [])
    await deferToThread(out.read, 10)
    out.abandon()
    assert await done == Exit(None)


@pytest.mark.usefixtures("impatient")
@pytest_twisted.ensureDeferred
async def test_orphans_do_not_hold_the_reader_up(processes: Processes) -> None:
    """What a child wrote has an end when the child has, whoever holds it open."""
    lines: list[bytes] = []
    # It ends once the other is a session of its own, which nobody ends with it.
    orphan = "echo $$ >&2; kill -USR1 $PPID; exec sleep 40"
    script = f"trap : USR1; echo all; setsid sh -c '{orphan}' & wait; true"
    out, done = stream(processes, script, lines)
    assert await read(out) == b"all\n"
    assert (await done).status == 0
    os.kill(int(lines[0]), signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_streams_when_stopped(processes: Processes) -> None:
    """A registry that is stopping starts no script."""
    await processes.stop()
    out, done = stream(processes, "echo never", [])
    assert await read(out) == b""
    assert await done == Exit(None, stopped=True)
