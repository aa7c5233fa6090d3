"""
Which builds there are, and what they share.

Equal pulls are one build, and builds of one derivation are one nix. A build outlives
whoever asked for it; only an operator, or the end of the registry, ends it early.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Hashable, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

from forgereg.flow.build import Build
from forgereg.flow.buildlog import BuildLog
from forgereg.flow.failures import Failures
from forgereg.flow.history import History
from forgereg.flow.once import Once
from forgereg.flow.policy import Policy
from forgereg.flow.report import ANY, Choice, Report, State
from forgereg.flow.slots import Slots
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.metrics import Metrics, timed
from forgereg.oci.errors import (
    BuildCancelled,
    BuildOver,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    ShuttingDown,
    TooManyBuilds,
)
from forgereg.records.builds import BuildRecords
from forgereg.traces import NoTraces, Tracer

_log = logger(__name__)

T = TypeVar("T")

#: What a build ends as that did not fail by itself.
_STATES = {BuildCancelled: State.CANCELLED, ShuttingDown: State.INTERRUPTED}
#: Where there is a page to be looked at by whoever is told of it.
_LOOKED_AT = (State.FAILED, State.CANCELLED)
#: Where nothing was built, nor could have been.
_NOTHING = (NameUnknown, ManifestUnknown, TooManyBuilds)


@define(eq=False)
class Builds:
    """
    Every build, now and before.

    :ivar slots: how many nix may build at a time.
    :ivar now: gives seconds since the epoch.
    :ivar clock: gives seconds that only ever go forwards.
    :ivar new_id: gives a name for a build, of ``a-z``, ``0-9`` and ``-``.
    :ivar forget_logs: deletes the logs of builds; blocking.
    """

    _records: BuildRecords
    _policy: Policy
    slots: Slots
    _failures: Failures
    _now: Callable[[], float]
    _clock: Callable[[], float]
    _new_id: Callable[[], str]
    _open_log: Callable[[str], BuildLog]
    _forget_logs: Callable[[Sequence[str]], None]
    _in_thread: InThread
    _metrics: Metrics = field(factory=Metrics)
    _tracer: Tracer = field(factory=NoTraces)
    _history: History = field(init=False)
    _pulls: Once[Hashable, Any] = field(init=False, factory=Once)
    _flights: dict[Hashable, Build] = field(init=False, factory=dict)
    _outputs: Once[str, str] = field(init=False, factory=Once)
    _owners: dict[str, Build] = field(init=False, factory=dict)
    #: by id, those that are listed and not over
    _active: dict[str, Build] = field(init=False, factory=dict)
    #: that are being closed
    _logs: set[BuildLog] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self._history = History(self._records, self._in_thread)
        self.slots.tell("build", self._metrics)
        for state in State:
            if state.is_over:
                self._metrics.builds.labels(state.value)
        self._metrics.watch(self._measure)

    def _measure(self) -> None:
        standing = self.standing
        for state in State:
            if not state.is_over:
                self._metrics.active_builds.labels(state.value).set(standing[state])

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

        What was cancelled a moment ago is cancelled from the start, unless it is wanted
        by name: its clients come back by themselves.

        :param key: equal for what is the same work.
        :param work: does it.
        :returns: the build, and a Deferred of this caller's own: cancelling it is
            leaving.
        :raises TooManyBuilds: it is wanted by name, and too many wait already.
        """
        build = self._flights.get(key)
        if build is None:
            build = self._new(image, client)
            if is_wanted and not self.slots.has_room:
                self._admit(build)
            self._flights[key] = build
            build.is_cancelled = not is_wanted and ("cancelled", key) in self._failures
        else:
            build.join(client)
            self._tracer.joined(build)
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
        was_cancelled = build.is_cancelled
        try:
            result = await work(build)
        except Exception as e:
            self._ended(build, e, was_cancelled)
            raise
        else:
            self._ended(build, build.failed, was_cancelled)
            return result
        finally:
            if build.is_cancelled and not was_cancelled:
                error = BuildCancelled(f"{build.image} was cancelled")
                self._failures.remember(("cancelled", key), error)
            del self._flights[key]

    def _ended(
        self, build: Build, error: Exception | None, was_cancelled: bool
    ) -> None:
        if build.state is None:
            return
        state, why = State.DONE, None
        if isinstance(error, RegistryError):
            state, why = _STATES.get(type(error), State.FAILED), error.detail
        elif error is not None:
            state, why = State.FAILED, "the registry failed, and its log says how"
        was_there = state is State.DONE and not build.has_worked
        is_repeated = isinstance(error, RegistryError) and error.is_repeated
        is_nothing = was_cancelled or was_there or isinstance(error, _NOTHING)
        is_nothing = is_nothing or (is_repeated and not build.has_worked)
        forget = is_nothing and not build.is_wanted
        if isinstance(error, RegistryError) and not forget and state in _LOOKED_AT:
            error.build_id = error.build_id or build.id
        build.end(state, None if forget else why)
        if forget:
            self._history.forget(build.id)
        else:
            self._metrics.builds.labels(state.value).inc()
        if build.log is not None:
            Deferred.fromCoroutine(self._close(build.id, build.log, forget))

    async def _close(self, build_id: str, log: BuildLog, forget: bool) -> None:
        self._logs.add(log)
        await log.close()
        self._logs.discard(log)
        if forget:
            try:
                await self._in_thread(self._forget_logs, [build_id])
            except OSError as e:
                _log.warn(
                    "the log of build {id} cannot be deleted: {error}",
                    id=build_id,
                    error=e,
                )

    def _admit(self, build: Build) -> None:
        """
        Let one more wait.

        :raises TooManyBuilds: too many wait already.
        """
        waiting = self.waiting - (build.state is State.QUEUED)
        if waiting >= self._policy.max_queue:
            raise TooManyBuilds(
                f"{waiting} builds are waiting, and no more may (FORGE_MAX_QUEUE);"
                " pull again later"
            )

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self.standing[State.QUEUED]

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

        async def own() -> str:
            self._owners[derivation] = build
            try:
                async with self.slots.turn(build, State.BUILDING):
                    start = self._clock()
                    with timed(self._metrics.build_seconds, self._clock):
                        output = await work()
                    build.nix_seconds = self._clock() - start
            finally:
                del self._owners[derivation]
            _log.info(
                "{image}: {drv} gave {output} after {seconds:.1f} s",
                image=build.image,
                drv=derivation,
                output=output,
                seconds=build.nix_seconds,
            )
            return output

        def begin() -> Deferred[str]:
            owner = self._owners.get(derivation)
            if owner is not None:
                build.follow(owner)
            return self._outputs.do(
                derivation, lambda: self._failures.mind(derivation, own, build.id)
            )

        try:
            return await build.share(begin)
        finally:
            build.unfollow()

    @property
    def busy(self) -> set[str]:
        """The derivations that something is being done with."""
        found = (build.derivation for build in self._flights.values())
        return {derivation for derivation in found if derivation is not None}

    @property
    def standing(self) -> Counter[State]:
        """How many builds that are not over stand where."""
        states = (build.state for build in self._active.values())
        return Counter(state for state in states if state is not None)

    def _changed(self, build: Build) -> None:
        self._tracer.moved(build)
        report = build.report()
        if report.state.is_over:
            self._active.pop(build.id, None)
        else:
            self._active[build.id] = build
        self._history.note(report)

    async def begin(self) -> None:
        """Mark what the last end of the registry interrupted."""
        count = await self._history.interrupt()
        self._metrics.builds.labels(State.INTERRUPTED.value).inc(count)

    async def stop(self) -> None:
        """Wait until all that is to be remembered is."""
        for log in list(self._logs):
            await log.close()
        await self._history.save()

    @property
    def under_way(self) -> list[Report]:
        """The builds that are not over, in no order."""
        return [build.report() for build in self._active.values()]

    async def newest(self, most: int, choice: Choice = ANY) -> list[Report]:
        """List builds: those under way, then the others; the newest first."""
        active = [build.report() for build in reversed(self._active.values())]
        active.sort(key=lambda report: -report.asked_at)
        ids = {report.id for report in active}
        others = await self._history.newest(most, ids, choice)
        return [*(each for each in active if each.fits(choice)), *others][:most]

    async def report(self, build_id: str) -> Report:
        """
        Tell how a build stands.

        :raises BuildUnknown: there is none of this id.
        """
        build = self._active.get(build_id)
        return await self._history.find(build_id) if build is None else build.report()

    async def failed(self, locked: Collection[str], name: str = "") -> dict[str, str]:
        """Give the newest build of each repository that failed: `History.failed`."""
        return await self._history.failed(locked, name)

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
