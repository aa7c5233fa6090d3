"""
Put the rooms together: from settings and a machine's means to a registry that answers.

`forgereg.tap` does it for twistd; the tests do it with a clock, threads and a nix that
are played.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import reduce
from math import inf
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen
from sqlalchemy import URL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from forgereg.blobs.scrub import Scrub
from forgereg.blobs.store import BlobStore
from forgereg.config import TABLE, Settings
from forgereg.entrance import Entrance
from forgereg.flow.applications import Applications
from forgereg.flow.archives import Archives
from forgereg.flow.buildlog import BuildLog
from forgereg.flow.builds import Builds
from forgereg.flow.catalogue import Catalogue
from forgereg.flow.contents import Contents
from forgereg.flow.encodings import Encodings
from forgereg.flow.failures import Failures
from forgereg.flow.flakes import Flake
from forgereg.flow.health import Ground, Health
from forgereg.flow.images import Images
from forgereg.flow.inspection import Inspection
from forgereg.flow.lag import Lag
from forgereg.flow.layers import Layers
from forgereg.flow.policy import Policy
from forgereg.flow.pulls import PullLog
from forgereg.flow.registry import Registry
from forgereg.flow.report import State
from forgereg.flow.retention import Budget, Busy
from forgereg.flow.scrubber import Scrubber
from forgereg.flow.slots import Slots
from forgereg.flow.status import Nix as NixStatus
from forgereg.flow.status import Overview
from forgereg.flow.sweeper import Sweeper
from forgereg.flow.threads import InThread
from forgereg.flow.works import Works
from forgereg.lines import masked
from forgereg.logs import Recent, logger
from forgereg.metrics import Metrics
from forgereg.nix.build import Limit, Nix, Run
from forgereg.nix.flake import Command, platform_of
from forgereg.nix.roots import Roots
from forgereg.nix.store import Store, store_root
from forgereg.nix.stream import RunStream, Scripts
from forgereg.nix.tokens import Token, environment, read_token, redact
from forgereg.oci.errors import RegistryError
from forgereg.records.buildlogs import BuildLogs
from forgereg.records.builds import BuildRecords
from forgereg.records.pulls import Pulls
from forgereg.records.records import Records
from forgereg.records.revisions import Revisions
from forgereg.traces import NoTraces, Tracer
from forgereg.values import FlakeSetting

_log = logger(__name__)

#: How many refs are looked up at a time: each is one short question over the network.
_LOOKUPS = 8
#: How often the clock has something done, in seconds: sweeping, and forgetting builds.
_TIDY_SECONDS = 3600.0
#: How often what is prewarmed is looked at, at most, in seconds.
_LEAST_WARM_SECONDS = 10.0
_DAY = 86400.0
#: How long a secret may be, in characters.
_MAX_SECRET = 8192


@define
class Machine:
    """
    What the registry stands on.

    :ivar state: its directory.
    :ivar env: what nix runs with.
    :ivar now: gives seconds since the epoch.
    :ivar new_id: gives names for builds and incidents, each time another one.
    :ivar in_thread: where disk and records are waited for.
    :ivar in_reader: where archives are read: as many at a time as there are cores.
    :ivar in_script: where what scripts write is waited for: they may take for ever.
    :ivar recent: the last warnings and errors.
    :ivar version: the registry's own.
    :ivar nix_version: as nix says it.
    :ivar tracer: keeps traces.
    """

    state: Path
    blobs: BlobStore
    run: Run
    run_stream: RunStream
    env: Mapping[str, str] = field(repr=False)
    clock: IReactorTime
    now: Callable[[], float]
    new_id: Callable[[], str]
    in_thread: InThread
    in_reader: InThread
    in_script: InThread
    metrics: Metrics = field(factory=Metrics)
    recent: Recent = field(factory=Recent)
    version: str = ""
    nix_version: str = ""
    tracer: Tracer = field(factory=NoTraces)


@frozen
class Secrets:
    """What the files hold that settings name; None where there is none."""

    admin_token: str | None = field(default=None, repr=False)
    hook_secret: str | None = field(default=None, repr=False)


@define(eq=False)
class Assembly:
    """The whole registry, but for the port it listens on."""

    settings: Settings
    machine: Machine
    records: Records
    secrets: Secrets
    policy: Policy = field(init=False, factory=Policy)
    failures: Failures = field(init=False)
    builds: Builds = field(init=False)
    archives: Archives = field(init=False)
    registry: Registry = field(init=False)
    pulls: PullLog = field(init=False)
    sweeper: Sweeper = field(init=False)
    scrubber: Scrubber = field(init=False)
    works: Works = field(init=False)
    health: Health = field(init=False)
    entrance: Entrance = field(init=False)
    _lag: Lag = field(init=False)
    _evaluations: Slots = field(init=False)
    _timers: dict[str, IDelayedCall] = field(init=False, factory=dict)
    _is_stopping: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        settings, machine = self.settings, self.machine
        clock, in_thread = machine.clock.seconds, machine.in_thread
        metrics = machine.metrics
        metrics.watch(self._measure)
        self._lag = Lag(machine.clock, metrics)
        command = Command(settings.system, settings.store)
        store = Store(store_root(settings.store))
        build_records = BuildRecords(self.records.engine)
        logs = BuildLogs(machine.state / "logs")
        pulls = Pulls(self.records.engine)
        version, nix = machine.version, machine.nix_version.split()[-1:]
        machine.metrics.info.info({"version": version, "nix_version": "".join(nix)})
        self.failures = Failures(self.policy, clock)
        self._evaluations = Slots(settings.max_evaluations)
        self._evaluations.tell("evaluate", metrics)

        def open_log(build_id: str) -> BuildLog:
            most = self.policy.log_bytes
            return BuildLog(build_id, logs.append, in_thread, most)

        self.builds = Builds(
            build_records,
            self.policy,
            Slots(settings.max_builds),
            self.failures,
            machine.now,
            clock,
            machine.new_id,
            open_log,
            logs.forget,
            in_thread,
            metrics,
            machine.tracer,
        )
        scripts = Scripts(
            machine.run_stream,
            Nix(machine.run, command, machine.env, clock, machine.state).closure,
            # Without its secrets: in /proc a script can see what bwrap has.
            {"PATH": machine.env.get("PATH", "")},
            store.root,
            settings.evaluation_memory,
            clock,
            machine.in_script,
        )
        contents = Contents(
            store, scripts, in_thread, machine.in_reader, machine.in_script
        )
        self.archives = Archives(
            contents,
            machine.blobs,
            self.builds.slots,
            self.failures,
            platform_of(settings.system),
            settings.max_image_size,
            clock,
            in_thread,
            machine.in_reader,
            metrics,
        )
        self.pulls = PullLog(pulls.note, in_thread, machine.clock, machine.now)
        revisions = Revisions(self.records.engine)
        images = Images(
            self.builds,
            self.archives,
            self.records,
            build_records,
            revisions,
            command,
            self.policy,
            machine.now,
            in_thread,
            settings.cache_size,
        )
        self.registry = Registry(
            self._flakes(command),
            self.builds,
            images,
            self.records,
            Layers(
                contents,
                self.records,
                machine.blobs,
                self.failures,
                in_thread,
                self.archives.is_stopping,
            ),
            Encodings(
                machine.blobs, self.failures, in_thread, machine.in_reader, metrics
            ),
            self.policy,
            in_thread,
            settings.cache_size,
            self.pulls.pulled,
            metrics,
        )
        self.sweeper = Sweeper(
            pulls,
            self.pulls,
            machine.blobs,
            store,
            Roots(machine.state / "roots"),
            self._budget,
            lambda: Busy(self.builds.busy),
            lambda _: self.registry.forget(),
            machine.now,
            in_thread,
            metrics,
        )
        self.scrubber = Scrubber(
            Scrub(machine.blobs),
            lambda: machine.blobs.bytes,
            lambda: self.settings.scrub_days,
            machine.clock,
            in_thread,
            metrics,
        )
        self.works = Works(
            self.registry,
            self.builds,
            self.failures,
            build_records,
            logs,
            pulls,
            self.pulls,
            self.sweeper,
            self.policy,
            machine.now,
            in_thread,
        )
        ground = Ground(
            self.records,
            machine.blobs,
            machine.run,
            command,
            machine.env,
            self.registry.flakes,
            # A disk that hangs is one of those that may take for ever.
            machine.in_script,
        )
        self.health = Health(ground.probes(), machine.clock, lambda: self._is_stopping)
        self.entrance = Entrance(
            settings,
            self.registry,
            self.works,
            self.health,
            self._overview(logs),
            Applications(self.registry, self.archives, store, in_thread),
            Catalogue(
                self.registry, self.records, machine.clock, machine.now, in_thread
            ),
            Inspection(
                self.registry, self.records, revisions, pulls, machine.now, in_thread
            ),
            machine.clock,
            machine.now,
            machine.new_id,
            in_thread,
            metrics,
            machine.tracer,
        )
        self.apply(settings, self.secrets)

    def _measure(self) -> None:
        blobs, metrics = self.machine.blobs, self.machine.metrics
        metrics.blob_bytes.set(blobs.bytes)
        metrics.blob_limit_bytes.set(blobs.max_bytes or inf)

    def _overview(self, logs: BuildLogs) -> Overview:
        settings, machine = self.settings, self.machine
        return Overview(
            machine.version,
            NixStatus(machine.nix_version, settings.system, masked(settings.store)),
            self.builds,
            self._evaluations,
            self.policy,
            machine.blobs,
            logs,
            self.sweeper,
            self.scrubber,
            self.registry.flakes,
            self.health,
            machine.recent,
            self._budget,
            machine.clock,
            machine.now,
            machine.in_script,
        )

    def _budget(self) -> Budget:
        settings = self.settings
        return Budget(settings.sweep_bytes, settings.sweep_days, settings.pins)

    def _flakes(self, command: Command) -> list[Flake]:
        settings = self.settings
        flakes = sorted(settings.flakes, key=lambda each: -len(each.prefix))
        main = FlakeSetting("", settings.flake, settings.tags, settings.token_file)
        lookups = Slots(_LOOKUPS)
        return [self._flake(each, command, lookups) for each in [*flakes, main]]

    def _flake(self, setting: FlakeSetting, command: Command, lookups: Slots) -> Flake:
        machine = self.machine
        # The newest is the last; nix may still be at work with the one before it.
        tokens: deque[Token] = deque(maxlen=2)

        def renew() -> Mapping[str, str]:
            """Blocking."""
            try:
                token = read_token(setting.token_file) if setting.token_file else None
                if token is not None and token not in list(tokens)[-1:]:
                    tokens.append(token)
            except ValueError as e:
                _log.error("going on with the old token: {error}", error=e)
            newest = tokens[-1] if tokens else None
            return environment(setting.flake, newest, machine.env)

        def hide(text: str) -> str:
            return reduce(redact, tuple(tokens), masked(text))

        return Flake(
            setting.prefix,
            setting.flake,
            setting.tags,
            Nix(
                machine.run,
                command,
                renew(),
                machine.clock.seconds,
                machine.state / "roots",
                hide,
            ),
            renew,
            command,
            self.records,
            self.policy,
            self.failures,
            self._evaluations,
            lookups,
            machine.now,
            machine.in_thread,
            machine.metrics,
        )

    def apply(self, settings: Settings, secrets: Secrets) -> list[str]:
        """
        Go by other settings from now on, as far as that needs no restart.

        :returns: the variables of what is other and needs one.
        """
        self.entrance.apply(settings, secrets.admin_token, secrets.hook_secret)
        policy = _policy(settings)
        for name in attrs.fields_dict(Policy):
            setattr(self.policy, name, getattr(policy, name))
        self.builds.slots.most = settings.max_builds
        self.machine.blobs.max_bytes = settings.blobs_size
        self._evaluations.most = settings.max_evaluations
        # Whoever lists tags has no build, and must not make the queue endless either.
        self._evaluations.most_waiting = max(1, settings.max_queue)
        self.registry.flakes[-1].patterns = settings.tags
        changed = [
            row
            for row in TABLE
            if getattr(settings, row.name) != getattr(self.settings, row.name)
        ]
        self.settings = attrs.evolve(
            self.settings,
            **{row.name: getattr(settings, row.name) for row in TABLE if row.live},
        )
        if any(row.name == "blobs_size" for row in changed):
            Deferred.fromCoroutine(_attempt(self._trim()))
        live = [row.variable for row in changed if row.live]
        if live:
            _log.info("settings that have changed: {names}", names=", ".join(live))
        return [row.variable for row in changed if not row.live]

    async def begin(self) -> None:
        """Do what is to be done at start; nobody waits for it."""
        await self.builds.begin()
        for flake in self.registry.flakes:
            Deferred.fromCoroutine(self._look(flake))
        self._lag.start()
        self._warm()
        self._tidy()
        Deferred.fromCoroutine(self._survey())

    async def _trim(self) -> None:
        await self.machine.in_thread(self.machine.blobs.trim)

    async def _survey(self) -> None:
        try:
            await self.machine.in_thread(
                self.machine.blobs.survey, lambda: self._is_stopping
            )
        except Exception:
            _log.failure("the blobs were not surveyed")
        self.scrubber.start()

    async def _look(self, flake: Flake) -> None:
        try:
            await flake.lock(self.registry.errand(f"the flake {flake.shown}"))
        except RegistryError as e:
            # It is told in the log, for whoever has just set it up.
            _log.warn(
                "no image of {flake} can be pulled until it can be read: {error}",
                flake=flake.shown,
                error=e,
            )

    def _warm(self) -> None:
        self.works.prewarm()
        seconds = max(_LEAST_WARM_SECONDS, self.policy.ttl_seconds)
        self._timers["warm"] = self.machine.clock.callLater(seconds, self._warm)

    def _tidy(self) -> None:
        Deferred.fromCoroutine(self._tidy_now())
        self._timers["tidy"] = self.machine.clock.callLater(_TIDY_SECONDS, self._tidy)

    async def _tidy_now(self) -> None:
        # First what makes room: on a full disk, builds cannot even be forgotten.
        if self.settings.sweep_bytes or self.settings.sweep_days:
            await _attempt(self.works.sweep(dry_run=False))
        await _attempt(self.works.tidy())

    @property
    def status(self) -> str:
        """Say in a few words what the registry does, and what it lacks."""
        standing = self.builds.standing
        waiting = standing.pop(State.QUEUED, 0)
        words = [f"{standing.total()} builds run, {waiting} wait"]
        if self._is_stopping:
            count = len(self.entrance.site.channels)
            words = [f"stopping: {count} connections are open"]
        wrong = [each for each in self.health.last() if not each.is_ok]
        words += [f"{each.name}: {each.detail}" for each in wrong]
        return "; ".join(words)

    def stop(self) -> None:
        """Begin nothing from now on, and give up what is being read."""
        self._is_stopping = True
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._lag.stop()
        self.scrubber.stop()
        self.entrance.stop()
        self.archives.stop()

    async def end(self) -> None:
        """Write down what is to be remembered, once nothing runs any more."""
        await self.builds.stop()
        await self.pulls.flush()


async def _attempt(tidying: Coroutine[Any, Any, object]) -> None:
    try:
        await tidying
    except RegistryError as e:
        _log.warn("not tidied up: {error}", error=e)
    except Exception:
        _log.failure("not tidied up")


def open_records(state: Path) -> Records:
    """
    Open the records in a state directory. Blocking.

    :raises sqlalchemy.exc.SQLAlchemyError: they cannot be opened.
    """
    return Records.open(URL.create("sqlite", database=str(state / "registry.sqlite")))


def _policy(settings: Settings) -> Policy:
    return Policy(
        ttl_seconds=settings.tag_ttl,
        timeout_seconds=settings.nix_build_timeout,
        evaluation=Limit(settings.evaluation_timeout, settings.evaluation_memory),
        failure_seconds=settings.failure_ttl,
        last_known_good=settings.last_known_good,
        max_queue=settings.max_queue,
        log_bytes=settings.build_log_size,
        log_seconds=settings.build_log_days * _DAY,
        prewarm=settings.prewarm,
    )


def read_secrets(settings: Settings) -> Secrets:
    """
    Read the files that settings name. Blocking.

    :raises ValueError: one cannot be read, or is empty; the text names it.
    """
    for path in (settings.token_file, *(each.token_file for each in settings.flakes)):
        if path:
            read_token(path)
    return Secrets(
        read_secret(settings.admin_token_file), read_secret(settings.hook_secret_file)
    )


def read_secret(path: str) -> str | None:
    """
    Read a file with one secret; there is none where no path is given. Blocking.

    :raises ValueError: it cannot be read, or is empty; the text names it.
    """
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_SECRET + 1).decode().strip()
    except OSError as e:
        raise ValueError(f"the file {path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ValueError(f"the file {path} is not text") from e
    if not text or len(text) > _MAX_SECRET:
        raise ValueError(f"the file {path} must hold 1 to {_MAX_SECRET} characters")
    return text
