"""Tests for `forgereg.flow.buildlog`."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from forgereg.flow.buildlog import BuildLog
from forgereg.oci.errors import DiskFull
from forgereg.records.buildlogs import BuildLogs
from tests.conftest import Log
from tests.doubles import Threads, at_once


@define
class Disk:
    """
    What was appended, until there is no more room.

    :ivar pieces: each call's data.
    """

    pieces: list[bytes] = field(factory=list)
    error: Exception | None = None

    def append(self, build_id: str, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.pieces.append(data)

    @property
    def lines(self) -> list[str]:
        return b"".join(self.pieces).decode().splitlines()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def threads() -> Threads:
    return Threads()


def begin(disk: Disk, threads: Threads, max_bytes: int = 10**8) -> BuildLog:
    return BuildLog("b-1", disk.append, threads, max_bytes)


def is_done(closed: Deferred[None]) -> bool:
    return closed.called


def test_lines_reach_the_disk_while_the_build_runs(tmp_path: Path) -> None:
    """Whoever reads the log of a build that runs sees what was said so far."""
    logs = BuildLogs(tmp_path)
    log = BuildLog("b-1", logs.append, at_once, 1000)
    log.write("one")
    assert logs.read("b-1", 0, 100) == b"one\n"
    log.write("two\nthree\n")
    assert is_done(log.close())
    assert logs.read("b-1", 0, 100) == b"one\ntwo\nthree\n"


def test_lines_wait_for_a_slow_disk_together(disk: Disk, threads: Threads) -> None:
    """While a thread writes, lines gather and go to disk at once, in order."""
    threads.pause()
    log = begin(disk, threads)
    for number in range(5):
        log.write(str(number))
    closed = log.close()
    assert not is_done(closed)
    threads.resume()
    assert is_done(closed)
    assert disk.pieces == [b"0\n", b"1\n2\n3\n4\n"]


def test_log_at_its_limit_keeps_its_end(disk: Disk, threads: Threads) -> None:
    """Of a log that is too long the beginning and the last hundred lines are kept."""
    log = begin(disk, threads, max_bytes=100)
    for number in range(1000):
        log.write(f"line {number:04}")
    assert log.is_full
    assert len(disk.lines) == 10
    assert is_done(log.close())
    assert disk.lines[:10] == [f"line {number:04}" for number in range(10)]
    assert disk.lines[10] == (
        "[… 890 lines left out: the log is limited to 100 bytes"
        " (FORGE_BUILD_LOG_SIZE) …]"
    )
    assert disk.lines[11:] == [f"line {number:04}" for number in range(900, 1000)]


def test_log_a_little_over_its_limit_is_whole(disk: Disk, threads: Threads) -> None:
    """Where all that is past the limit is still known, nothing is left out."""
    log = begin(disk, threads, max_bytes=100)
    for number in range(110):
        log.write(f"line {number:04}")
    log.close()
    assert disk.lines == [f"line {number:04}" for number in range(110)]


def test_log_that_fits_is_as_it_was_said(disk: Disk, threads: Threads) -> None:
    """A log that just fits has no note and no line twice."""
    log = begin(disk, threads, max_bytes=4)
    log.write("one")
    assert not log.is_full
    log.close()
    assert disk.lines == ["one"]


def test_lines_past_the_limit_may_go_unread(disk: Disk, threads: Threads) -> None:
    """Lines past the limit are only read if they are among the last."""
    read: list[int] = []

    def line(number: int) -> str:
        read.append(number)
        return f"line {number}"

    log = begin(disk, threads, max_bytes=7)
    for number in range(1000):
        log.skip(lambda number=number: line(number))  # type: ignore[misc]
    assert read == [0, 1]
    assert log.tail(1) == ["line 999"]
    log.close()
    assert disk.lines[0] == "line 0"
    assert disk.lines[1].startswith("[… 899 lines left out: ")
    assert disk.lines[2:] == [f"line {number}" for number in range(900, 1000)]


def test_disk_that_is_too_slow_leaves_a_gap(disk: Disk, threads: Threads) -> None:
    """A disk that does not keep up costs lines, which is said where they were."""
    threads.pause()
    log = begin(disk, threads)
    for _ in range(5):
        log.write("x" * 400_000)
    threads.resume()
    log.write("after")
    assert [line[:30] for line in disk.lines] == [
        *["x" * 30] * 3,
        "[… 2 lines left out: the disk ",
        "after",
    ]


def test_last_lines_survive_a_disk_that_is_too_slow(
    disk: Disk, threads: Threads
) -> None:
    """What nix said last is in the log, however slow the disk was before."""
    threads.pause()
    log = begin(disk, threads)
    for number in range(300):
        log.write(f"line {number} ".ljust(10_000, "x"))
    closed = log.close()
    threads.resume()
    assert is_done(closed)
    numbers = [line.split()[1] for line in disk.lines]
    assert numbers[105] == "95"  # … 95 lines left out: 105 were taken
    assert numbers[106:] == [str(number) for number in range(200, 300)]


def test_line_longer_than_what_may_wait(disk: Disk, threads: Threads) -> None:
    """A line of any length is written if the log has room for it."""
    log = begin(disk, threads)
    log.write("x" * 2_000_000)
    log.write("after")
    assert [len(line) for line in disk.lines] == [2_000_000, 5]


def test_full_disk_is_told_once(disk: Disk, threads: Threads, log: Log) -> None:
    """A full disk ends the log, not the build, and the operator is told once."""
    build_log = begin(disk, threads)
    build_log.write("one")
    disk.error = DiskFull("no room")
    build_log.write("two")
    disk.error = None
    build_log.write("three")
    assert is_done(build_log.close())
    assert disk.lines == ["one"]
    assert build_log.tail(2) == ["two", "three"]
    assert log.text.count("the log of build b-1 ends here: no room") == 1
    assert len(log.events) == 1


def test_directory_that_cannot_be_written(
    disk: Disk, threads: Threads, log: Log
) -> None:
    """Any other trouble with the disk ends the log the same way."""
    disk.error = PermissionError("not yours")
    build_log = begin(disk, threads)
    build_log.write("one")
    assert is_done(build_log.close())
    assert "not yours" in log.text


def test_full_disk_at_the_end(disk: Disk, threads: Threads) -> None:
    """Whoever waits for the end of a log does not wait for a full disk."""
    threads.pause()
    log = begin(disk, threads)
    log.write("one")
    closed = log.close()
    disk.error = DiskFull("no room")
    threads.resume()
    assert is_done(closed)


def test_log_that_is_closed_stays_as_it_is(disk: Disk, threads: Threads) -> None:
    """Nothing comes after the end of a log, which may be told twice."""
    log = begin(disk, threads, max_bytes=2)
    for line in "abc":
        log.write(line)
    assert is_done(log.close())
    log.write("late")
    log.skip(lambda: "later")
    assert is_done(log.close())
    assert disk.lines == ["a", "b", "c"]


def test_leaving_before_the_end_is_on_disk(disk: Disk, threads: Threads) -> None:
    """Somebody who no longer waits for the end keeps nobody from it."""
    threads.pause()
    log = begin(disk, threads)
    log.write("one")
    left, stays = log.close(), log.close()
    left.addErrback(lambda _: None)
    left.cancel()
    threads.resume()
    assert is_done(stays)
    assert disk.lines == ["one"]


def test_empty_log(disk: Disk, threads: Threads) -> None:
    """A build that says nothing has no log, and waits for none."""
    log = begin(disk, threads)
    assert log.tail(10) == []
    assert is_done(log.close())
    assert disk.pieces == []
    assert threads.calls == []


def test_last_lines(disk: Disk, threads: Threads) -> None:
    """The last lines can be had at any time, cut where they are very long."""
    log = begin(disk, threads)
    for number in range(200):
        log.write(str(number))
    log.write("x" * 5000)
    long = "x" * 2000 + "… (3000 characters left out)"
    assert log.tail(3) == ["198", "199", long]
    assert len(log.tail(1000)) == 100
    assert log.tail(0) == log.tail(-1) == []


@given(st.lists(st.text(st.characters(exclude_categories=[]))))
def test_any_line_is_written(lines: list[str]) -> None:
    """Whatever is said, lone surrogates and all, makes a log that can be read."""
    disk = Disk()
    log = BuildLog("b-1", disk.append, at_once, 10**6)
    for line in lines:
        log.write(line)
    assert is_done(log.close())
    written = b"".join(disk.pieces).decode()
    assert written.count("\n") == sum(
        line.removesuffix("\n").count("\n") + 1 for line in lines
    )


@given(
    lines=st.lists(st.text("abc", max_size=5), max_size=300),
    max_bytes=st.integers(0, 300),
    pauses=st.lists(st.booleans()),
)
def test_log_begins_and_ends_as_nix_did(
    lines: list[str], max_bytes: int, pauses: list[bool]
) -> None:
    """However slow the disk is, the log is the first lines, at most a note, the last."""
    disk, threads = Disk(), Threads()
    log = BuildLog("b-1", disk.append, threads, max_bytes)
    for number, line in enumerate(lines):
        if number < len(pauses):
            threads.pause() if pauses[number] else threads.resume()
        log.write(line)
    closed = log.close()
    threads.resume()
    assert is_done(closed)
    notes = [at for at, line in enumerate(disk.lines) if line.startswith("[…")]
    if not notes:
        assert disk.lines == lines
    else:
        (at,) = notes
        left_out = int(disk.lines[at].split()[1])
        assert disk.lines[:at] == lines[:at]
        assert disk.lines[at + 1 :] == lines[-100:]
        assert at + left_out + 100 == len(lines)
