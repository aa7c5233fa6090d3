"""
Tell systemd how the service is: that it is ready, reloads, stops, and is not stuck.

One datagram a message, which systemd's manual lets every service write for itself. It is
done here rather than by one of the packages for it, because those wait where systemd
reads slowly, and the reactor must not; nor do they know of reloading and of stopping
slowly.

Source: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5), Type=notify-reload.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, MutableMapping

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from forgereg.logs import logger

_log = logger(__name__)

#: How often it is looked whether there is something else to be told, in seconds.
_STATUS_SECONDS = 5.0
#: How long systemd is to wait for more while the registry stops, in seconds: a reactor
#: that is stuck says no more.
_STOPPING_SECONDS = 30.0


@define(eq=False)
class Systemd:
    """
    The service's manager, if there is one.

    :ivar address: of its socket; empty where nobody is to be told.
    :ivar watch_seconds: in how long it must hear of us; 0 if it does not mind.
    :ivar monotonic: gives microseconds of the clock that systemd goes by.
    :ivar status: says in one line what the registry does.
    """

    address: str
    watch_seconds: float
    _clock: IReactorTime
    _monotonic: Callable[[], int]
    status: Callable[[], str] = field(default=lambda: "")
    _told: str = field(init=False, default="")
    _error: str = field(init=False, default="")
    _is_stopping: bool = field(init=False, default=False)
    _loops: list[LoopingCall] = field(init=False, factory=list)

    @classmethod
    def of(
        cls,
        environ: MutableMapping[str, str],
        pid: int,
        clock: IReactorTime,
        monotonic: Callable[[], int],
    ) -> Systemd:
        """Take what it has put into the environment, where no child shall find it."""
        address = environ.pop("NOTIFY_SOCKET", "")
        period = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", "")
        # Others are for virtual machines, and for tests of systemd's own.
        is_here = address.startswith(("/", "@"))
        is_ours = period.isdecimal() and watched in ("", str(pid))
        return cls(
            address if is_here else "",
            int(period) / 1e6 if is_ours else 0.0,
            clock,
            monotonic,
        )

    def ready(self) -> None:
        """Say that the registry answers; from now on, also that it is not stuck."""
        self._send("READY=1", *self._news())
        if not self.address or self._loops:
            return
        self._repeat(_STATUS_SECONDS, self._go_on)
        if self.watch_seconds:
            self._repeat(self.watch_seconds / 2, lambda: self._send("WATCHDOG=1"))

    def reloading(self) -> None:
        """Say that the settings are being read; `ready` says that they have been."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic()}")

    def stopping(self) -> None:
        """Say that the registry stops, and go on saying so until it has."""
        self._is_stopping = True
        self._send("STOPPING=1", self._more_time(), *self._news())

    def stopped(self) -> None:
        """Say no more."""
        for loop in self._loops:
            if loop.running:
                loop.stop()

    def _repeat(self, seconds: float, call: Callable[[], None]) -> None:
        loop = LoopingCall(call)
        loop.clock = self._clock
        loop.start(seconds)
        self._loops.append(loop)

    def _go_on(self) -> None:
        more = [self._more_time()] if self._is_stopping else []
        self._send(*more, *self._news())

    def _more_time(self) -> str:
        return f"EXTEND_TIMEOUT_USEC={_STOPPING_SECONDS * 1e6:.0f}"

    def _news(self) -> list[str]:
        """Give what the registry does, if that was not told."""
        text = " ".join(self.status().split())
        if text == self._told:
            return []
        self._told = text
        return [f"STATUS={text}"]

    def _send(self, *lines: str) -> None:
        if not self.address or not lines:
            return
        address = self.address
        if address.startswith("@"):
            # Source: unix(7), abstract sockets.
            address = f"\0{address[1:]}"
        message = "\n".join(lines).encode("utf-8", "replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto(message, address)
        except OSError as e:
            if str(e) != self._error:  # once, not every few seconds
                _log.warn(
                    "systemd was not told {what}: {error}", what=lines[0], error=e
                )
            self._error = str(e)
