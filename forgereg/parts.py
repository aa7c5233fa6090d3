"""
Make the parts of the registry, each of the settings, the machine and those before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import reduce
from math import inf

import attrs
from attrs import define, field

from forgereg.blobs.scrub import Scrub
from forgereg.config import TABLE, Row, Settings
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
from forgereg.flow.retention import Budget, Busy
from forgereg.flow.scrubber import Scrubber
from forgereg.flow.slots import Slots
from forgereg.flow.status import Nix as NixStatus
from forgereg.flow.status import Overview
from forgereg.flow.sweeper import Sweeper
from forgereg.flow.works import Works
from forgereg.lines import masked
from forgereg.logs import logger
from forgereg.machine import Machine
from forgereg.nix.build import Limit, Nix
from forgereg.nix.flake import Command, platform_of
from forgereg.nix.roots import Roots
from forgereg.nix.store import Store, store_root
from forgereg.nix.stream import Scripts
from forgereg.nix.tokens import Token, environment, read_token, redact
from forgereg.records.buildlogs import BuildLogs
from forgereg.records.builds import BuildRecords
from forgereg.records.kept import KeptImages
from forgereg.records.pulls import Pulls
from forgereg.records.records import Records
from forgereg.records.revisions import Revisions
from forgereg.values import FlakeSetting

_log = logger(__name__)

#: How many refs are looked up at a time: each is one short question over the network.
_LOOKUPS = 8
_DAY = 86400.0


@define(eq=False)
class Parts:
    """
    All that works where nobody asks over HTTP.

    :ivar settings: as they are now; those that need a restart stay as they were.
    """

    settings: Settings
    machine: Machine
    records: Records
    policy: Policy = field(init=False, factory=Policy)
    _command: Command = field(init=False)
    _store: Store = field(init=False)
    _build_records: BuildRecords = field(init=False)
    _logs: BuildLogs = field(init=False)
    _pull_records: Pulls = field(init=False)
    _revisions: Revisions = field(init=False)

    @_command.default
    def _made_command(self) -> Command:
        return Command(self.settings.system, self.settings.store)

    @_store.default
    def _made_store(self) -> Store:
        return Store(store_root(self.settings.store))

    @_build_records.default
    def _made_build_records(self) -> BuildRecords:
        return BuildRecords(self.records.engine)

    @_logs.default
    def _made_logs(self) -> BuildLogs:
        return BuildLogs(self.machine.state / "logs")

    @_pull_records.default
    def _made_pull_records(self) -> Pulls:
        return Pulls(self.records.engine)

    @_revisions.default
    def _made_revisions(self) -> Revisions:
        return Revisions(self.records.engine)

    lag: Lag = field(init=False)

    @lag.default
    def _made_lag(self) -> Lag:
        return Lag(self.machine.clock, self.machine.metrics)

    failures: Failures = field(init=False)

    @failures.default
    def _made_failures(self) -> Failures:
        return Failures(self.policy, self.machine.clock.seconds)

    evaluations: Slots = field(init=False)

    @evaluations.default
    def _made_evaluations(self) -> Slots:
        slots = Slots(self.settings.max_evaluations)
        slots.tell("evaluate", self.machine.metrics)
        return slots

    builds: Builds = field(init=False)

    @builds.default
    def _made_builds(self) -> Builds:
        machine = self.machine

        def open_log(build_id: str) -> BuildLog:
            most = self.policy.log_bytes
            return BuildLog(build_id, self._logs.append, machine.in_thread, most)

        return Builds(
            self._build_records,
            self.policy,
            Slots(self.settings.max_builds),
            self.failures,
            machine.now,
            machine.clock.seconds,
            machine.new_id,
            open_log,
            self._logs.forget,
            machine.in_thread,
            machine.metrics,
            machine.tracer,
        )

    contents: Contents = field(init=False)

    @contents.default
    def _made_contents(self) -> Contents:
        machine, clock = self.machine, self.machine.clock.seconds
        env, state = machine.env, machine.state
        scripts = Scripts(
            machine.run_stream,
            Nix(machine.run, self._command, env, clock, state).closure,
            # Without its secrets: in /proc a script can see what bwrap has.
            {"PATH": env.get("PATH", "")},
            self._store.root,
            self.settings.evaluation_memory,
            clock,
            machine.in_script,
        )
        return Contents(
            self._store,
            scripts,
            machine.in_thread,
            machine.in_reader,
            machine.in_script,
        )

    archives: Archives = field(init=False)

    @archives.default
    def _made_archives(self) -> Archives:
        settings, machine = self.settings, self.machine
        return Archives(
            self.contents,
            machine.blobs,
            self.builds.slots,
            self.failures,
            platform_of(settings.system),
            settings.max_image_size,
            machine.clock.seconds,
            machine.in_thread,
            machine.in_reader,
            machine.metrics,
        )

    pulls: PullLog = field(init=False)

    @pulls.default
    def _made_pulls(self) -> PullLog:
        machine, note = self.machine, self._pull_records.note
        return PullLog(note, machine.in_thread, machine.clock, machine.now)

    flakes: list[Flake] = field(init=False)

    @flakes.default
    def _made_flakes(self) -> list[Flake]:
        settings = self.settings
        flakes = sorted(settings.flakes, key=lambda each: -len(each.prefix))
        main = FlakeSetting("", settings.flake, settings.tags, settings.token_file)
        lookups = Slots(_LOOKUPS)
        return [self._made_flake(each, lookups) for each in [*flakes, main]]

    def _made_flake(self, setting: FlakeSetting, lookups: Slots) -> Flake:
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
                self._command,
                renew(),
                machine.clock.seconds,
                machine.state / "roots",
                hide,
            ),
            renew,
            self._command,
            self.records,
            self.policy,
            self.failures,
            self.evaluations,
            lookups,
            machine.now,
            machine.in_thread,
            machine.metrics,
        )

    registry: Registry = field(init=False)

    @registry.default
    def _made_registry(self) -> Registry:
        machine, cache_size = self.machine, self.settings.cache_size
        in_thread, metrics = machine.in_thread, machine.metrics
        images = Images(
            self.builds,
            self.archives,
            self.records,
            self._build_records,
            self._revisions,
            self._command,
            self.policy,
            machine.now,
            in_thread,
            cache_size,
        )
        layers = Layers(
            self.contents,
            self.records,
            machine.blobs,
            self.failures,
            in_thread,
            self.archives.is_stopping,
        )
        encodings = Encodings(
            machine.blobs, self.failures, in_thread, machine.in_reader, metrics
        )
        return Registry(
            self.flakes,
            self.builds,
            images,
            self.records,
            layers,
            encodings,
            self.policy,
            in_thread,
            cache_size,
            self.pulls.pulled,
            metrics,
        )

    sweeper: Sweeper = field(init=False)

    @sweeper.default
    def _made_sweeper(self) -> Sweeper:
        machine = self.machine
        return Sweeper(
            KeptImages(self.records.engine),
            self.pulls,
            machine.blobs,
            self._store,
            Roots(machine.state / "roots"),
            self._budget,
            lambda: Busy(self.builds.busy),
            lambda _: self.registry.forget(),
            machine.now,
            machine.in_thread,
            machine.metrics,
        )

    def _budget(self) -> Budget:
        settings = self.settings
        return Budget(settings.sweep_bytes, settings.sweep_days, settings.pins)

    scrubber: Scrubber = field(init=False)

    @scrubber.default
    def _made_scrubber(self) -> Scrubber:
        machine = self.machine
        return Scrubber(
            Scrub(machine.blobs),
            lambda: machine.blobs.bytes,
            lambda: self.settings.scrub_days,
            machine.clock,
            machine.in_thread,
            machine.metrics,
        )

    works: Works = field(init=False)

    @works.default
    def _made_works(self) -> Works:
        return Works(
            self.registry,
            self.builds,
            self.failures,
            self._build_records,
            self._logs,
            self._pull_records,
            self.pulls,
            self.sweeper,
            self.policy,
            self.machine.now,
            self.machine.in_thread,
        )

    health: Health = field(init=False)

    @health.default
    def _made_health(self) -> Health:
        machine = self.machine
        ground = Ground(
            self.records,
            machine.blobs,
            machine.run,
            self._command,
            machine.env,
            self.flakes,
            # A disk that hangs is one of those that may take for ever.
            machine.in_script,
        )
        return Health(ground.probes(), machine.clock, self.archives.is_stopping)

    overview: Overview = field(init=False)

    @overview.default
    def _made_overview(self) -> Overview:
        settings, machine = self.settings, self.machine
        return Overview(
            machine.version,
            NixStatus(machine.nix_version, settings.system, masked(settings.store)),
            self.builds,
            self.evaluations,
            self.policy,
            machine.blobs,
            self._logs,
            self.sweeper,
            self.scrubber,
            self.flakes,
            self.health,
            machine.recent,
            self._budget,
            machine.clock,
            machine.now,
            machine.in_script,
        )

    applications: Applications = field(init=False)

    @applications.default
    def _made_applications(self) -> Applications:
        in_thread = self.machine.in_thread
        return Applications(self.registry, self.archives, self._store, in_thread)

    catalogue: Catalogue = field(init=False)

    @catalogue.default
    def _made_catalogue(self) -> Catalogue:
        machine = self.machine
        return Catalogue(
            self.registry, self.records, machine.clock, machine.now, machine.in_thread
        )

    inspection: Inspection = field(init=False)

    @inspection.default
    def _made_inspection(self) -> Inspection:
        return Inspection(
            self.registry,
            self.records,
            self._revisions,
            self._pull_records,
            self.machine.now,
            self.machine.in_thread,
        )

    def __attrs_post_init__(self) -> None:
        machine, metrics = self.machine, self.machine.metrics
        nix_version = "".join(machine.nix_version.split()[-1:])
        metrics.info.info({"version": machine.version, "nix_version": nix_version})
        metrics.watch(self._measure)
        self._take(self.settings)

    def _measure(self) -> None:
        blobs, metrics = self.machine.blobs, self.machine.metrics
        metrics.blob_bytes.set(blobs.bytes)
        metrics.blob_limit_bytes.set(blobs.max_bytes or inf)

    def apply(self, settings: Settings) -> list[Row]:
        """
        Go by other settings from now on, as far as that needs no restart.

        :returns: all that is other, whether it does or not.
        """
        self._take(settings)
        before = self.settings
        live = {row.name: getattr(settings, row.name) for row in TABLE if row.live}
        self.settings = attrs.evolve(before, **live)
        return [
            row
            for row in TABLE
            if getattr(settings, row.name) != getattr(before, row.name)
        ]

    def _take(self, settings: Settings) -> None:
        policy = _policy(settings)
        for name in attrs.fields_dict(Policy):
            setattr(self.policy, name, getattr(policy, name))
        self.builds.slots.most = settings.max_builds
        self.machine.blobs.max_bytes = settings.blobs_size
        self.evaluations.most = settings.max_evaluations
        # Whoever lists tags has no build, and must not make the queue endless either.
        self.evaluations.most_waiting = max(1, settings.max_queue)
        self.flakes[-1].patterns = settings.tags


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
