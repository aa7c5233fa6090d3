"""Tests for `forgereg.records.buildlogs`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forgereg.oci.errors import DiskFull
from forgereg.records.buildlogs import BuildLogs


@pytest.fixture
def logs(tmp_path: Path) -> BuildLogs:
    return BuildLogs(tmp_path / "logs")


def size(logs: BuildLogs, build_id: str) -> int:
    return len(logs.read(build_id, 0, 1000))


def test_log_grows(logs: BuildLogs) -> None:
    """What is added to a log comes after what was there."""
    logs.append("b-1", b"one\n")
    logs.append("b-1", b"two\n")
    logs.append("b-2", b"other\n")
    assert logs.read("b-1", 0, 100) == b"one\ntwo\n"
    assert size(logs, "b-1") == 8
    assert (logs.folder / "b-1.log").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("offset", "most", "stretch"),
    [
        (0, 3, b"012"),
        (4, 3, b"456"),
        (8, 3, b"89"),
        (10, 3, b""),
        (10**30, 3, b""),
        (0, 10**30, b"0123456789"),
        (-1, 2, b"01"),
        (0, -1, b""),
    ],
)
def test_stretch_of_a_log(
    logs: BuildLogs, offset: int, most: int, stretch: bytes
) -> None:
    """Whatever stretch is asked for, what there is of it is given."""
    logs.append("b", b"0123456789")
    assert logs.read("b", offset, most) == stretch


def test_log_that_is_not_there(logs: BuildLogs) -> None:
    """A build without a log has an empty one, and can be forgotten."""
    assert logs.read("b", 0, 100) == b""
    assert size(logs, "b") == 0
    logs.forget(["b"])
    logs.prune(1e12)


def test_forgotten_log_is_gone(logs: BuildLogs) -> None:
    """Logs of builds that are forgotten are deleted, and no others."""
    for build in ("a", "b", "c"):
        logs.append(build, b"x")
    logs.forget(["a", "c", "never-was"])
    assert [size(logs, build) for build in ("a", "b", "c")] == [0, 1, 0]


def test_old_logs_are_pruned(logs: BuildLogs) -> None:
    """Logs that nobody has written to for long are deleted."""
    for build in ("old", "new"):
        logs.append(build, b"x")
    os.utime(logs.folder / "old.log", (1000.0, 1000.0))
    logs.prune(1000.0)
    assert size(logs, "old") == 1
    logs.prune(1001.0)
    assert (size(logs, "old"), size(logs, "new")) == (0, 1)


@pytest.mark.parametrize(
    "id", ["", "..", "../x", "a/b", "a.b", "A", "a\n", "a\0", "ä", "a" * 101]
)
def test_id_that_is_none(logs: BuildLogs, id: str) -> None:
    """No id leads out of the directory of the logs."""
    for call in (
        lambda: logs.append(id, b"x"),
        lambda: logs.read(id, 0, 1),
        lambda: logs.forget([id]),
    ):
        with pytest.raises(ValueError, match="not the id of a build"):
            call()
    assert not logs.folder.exists()


def test_disk_that_is_full(logs: BuildLogs) -> None:
    """A disk without room is told as what it is."""
    logs.folder.mkdir()
    (logs.folder / "b.log").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="no room for the log of build b"):
        logs.append("b", b"x")


def test_other_trouble_is_told_as_it_is(logs: BuildLogs) -> None:
    """Trouble with the disk that is not about room is told as it is."""
    logs.folder.write_bytes(b"not a directory")
    with pytest.raises(FileExistsError):
        logs.append("b", b"x")
