"""
A build as a thing: what is being built, for whom, how far it is, how it ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from forgereg.flow.buildlog import BuildLog
from forgereg.flow.errand import Errand
from forgereg.flow.report import Report, State
from forgereg.logs import logger
from forgereg.nix.events import Event, Line
from forgereg.nix.progress import Follower, Progress
from forgereg.oci.errors import RegistryError

_log = logger(__name__)

#: How many clients a build remembers the addresses of.
_MOST_CLIENTS = 100
_WORKING = (State.BUILDING, State.READING)


class Listener(Protocol):
    """Whoever keeps track of builds."""

    def __call__(self, build: Build) -> None:
        """Be told of a build."""


@define(eq=False, kw_only=True)
class Build(Errand):
    """
    An image on its way.

    :ivar asked_at: seconds since the epoch, as all times here.
    :ivar is_wanted: whether it was asked for by name, and is listed whatever comes of
        it.
    :ivar on_change: told when it has moved on.
    :ivar admit: asks whether it may wait.
    :ivar state: None as long as nothing had to be done for it.
    :ivar failed: what went wrong though there is an image, an older one.
    :ivar has_worked: whether there was something to build, or to read.
    :ivar nix_seconds: how long nix took to build it; None where it did not.
    """

    id: str
    asked_at: float
    is_wanted: bool = False
    _now: Callable[[], float]
    _open_log: Callable[[str], BuildLog]
    _on_change: Listener
    _admit: Listener
    state: State | None = field(init=False, default=None)
    started_at: float | None = field(init=False, default=None)
    finished_at: float | None = field(init=False, default=None)
    locked: str | None = field(init=False, default=None)
    derivation: str | None = field(init=False, default=None)
    error: str | None = field(init=False, default=None)
    failed: RegistryError | None = field(init=False, default=None)
    has_worked: bool = field(init=False, default=False)
    nix_seconds: float | None = field(init=False, default=None)
    log: BuildLog | None = field(init=False, default=None)
    _spent: dict[State, float] = field(init=False, factory=dict)
    _entered_at: float = field(init=False, default=0.0)
    _progress: Follower = field(init=False, factory=Follower)
    _owner: Build | None = field(init=False, default=None)
    _followers: list[Build] = field(init=False, factory=list)

    @property
    def build_id(self) -> str:
        """Itself."""
        return self.id

    def join(self, client: str) -> None:
        """Add a client to those who asked for it."""
        for build in (self, self._owner):
            if build is not None and client not in build.asked_by:
                del build.asked_by[_MOST_CLIENTS - 1 :]
                build.asked_by.append(client)

    def follow(self, owner: Build) -> None:
        """Go by another build, which has nix build the same derivation."""
        self._owner = owner
        owner._followers.append(self)
        for client in self.asked_by:
            owner.join(client)
        self._write(f"build {owner.id} ({owner.image}) builds the same derivation")
        self.enter(owner.state or State.QUEUED)

    @property
    def owner_id(self) -> str | None:
        """Which build it goes by."""
        return None if self._owner is None else self._owner.id

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state is not None and self.state.is_over

    def unfollow(self) -> None:
        """Go on alone, from where the other build is."""
        if self._owner is not None:
            self._progress = self._owner._progress
            self.nix_seconds = self._owner.nix_seconds
            self._owner._followers.remove(self)
            self._owner = None

    def enter(self, state: State) -> None:
        if self.state is not None and self.state.is_over:
            return
        if state not in (State.QUEUED, self.state):
            self.started_at = self.started_at or self._now()
            if state is State.BUILDING:
                drv = self.derivation
                _log.info("{image}: building {drv}", image=self.image, drv=drv)
            else:
                _log.debug("{image}: {what}", image=self.image, what=state.value)
        self._move(state)
        self.has_worked = self.has_worked or state in _WORKING
        self._on_change(self)
        for follower in list(self._followers):
            follower.enter(state)

    def _move(self, state: State) -> None:
        self._spent = self._spent_by_now()
        self.state, self._entered_at = state, self._now()

    def _spent_by_now(self) -> dict[State, float]:
        if self.state is None or self.state.is_over:
            return self._spent
        spent = dict(self._spent)
        here = spent.pop(self.state, 0.0) + self._now() - self._entered_at
        return {**spent, self.state: max(0.0, here)}

    def queue(self) -> None:
        self._admit(self)
        self.enter(State.QUEUED)

    def hear(self, event: Event) -> None:
        if not isinstance(event, Line):
            self._progress.follow(event)
            return
        if not self.is_full:
            self.log_line(event)
        for build in (self, *self._followers):
            build._write(event.coloured or event.text)

    @property
    def is_full(self) -> bool:
        return self.log is not None and self.log.is_full

    def skip(self, read: Callable[[], str]) -> None:
        for build in (self, *self._followers):
            build._opened().skip(read)

    def _write(self, line: str) -> None:
        self._opened().write(line)

    def _opened(self) -> BuildLog:
        if self.log is None:
            self.log = self._open_log(self.id)
        return self.log

    def end(self, state: State, error: str | None = None) -> None:
        """Tell that nothing more will come of it."""
        if error is not None:
            self._write(error)
        self._move(state)
        self.error, self.finished_at = error, self._now()
        self._on_change(self)

    def cancel(self) -> None:
        """End it, the nix that it waits for, and the builds that wait for the same."""
        if self.is_cancelled:
            return
        self.is_cancelled = True
        # First, so that none of them begins anew what ends here.
        for build in (self._owner, *self._followers):
            if build is not None:
                build.cancel()
        super().cancel()

    @property
    def progress(self) -> Progress:
        """How far nix is."""
        return self._followed.progress

    @property
    def _followed(self) -> Follower:
        return (self._owner or self)._progress

    def report(self) -> Report:
        """Tell how it stands."""
        return Report(
            self.id,
            self.image,
            self.state or State.QUEUED,
            tuple(self.asked_by),
            self.asked_at,
            self.started_at,
            self.finished_at,
            self.locked,
            self.derivation,
            self.progress,
            self.error,
            self._followed.building,
            self._spent_by_now(),
        )
