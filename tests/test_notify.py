"""Tests for `forgereg.notify`: what systemd is told, over a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from forgereg.notify import Systemd
from tests.conftest import Log

PID = 4711


@define
class Manager:
    """
    systemd's end of the socket.

    :ivar does: what the registry does.
    """

    socket: socket.socket
    address: str
    clock: Clock = field(factory=Clock)
    does: str = "0 builds run"

    def heard(self) -> list[str]:
        """Give the messages that have come."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def of(self, **env: str) -> Systemd:
        """Start a service that finds the address in its environment."""
        environ = {"NOTIFY_SOCKET": self.address, **env}
        systemd = Systemd.of(environ, PID, self.clock, lambda: 12_345_678)
        assert not environ
        systemd.status = lambda: self.does
        return systemd


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """systemd, which may have its socket in a file or not."""
    address = str(tmp_path / "notify")
    if request.param == "abstract":
        address = f"@{address}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address.replace("@", "\0"))
        end.setblocking(False)
        yield Manager(end, address)


def test_ready(manager: Manager) -> None:
    """systemd hears that the registry is ready and what it does, and of changes."""
    systemd = manager.of()
    assert manager.heard() == []
    systemd.ready()
    assert manager.heard() == ["READY=1\nSTATUS=0 builds run"]
    manager.clock.pump([5.0] * 3)
    assert manager.heard() == []
    manager.does = "1 builds run\nREADY=1"
    manager.clock.pump([5.0] * 3)
    assert manager.heard() == ["STATUS=1 builds run READY=1"]


@pytest.mark.parametrize("pid", [{}, {"WATCHDOG_PID": str(PID)}])
def test_watchdog(manager: Manager, pid: dict[str, str]) -> None:
    """As long as the reactor runs, systemd hears of it twice in each period."""
    manager.of(WATCHDOG_USEC="20000000", **pid).ready()
    manager.clock.pump([1.0] * 30)
    assert manager.heard().count("WATCHDOG=1") == 4


@pytest.mark.parametrize(
    "env", [{"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}]
)
def test_watchdog_of_somebody_else(manager: Manager, env: dict[str, str]) -> None:
    """What another process is to do for the watchdog, the registry does not."""
    manager.of(**env).ready()
    manager.clock.pump([1.0] * 30)
    assert "WATCHDOG=1" not in manager.heard()


def test_reloading(manager: Manager) -> None:
    """systemd hears when the settings are read again, and that it is over."""
    systemd = manager.of()
    systemd.ready()
    systemd.reloading()
    systemd.ready()
    assert manager.heard()[1:] == [
        "RELOADING=1\nMONOTONIC_USEC=12345678",
        "READY=1",
    ]


def test_stopping(manager: Manager) -> None:
    """While transfers end, systemd is asked for patience, as long as the reactor runs."""
    systemd = manager.of(WATCHDOG_USEC="60000000")
    systemd.ready()
    manager.heard()
    manager.does = "stopping: 2 connections are open"
    systemd.stopping()
    more = "EXTEND_TIMEOUT_USEC=30000000"
    assert manager.heard() == [f"STOPPING=1\n{more}\nSTATUS={manager.does}"]
    manager.clock.pump([5.0] * 2)
    assert manager.heard() == [more, more]
    systemd.stopped()
    manager.clock.pump([5.0] * 20)
    assert manager.heard() == []


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_nobody_to_be_told(address: str) -> None:
    """Without systemd nothing happens, and no clock is wound up."""
    clock = Clock()
    systemd = Systemd.of({"NOTIFY_SOCKET": address}, PID, clock, lambda: 0)
    systemd.ready()
    systemd.reloading()
    systemd.stopping()
    systemd.stopped()
    assert not clock.getDelayedCalls()


def test_nobody_listens(tmp_path: Path, log: Log) -> None:
    """A socket that is gone is told to the log once, and the registry goes on."""
    clock = Clock()
    env = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "2000000"}
    systemd = Systemd.of(env, PID, clock, lambda: 0)
    systemd.ready()
    clock.pump([1.0] * 10)
    systemd.stopping()
    systemd.stopped()
    assert log.text.count("systemd was not told READY=1: ") == 1
    assert log.text.count("systemd was not told") == 1


def test_systemd_is_slow(manager: Manager, log: Log) -> None:
    """The reactor does not wait for a systemd that does not read."""
    systemd = manager.of(WATCHDOG_USEC="20000")
    systemd.ready()
    manager.clock.pump([0.01] * 10_000)
    assert "systemd was not told WATCHDOG=1: " in log.text
    systemd.stopped()
