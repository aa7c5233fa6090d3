"""
Builds as things: what is being built, for whom, how far it is, how it ended.

Equal pulls are one build, and builds of one derivation are one nix. A build outlives
whoever asked for it; only an operator, or the end of the registry, ends it early.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Protocol, TypeVar

import attrs
from attrs import define, field
from twisted.internet.defer import Deferred

from forgereg.flow.buildlog import BuildLog
from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.once import Once
from forgereg.flow.policy import Policy
from forgereg.flow.report import Report, State
from forgereg.flow.slots import Slots
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.events import Event, Line
from forgereg.nix.progress import Follower, Progress
from forgereg.oci.errors import (
    BuildCancelled,
    BuildOver,
    BuildUnknown,
    DiskFull,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    ShuttingDown,
    TooManyBuilds,
)
from forgereg.records.builds import BuildRecords

_log = logger(__name__)

T = TypeVar("T")

#: How many clients a build remembers the addresses of.
_MOST_CLIENTS = 100
_WORKING = (State.BUILDING, State.READING)


class Listener(Protocol):
    """Whoever keeps track of builds."""

    def __call__(self, build: Build) -> None:
        """Be told that a build has moved on."""


@define(eq=False, kw_only=True)
class Build(Errand):
    """
    An image on its way.

    :ivar asked_at: seconds since the epoch, as all times here.
    :ivar is_wanted: whether it was asked for by name, and is listed whatever comes of
        it.
    :ivar admit: asks whether one more may wait.
    """

    id: str
    asked_at: float
    is_wanted: bool = False
    _now: Callable[[], float]
    _open_log: Callable[[str], BuildLog]
    _on_change: Listener
    _admit: Callable[[], None]
    state: State | None = field(init=False, default=None)
    started_at: float | None = field(init=False, default=None)
    finished_at: float | None = field(init=False, default=None)
    locked: str | None = field(init=False, default=None)
    derivation: str | None = field(init=False, default=None)
    error: str | None = field(init=False, default=None)
    has_worked: bool = field(init=False, default=False)
    log: BuildLog | None = field(init=False, default=None)
    _progress: Follower = field(init=False, factory=Follower)
    _owner: Build | None = field(init=False, default=None)
    _followers: list[Build] = field(init=False, factory=list)

    def join(self, client: str) -> None:
        """Add a client to those who asked for it."""
        for build in (self, self._owner):
            if build is not None and client not in build.asked_by[:_MOST_CLIENTS]:
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

    def enter(self, state: State) -> None:
        if self.state is not None and self.state.is_over:
            return
        if state not in (State.QUEUED, self.state):
            self.started_at = self.started_at or self._now()
            what = state.value
            if state is State.BUILDING and self.derivation:
                what = f"building {self.derivation}"
            _log.info("{image}: {what}", image=self.image, what=what)
        self.state = state
        self.has_worked = self.has_worked or state in _WORKING
        self._on_change(self)
        for follower in list(self._followers):
            follower.enter(state)

    def queue(self) -> None:
        self._admit()
        self.enter(State.QUEUED)

    def hear(self, event: Event) -> None:
        if isinstance(event, Line):
            if not self.is_full:
                self.log_line(event)
            self._write(event.text)
        else:
            self._progress.follow(event)
        for follower in self._followers:
            follower.overhear(event)

    def overhear(self, event: Event) -> None:
        """Be told what nix says to the build that this one follows."""
        if isinstance(event, Line):
            self._write(event.text)

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
        if self._owner is not None:
            self._progress = self._owner._progress
            self._owner._followers.remove(self)
        self.state, self.error, self.finished_at = state, error, self._now()
        self._on_change(self)

    def cancel(self) -> None:
        """End it, and the nix that it waits for."""
        super().cancel()
        if self._owner is not None:
            self._owner.cancel()

    @property
    def progress(self) -> Progress:
        """How far nix is."""
        return (self._owner or self)._progress.progress

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
        )


@define(eq=False)
class Builds:
    """
    Every build, now and before.

    :ivar slots: how many nix may build at a time.
    :ivar now: gives seconds since the epoch.
    :ivar clock: gives seconds that only ever go forwards.
    :ivar new_id: gives a name for a build, of ``a-z``, ``0-9`` and ``-``.
    """

    _records: BuildRecords
    _policy: Policy
    slots: Slots
    _failures: Failures
    _now: Callable[[], float]
    _clock: Callable[[], float]
    _new_id: Callable[[], str]
    _open_log: Callable[[str], BuildLog]
    _in_thread: InThread
    _pulls: Once[Hashable, Any] = field(init=False, factory=Once)
    _flights: dict[Hashable, Build] = field(init=False, factory=dict)
    _outputs: Once[str, str] = field(init=False, factory=Once)
    _owners: dict[str, Build] = field(init=False, factory=dict)
    #: by id, those that are listed and not over
    _active: dict[str, Build] = field(init=False, factory=dict)
    #: by id, what the records do not know yet; None where they are to forget it
    _unsaved: dict[str, Report | None] = field(init=False, factory=dict)
    _saving: Deferred[None] | None = field(init=False, default=None)
    #: that are being closed
    _logs: set[BuildLog] = field(init=False, factory=set)

    def pull(
        self,
        key: Hashable,
        image: str,
        client: str,
        work: Callable[[Build], Coroutine[Any, Any, T]],
        *,
        is_wanted: bool = False,
    ) -> tuple[Build, Deferred[T]]:
        """
        Have an image built, or join those who have.

        :param key: equal for what is the same work.
        :param work: does it.
        :returns: the build, and a Deferred of this caller's own: cancelling it is
            leaving.
        """
        build = self._flights.get(key)
        if build is None:
            build = self._new(image, client)
            self._flights[key] = build
        else:
            build.join(client)
        if is_wanted and not build.is_wanted:
            build.is_wanted = True
            build.enter(build.state or State.QUEUED)
        done = self._pulls.do(key, lambda: self._work(key, build, work))
        return build, done

    def _new(self, image: str, client: str) -> Build:
        return Build(
            image=image,
            asked_by=[client],
            timeout_seconds=self._policy.timeout_seconds,
            id=self._new_id(),
            asked_at=self._now(),
            now=self._now,
            open_log=self._open_log,
            on_change=self._changed,
            admit=self._admit,
        )

    async def _work(
        self,
        key: Hashable,
        build: Build,
        work: Callable[[Build], Coroutine[Any, Any, T]],
    ) -> T:
        try:
            result = await work(build)
        except RegistryError as e:
            self._ended(build, _STATES.get(type(e), State.FAILED), e)
            raise
        except BaseException as e:
            self._ended(build, State.FAILED, e)
            raise
        else:
            self._ended(build, State.DONE)
            return result
        finally:
            del self._flights[key]

    def _ended(
        self, build: Build, state: State, error: BaseException | None = None
    ) -> None:
        if build.state is None:
            return
        build.end(state, None if error is None else str(error) or repr(error))
        if build.log is not None:
            log = build.log
            self._logs.add(log)
            log.close().addBoth(lambda _: self._logs.discard(log))
        was_there = state is State.DONE and not build.has_worked
        if not build.is_wanted and (
            was_there or isinstance(error, NameUnknown | ManifestUnknown)
        ):
            # Nothing was built, nor could have been.
            self._unsaved[build.id] = None

    def _admit(self) -> None:
        waiting = sum(b.state is State.QUEUED for b in self._active.values())
        if waiting >= self._policy.max_queue:
            raise TooManyBuilds(
                f"{waiting} builds are waiting, and no more may (FORGE_MAX_QUEUE);"
                " pull again later"
            )

    def find(self, key: Hashable) -> Build | None:
        """Give the build that is under way for what `pull` was given."""
        return self._flights.get(key)

    async def realise(
        self,
        build: Build,
        derivation: str,
        work: Callable[[], Coroutine[Any, Any, str]],
    ) -> str:
        """
        Have nix build a derivation, once for all builds that need it.

        :param work: does it; gives the output's store path.
        """
        build.derivation = derivation
        owner = self._owners.get(derivation)

        async def own() -> str:
            self._owners[derivation] = build
            try:
                async with self.slots.turn(build, State.BUILDING):
                    start = self._clock()
                    output = await work()
            finally:
                del self._owners[derivation]
            _log.info(
                "{image}: {drv} gave {output} after {seconds:.1f} s",
                image=build.image,
                drv=derivation,
                output=output,
                seconds=self._clock() - start,
            )
            return output

        if owner is not None:
            build.follow(owner)
        joined = self._outputs.do(
            derivation, lambda: self._failures.mind(derivation, own)
        )
        return await build.wait(joined)

    @property
    def busy(self) -> set[str]:
        """The derivations that something is being done with."""
        found = (build.derivation for build in self._flights.values())
        return {derivation for derivation in found if derivation is not None}

    def _changed(self, build: Build) -> None:
        state = build.state
        if state is None or state.is_over:
            self._active.pop(build.id, None)
        else:
            self._active[build.id] = build
        self._unsaved[build.id] = build.report()
        if self._saving is None:
            self._saving = Deferred.fromCoroutine(self._save())

    async def _save(self) -> None:
        try:
            while self._unsaved:
                unsaved, self._unsaved = self._unsaved, {}
                rows = [_row(report) for report in unsaved.values() if report]
                gone = [id for id, report in unsaved.items() if report is None]
                await self._in_thread(self._records.save, rows, gone)
        except DiskFull as e:
            _log.warn("builds are not remembered: {error}", error=e)
        except Exception:
            _log.failure("builds are not remembered")
        finally:
            self._saving = None

    async def begin(self) -> None:
        """Mark what the last end of the registry interrupted."""
        over = [state.value for state in State if state.is_over]
        why = "the registry ended while it was built; pull again"
        state = State.INTERRUPTED.value
        count = await self._in_thread(self._records.interrupt, over, state, why)
        if count:
            _log.warn("{count} builds were interrupted", count=count)

    async def stop(self) -> None:
        """Wait until all that is to be remembered is."""
        while self._saving is not None:
            await self._saving
        for log in list(self._logs):
            await log.close()

    async def newest(self, most: int) -> list[Report]:
        """List builds: those under way, then the others; the newest first."""
        rows = await self._in_thread(self._records.newest, most)
        active = [build.report() for build in self._active.values()]
        active.sort(key=lambda report: -report.asked_at)
        known = self._active.keys() | self._unsaved.keys()
        unsaved = [
            report
            for report in self._unsaved.values()
            if report and report.state.is_over
        ]
        others = [_report(row) for row in rows if row["id"] not in known]
        return [*active, *reversed(unsaved), *others][:most]

    async def report(self, build_id: str) -> Report:
        """
        Tell how a build stands.

        :raises BuildUnknown: there is none of this id.
        """
        build = self._active.get(build_id)
        if build is not None:
            return build.report()
        unsaved = self._unsaved.get(build_id)
        if unsaved is not None:
            return unsaved
        row = await self._in_thread(self._records.find, build_id)
        if row is None:
            raise BuildUnknown(f"there is no build {build_id!r}")
        return _report(row)

    async def cancel(self, build_id: str) -> Report:
        """
        End a build: its nix is told to end.

        :raises BuildUnknown: there is none of this id.
        :raises BuildOver: it has ended.
        """
        build = self._active.get(build_id)
        if build is None:
            report = await self.report(build_id)
            raise BuildOver(f"build {build_id} is {report.state.value} already")
        _log.info("{image}: build {id} is cancelled", image=build.image, id=build_id)
        build.cancel()
        return build.report()


#: What a build ends as that did not fail by itself.
_STATES = {BuildCancelled: State.CANCELLED, ShuttingDown: State.INTERRUPTED}


def _row(report: Report) -> dict[str, Any]:
    return {
        **attrs.asdict(report, recurse=False),
        "state": report.state.value,
        "asked_by": json.dumps(report.asked_by),
        "progress": json.dumps(attrs.asdict(report.progress)),
    }


def _report(row: dict[str, Any]) -> Report:
    return Report(
        **{
            **row,
            "state": State(row["state"]),
            "asked_by": tuple(json.loads(row["asked_by"])),
            "progress": Progress(**json.loads(row["progress"])),
        }
    )
