"""
Builds as they stood when last told of: in memory first, then in the records.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

import attrs
from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock

from forgereg.flow.report import ANY, Choice, Report, State
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.progress import Progress
from forgereg.oci.errors import BuildUnknown, DiskFull
from forgereg.records.builds import BuildRecords

_log = logger(__name__)

#: How many builds are kept in memory while they cannot be written down.
_MOST_UNSAVED = 1000


@define(eq=False)
class History:
    """
    Every build, now and before.

    What is told is known at once, and written down as soon as what came before is; if
    that fails, it is tried again with the next change.
    """

    _records: BuildRecords
    _in_thread: InThread
    #: by id, what the records do not know yet; None where they are to forget it
    _unsaved: dict[str, Report | None] = field(init=False, factory=dict)
    _leaving: dict[str, Report | None] = field(init=False, factory=dict)
    _lock: DeferredLock = field(init=False, factory=DeferredLock)

    def note(self, report: Report) -> None:
        """Remember how a build stands."""
        self._put(report.id, report)

    def forget(self, build_id: str) -> None:
        """Let a build have never been."""
        self._put(build_id, None)

    def _put(self, build_id: str, report: Report | None) -> None:
        self._unsaved[build_id] = report
        if not self._lock.locked:
            Deferred.fromCoroutine(self.save())

    async def save(self) -> None:
        """Write down what is not, or say in the log why it cannot be."""
        async with self._lock:
            try:
                while self._unsaved:
                    self._leaving, self._unsaved = self._unsaved, {}
                    await self._in_thread(self._write, self._leaving)
            except DiskFull as e:
                self._keep()
                _log.warn("builds are not remembered: {error}", error=e)
            except Exception:
                self._keep()
                _log.failure("builds are not remembered")
            self._leaving = {}

    def _write(self, reports: Mapping[str, Report | None]) -> None:
        """Blocking."""
        rows = (_row(report) for report in reports.values() if report is not None)
        gone = [id for id, report in reports.items() if report is None]
        self._records.save(rows, gone)

    def _keep(self) -> None:
        self._unsaved = self._leaving | self._unsaved
        for build_id in list(self._unsaved)[:-_MOST_UNSAVED]:
            del self._unsaved[build_id]

    async def interrupt(self) -> int:
        """Mark what the last end of the registry interrupted; give how many."""
        over = [state.value for state in State if state.is_over]
        why = "the registry ended while it was built; pull again"
        state = State.INTERRUPTED.value
        try:
            count = await self._in_thread(self._records.interrupt, over, state, why)
        except DiskFull as e:
            _log.warn("interrupted builds are not marked: {error}", error=e)
            return 0
        if count:
            what = "1 build was" if count == 1 else f"{count} builds were"
            _log.warn("{what} interrupted", what=what, count=count)
        return count

    async def newest(
        self, most: int, but: Collection[str], choice: Choice = ANY
    ) -> list[Report]:
        """
        List builds, the newest first.

        :param but: ids of those that are not to be listed.
        """
        unsaved = self._leaving | self._unsaved
        states = [state.value for state in choice.states]
        rows = await self._in_thread(
            self._records.newest, most + len(but), states, choice.image
        )
        reports = [
            *filter(None, reversed(unsaved.values())),
            *(_report(row) for row in rows if row["id"] not in unsaved),
        ]
        reports.sort(key=lambda report: -report.asked_at)
        found = (each for each in reports if each.id not in but and each.fits(choice))
        return list(islice(found, most))

    async def failed(self, locked: Collection[str], name: str = "") -> dict[str, str]:
        """
        Give the newest build of each repository where that failed.

        :param locked: locked flake refs, without secrets; only builds of these count.
        :param name: only that repository; empty for all.
        :returns: by repository, id.
        """
        over = [state.value for state in State if state.is_over]
        newest = await self._in_thread(self._records.newest_of, locked, over, name)
        for report in filter(None, (self._leaving | self._unsaved).values()):
            image = report.image.rpartition(":")[0]
            if report.state.is_over and report.locked in locked:
                newest[image] = report.id, report.state.value
        failed = State.FAILED.value
        return {
            image: build_id
            for image, (build_id, state) in newest.items()
            if state == failed and name in ("", image)
        }

    async def find(self, build_id: str) -> Report:
        """
        Tell how a build stood.

        :raises BuildUnknown: there is none of this id.
        """
        unsaved = self._leaving | self._unsaved
        report = unsaved.get(build_id)
        if build_id not in unsaved:
            row = await self._in_thread(self._records.find, build_id)
            report = None if row is None else _report(row)
        if report is None:
            raise BuildUnknown(f"there is no build {build_id!r}")
        return report


def _row(report: Report) -> dict[str, Any]:
    row = attrs.asdict(report, recurse=False)
    del row["building"]  # over by the time that anybody reads it from there
    spent = {state.value: seconds for state, seconds in row.pop("spent").items()}
    return {
        **row,
        "state": report.state.value,
        "asked_by": json.dumps(report.asked_by),
        "progress": json.dumps({**attrs.asdict(report.progress), "spent": spent}),
    }


def _report(row: dict[str, Any]) -> Report:
    progress = json.loads(row["progress"])
    spent = progress.pop("spent", {})
    return Report(
        **{
            **row,
            "state": State(row["state"]),
            "asked_by": tuple(json.loads(row["asked_by"])),
            "progress": Progress(**progress),
            "spent": {State(state): seconds for state, seconds in spent.items()},
        }
    )
