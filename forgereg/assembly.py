"""
The whole registry, from its begin to its end, but for the port it listens on.

`forgereg.tap` runs it under twistd; the tests run it with a clock, threads and a nix that
are played.
"""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from attrs import define, field
from sqlalchemy import URL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from forgereg.config import Settings
from forgereg.entrance import Entrance
from forgereg.flow.flakes import Flake
from forgereg.flow.report import State
from forgereg.logs import logger
from forgereg.oci.errors import RegistryError
from forgereg.parts import Parts
from forgereg.records.records import Records
from forgereg.secrets import Secrets

_log = logger(__name__)

#: How often the clock has something done, in seconds: sweeping, and forgetting builds.
_TIDY_SECONDS = 3600.0
#: How often what is prewarmed is looked at, at most, in seconds.
_LEAST_WARM_SECONDS = 10.0


@define(eq=False)
class Assembly:
    """The parts, what answers HTTP for them, and what the clock has done."""

    parts: Parts
    secrets: Secrets
    entrance: Entrance = field(init=False)
    _timers: dict[str, IDelayedCall] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.entrance = Entrance(self.parts)
        self.entrance.apply(self.parts.settings, self.secrets)

    def apply(self, settings: Settings, secrets: Secrets) -> list[str]:
        """
        Go by other settings from now on, as far as that needs no restart.

        :returns: the variables of what is other and needs one.
        """
        changed = self.parts.apply(settings)
        self.entrance.apply(settings, secrets)
        if any(row.name == "blobs_size" for row in changed):
            Deferred.fromCoroutine(_attempt(self._trim()))
        live = [row.variable for row in changed if row.live]
        if live:
            _log.info("settings that have changed: {names}", names=", ".join(live))
        return [row.variable for row in changed if not row.live]

    async def begin(self) -> None:
        """Do what is to be done at start; nobody waits for it."""
        await self.parts.builds.begin()
        for flake in self.parts.flakes:
            Deferred.fromCoroutine(self._look(flake))
        self.parts.lag.start()
        self._warm()
        self._tidy()
        Deferred.fromCoroutine(self._survey())

    async def _trim(self) -> None:
        machine = self.parts.machine
        await machine.in_thread(machine.blobs.trim)

    async def _survey(self) -> None:
        machine, is_stopping = self.parts.machine, self.parts.archives.is_stopping
        try:
            await machine.in_thread(machine.blobs.survey, is_stopping)
        except Exception:
            _log.failure("the blobs were not surveyed")
        self.parts.scrubber.start()

    async def _look(self, flake: Flake) -> None:
        try:
            await flake.lock(self.parts.registry.errand(f"the flake {flake.shown}"))
        except RegistryError as e:
            # It is told in the log, for whoever has just set it up.
            _log.warn(
                "no image of {flake} can be pulled until it can be read: {error}",
                flake=flake.shown,
                error=e,
            )

    def _warm(self) -> None:
        self.parts.works.prewarm()
        seconds = max(_LEAST_WARM_SECONDS, self.parts.policy.ttl_seconds)
        clock = self.parts.machine.clock
        self._timers["warm"] = clock.callLater(seconds, self._warm)

    def _tidy(self) -> None:
        Deferred.fromCoroutine(self._tidy_now())
        clock = self.parts.machine.clock
        self._timers["tidy"] = clock.callLater(_TIDY_SECONDS, self._tidy)

    async def _tidy_now(self) -> None:
        settings, works = self.parts.settings, self.parts.works
        # First what makes room: on a full disk, builds cannot even be forgotten.
        if settings.sweep_bytes or settings.sweep_days:
            await _attempt(works.sweep(dry_run=False))
        await _attempt(works.tidy())

    @property
    def status(self) -> str:
        """Say in a few words what the registry does, and what it lacks."""
        standing = self.parts.builds.standing
        waiting = standing.pop(State.QUEUED, 0)
        words = [f"{standing.total()} builds run, {waiting} wait"]
        if self.parts.archives.is_stopping():
            count = len(self.entrance.site.channels)
            words = [f"stopping: {count} connections are open"]
        wrong = [each for each in self.parts.health.last() if not each.is_ok]
        words += [f"{each.name}: {each.detail}" for each in wrong]
        return "; ".join(words)

    def stop(self) -> None:
        """Begin nothing from now on, and give up what is being read."""
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self.parts.archives.stop()
        self.parts.lag.stop()
        self.parts.scrubber.stop()
        self.entrance.stop()

    async def end(self) -> None:
        """Write down what is to be remembered, once nothing runs any more."""
        await self.parts.builds.stop()
        await self.parts.pulls.flush()


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
