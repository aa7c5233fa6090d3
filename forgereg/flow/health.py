"""
How the registry is: whether it can serve, and what is wrong where it cannot.

Anyone may ask, as often as they like, so each check is made once at a time for all who
ask, and its answer is given again for a while. None is waited for longer than
`MOST_SECONDS`: a disk that hangs is an answer, too.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime

from forgereg.blobs.store import BlobStore
from forgereg.flow.flakes import Flake
from forgereg.flow.once import Once
from forgereg.flow.threads import InThread
from forgereg.lines import masked, one_line
from forgereg.logs import logger
from forgereg.nix.build import Run
from forgereg.nix.events import parse_line
from forgereg.nix.flake import Command
from forgereg.oci.errors import DiskFull
from forgereg.records.database import check as check_records
from forgereg.records.records import Records
from forgereg.sizes import size

_log = logger(__name__)

#: How long a check is waited for, in seconds.
MOST_SECONDS = 5.0
#: How long an answer is given again, in seconds: nix takes more to be asked.
_FRESH_SECONDS, _NIX_FRESH_SECONDS = 1.0, 30.0
#: For how many times as long it is given while the check is made anew.
_SPARE = 3
#: How long nix may take for a trifle on a machine that builds, in seconds.
_NIX_SECONDS = 30.0
#: With less than this on the disk, records and logs of builds are soon lost, in bytes.
LEAST_FREE = 2**26
#: How much is written to see whether it can be, in bytes.
_BLOCK = 2**12
_MAX_DETAIL = 300


class Unwell(Exception):
    """
    Something cannot do its part.

    :ivar detail: why, for anyone to read.
    :ivar said: more of it, for the log alone.
    """

    def __init__(self, detail: str, said: str = "") -> None:
        super().__init__(detail)
        self.detail, self.said = detail, said


@frozen
class Check:
    """
    What came of looking at one thing.

    :ivar detail: one line, for anyone to read.
    :ivar seconds: how long it took, or takes by now.
    :ivar is_required: whether the registry cannot serve without.
    """

    name: str
    is_ok: bool
    detail: str
    seconds: float = 0.0
    is_required: bool = True


@frozen
class Probe:
    """
    How to look at one thing.

    :ivar ask: gives a detail; raises `Unwell`.
    :ivar fresh_seconds: how long its answer is given again.
    """

    name: str
    ask: Callable[[], Coroutine[Any, Any, str]]
    is_required: bool = True
    fresh_seconds: float = _FRESH_SECONDS


@define(eq=False)
class Health:
    """
    Looks at everything that the registry stands on.

    :ivar is_stopping: whether clients should go elsewhere.
    """

    _probes: Sequence[Probe]
    _clock: IReactorTime
    _is_stopping: Callable[[], bool]
    _asking: Once[str, Check] = field(init=False, factory=Once)
    #: name → when the check that is under way began
    _begun: dict[str, float] = field(init=False, factory=dict)
    #: name → what came of the last one, and when
    _known: dict[str, tuple[Check, float]] = field(init=False, factory=dict)
    #: what the log was told to be wrong
    _wrong: set[str] = field(init=False, factory=set)

    async def checks(self) -> list[Check]:
        """Look at everything, side by side; no more than `MOST_SECONDS` go by."""
        if self._is_stopping():
            return [Check("stopping", False, "the registry is stopping")]
        looks = [Deferred.fromCoroutine(self._look(each)) for each in self._probes]
        try:
            found: list[Check] = await gatherResults(looks, consumeErrors=True)
        except FirstError as e:  # such as that whoever asked has left
            e.subFailure.raiseException()
        for check in found:
            self._tell(check)
        return found

    def last(self) -> list[Check]:
        """Give what came of it the last time, without looking."""
        return [check for check, _ in self._known.values()]

    async def _look(self, probe: Probe) -> Check:
        now, name = self._clock.seconds(), probe.name
        known, at = self._known.get(name, (None, 0.0))
        if known is not None and now < at + probe.fresh_seconds:
            return known
        asked = self._asking.do(name, lambda: self._ask(probe))
        if known is not None and now < at + _SPARE * probe.fresh_seconds:
            return known
        try:
            return await asked.addTimeout(MOST_SECONDS, self._clock)
        except DeferredTimeoutError:
            seconds = self._clock.seconds() - self._begun[name]
            detail = f"no answer for {seconds:.0f} s"
            return Check(name, False, detail, seconds, probe.is_required)

    async def _ask(self, probe: Probe) -> Check:
        begun = self._begun[probe.name] = self._clock.seconds()
        check = Check(probe.name, True, "", 0.0, probe.is_required)
        try:
            check = evolve(check, detail=await probe.ask())
        except Unwell as e:
            check = evolve(check, is_ok=False, detail=e.detail)
            if e.said:
                _log.warn("{name}: {said}", name=probe.name, said=e.said)
        now = self._clock.seconds()
        check = evolve(
            check, detail=one_line(check.detail, _MAX_DETAIL), seconds=now - begun
        )
        self._known[probe.name] = check, now
        return check

    def _tell(self, check: Check) -> None:
        """Tell the log what has changed."""
        if check.is_ok == (check.name not in self._wrong):
            return
        if check.is_ok:
            self._wrong.discard(check.name)
            _log.info("{name} is well again", name=check.name)
        else:
            self._wrong.add(check.name)
            words = {"name": check.name, "detail": check.detail}
            _log.warn("{name} is not well: {detail}", **words)


def is_ready(checks: Sequence[Check]) -> bool:
    """Say whether the registry can serve."""
    return all(check.is_ok or not check.is_required for check in checks)


@frozen
class Ground:
    """
    What the registry stands on, as far as it is looked at.

    :ivar env: what nix runs with.
    :ivar in_thread: where a disk that hangs is waited for, which may be for ever.
    """

    records: Records
    blobs: BlobStore
    run: Run
    command: Command
    env: Mapping[str, str] = field(repr=False)
    flakes: Sequence[Flake]
    in_thread: InThread

    def probes(self) -> list[Probe]:
        """Give all there is to look at."""
        flakes = [
            Probe(
                " ".join(filter(None, ("flake", flake.prefix))),
                partial(_flake, flake),
                is_required=False,
            )
            for flake in self.flakes
        ]
        return [
            Probe("database", self._database),
            Probe("disk", self._disk),
            Probe("nix", self._nix, fresh_seconds=_NIX_FRESH_SECONDS),
            Probe("blobs", self._blobs, is_required=False),
            *flakes,
        ]

    async def _database(self) -> str:
        try:
            await self.in_thread(check_records, self.records.engine)
        except DiskFull as e:
            raise Unwell(e.detail) from e
        except SQLAlchemyError as e:
            said = str(e).partition("\n")[0]
            raise Unwell("the records cannot be read or written", said) from e
        return "the records can be written"

    async def _disk(self) -> str:
        free = await self.in_thread(look_at_disk, self.blobs.root)
        return f"can be written, {size(free)} are free"

    async def _nix(self) -> str:
        said: deque[bytes] = deque(maxlen=20)
        argv = self.command.probe()
        ended = await self.run(argv, self.env, _NIX_SECONDS, said.append)
        if ended.timed_out:
            raise Unwell(f"nix has not answered for {_NIX_SECONDS:.0f} s")
        if ended.status != 0 or ended.out.strip() != b"true":
            lines = [line.text for line in map(parse_line, said) if line]
            told = (
                one_line(masked(" ".join(lines)), _MAX_DETAIL)
                or f"status {ended.status}"
            )
            raise Unwell("nix does not work; the log says why", told)
        return "nix answers"

    async def _blobs(self) -> str:
        if not self.blobs.is_surveyed:
            raise Unwell("what there is has not been counted yet")
        return size(self.blobs.bytes)


async def _flake(flake: Flake) -> str:
    if flake.trouble is not None:
        raise Unwell(flake.trouble)
    return "could be read" if flake.last_look else "nobody has looked yet"


def look_at_disk(folder: Path) -> int:
    """
    See whether files can be written. Blocking.

    :returns: how much is free, in bytes.
    :raises Unwell: they cannot be, or not for long.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_BLOCK))
        disk = os.statvfs(folder)
    except OSError as e:
        why = e.strerror or type(e).__name__
        raise Unwell(f"the state directory cannot be written: {why}") from e
    free = disk.f_bavail * disk.f_frsize
    if free < LEAST_FREE:
        raise Unwell(f"only {size(free)} are free")
    return free
