"""
How the registry does at one moment, for people to see.

What is on disk is looked at in a thread, once for all who ask; a disk that does not
answer keeps nobody waiting for longer than `MOST_SECONDS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from forgereg.blobs.store import BlobStore
from forgereg.flow.builds import Builds
from forgereg.flow.flakes import Flake
from forgereg.flow.health import Check, Health
from forgereg.flow.once import Once
from forgereg.flow.policy import Policy
from forgereg.flow.report import SweepReport
from forgereg.flow.retention import Budget
from forgereg.flow.scrubber import Round, Scrubber
from forgereg.flow.slots import Slots
from forgereg.flow.sweeper import Sweeper
from forgereg.flow.threads import InThread
from forgereg.logs import Entry, Recent
from forgereg.oci.errors import RegistryError
from forgereg.records.buildlogs import BuildLogs

#: How long a disk is waited for, in seconds.
MOST_SECONDS = 2.0
#: How long what was found there is told again, in seconds: images take longer to count.
_FRESH_SECONDS, _IMAGES_SECONDS = 4.0, 15.0
_NO_ANSWER = (TimeoutError, RegistryError, SQLAlchemyError, OSError)


@frozen
class Space:
    """
    Something that takes room.

    :ivar used: in bytes; None where it is not known yet.
    :ivar most: how much it may take, in bytes; 0 for any.
    :ivar setting: the variable that says so; empty for none.
    :ivar note: what else is to be known of it.
    """

    name: str
    used: int | None
    most: int = 0
    setting: str = ""
    note: str = ""


@frozen
class Load:
    """
    Work of which so much may be done at a time.

    :ivar most_waiting: how many may wait.
    """

    name: str
    running: int
    most: int
    waiting: int
    most_waiting: int


@frozen
class FlakeStatus:
    """
    A flake, without secrets.

    :ivar prefix: what the names of its images begin with; empty for any.
    :ivar locked: locked flake ref; None where it is not known.
    :ivar looked_at: when it was looked up last, in seconds since the epoch; None where
        that is not known.
    :ivar trouble: why it is not known, or maybe out of date.
    """

    prefix: str
    ref: str
    patterns: Sequence[str]
    locked: str | None
    looked_at: float | None
    trouble: str | None


@frozen
class Nix:
    """
    What builds.

    :ivar version: as nix says it.
    :ivar store: as ``nix --store`` has it; empty for nix's own choice.
    """

    version: str
    system: str
    store: str


@frozen
class Status:
    """
    Everything, at one moment; times are seconds since the epoch.

    :ivar sweep: when images were let go of last, and what that gave.
    :ivar round_began_at: of the round in which blobs are read again.
    """

    at: float
    started_at: float
    version: str
    nix: Nix
    checks: list[Check]
    spaces: Sequence[Space]
    loads: Sequence[Load]
    flakes: Sequence[FlakeStatus]
    sweep: tuple[float, SweepReport] | None
    round: Round | None
    round_began_at: float | None
    recent: Sequence[Entry]


@frozen
class _OnDisk:
    used: int
    free: int
    logs: int


@define(eq=False)
class Overview:
    """
    Gathers what is to be seen.

    :ivar budget: gives what images may take, as it is set now.
    :ivar now: gives seconds since the epoch.
    :ivar in_thread: where a disk that hangs is waited for, which may be for ever.
    """

    _version: str
    _nix: Nix
    _builds: Builds
    _evaluations: Slots
    _policy: Policy
    _blobs: BlobStore
    _logs: BuildLogs
    _sweeper: Sweeper
    _scrubber: Scrubber
    _flakes: Sequence[Flake]
    _health: Health
    _recent: Recent
    _budget: Callable[[], Budget]
    _clock: IReactorTime
    _now: Callable[[], float]
    _in_thread: InThread
    _started_at: float = field(init=False)
    _disk: _OnDisk | None = field(init=False, default=None)
    _images: SweepReport | None = field(init=False, default=None)
    #: what → when it was looked at last
    _looked: dict[str, float] = field(init=False, factory=dict)
    _looks: Once[str, None] = field(init=False, factory=Once)

    def __attrs_post_init__(self) -> None:
        self._started_at = self._now()

    async def status(self) -> Status:
        """Tell how it does."""
        disk = self._fresh("disk", _FRESH_SECONDS, self._look_at_disk)
        images = self._fresh("images", _IMAGES_SECONDS, self._count_images)
        checks = await self._health.checks()
        for look in (disk, images):
            await look
        round, now = self._scrubber.round, self._now()
        ago = None if round is None else self._clock.seconds() - round.began_at
        return Status(
            at=now,
            started_at=self._started_at,
            version=self._version,
            nix=self._nix,
            checks=checks,
            spaces=self._spaces(),
            loads=self._loads(),
            flakes=[_flake_status(flake) for flake in self._flakes],
            sweep=self._sweeper.last,
            round=round,
            round_began_at=None if ago is None else now - ago,
            recent=self._recent.entries,
        )

    def _fresh(
        self, what: str, most_seconds: float, look: Callable[[], object]
    ) -> Deferred[None]:
        """Look again at what was looked at too long ago, and wait for it for a while."""
        began = self._clock.seconds()
        if what in self._looked and began < self._looked[what] + most_seconds:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done

        async def again() -> None:
            await look()  # type: ignore[misc]
            self._looked[what] = self._clock.seconds()

        done = self._looks.do(what, again).addTimeout(MOST_SECONDS, self._clock)
        # What is known from before is told, then.
        done.addErrback(lambda failure: failure.trap(*_NO_ANSWER) and None)
        return done

    async def _look_at_disk(self) -> None:
        def look() -> _OnDisk:
            disk = shutil.disk_usage(self._blobs.root)
            return _OnDisk(disk.used, disk.free, self._logs.bytes())

        self._disk = await self._in_thread(look)

    async def _count_images(self) -> None:
        self._images = await self._sweeper.sweep(dry_run=True)

    def _spaces(self) -> list[Space]:
        disk, images = self._disk, self._images
        blobs, budget = self._blobs, self._budget()
        return [
            Space(
                "State directory's disk",
                None if disk is None else disk.used,
                # Not with what the file system keeps for root, as df does not.
                0 if disk is None else disk.used + disk.free,
            ),
            Space(
                "Unpacked layers",
                blobs.bytes,
                blobs.max_bytes,
                "FORGE_BLOBS_SIZE",
                "" if blobs.is_surveyed else "still being counted",
            ),
            Space(
                "Images that are kept",
                None if images is None else images.kept_bytes + images.freed_bytes,
                budget.bytes,
                "FORGE_SWEEP_BYTES",
            ),
            Space(
                "Logs of builds",
                None if disk is None else disk.logs,
                setting="FORGE_BUILD_LOG_DAYS",
            ),
        ]

    def _loads(self) -> list[Load]:
        builds, evaluations = self._builds, self._evaluations
        most = self._policy.max_queue
        return [
            Load(
                "Builds",
                builds.slots.taken,
                builds.slots.most,
                builds.waiting,
                most,
            ),
            Load(
                "Evaluations",
                evaluations.taken,
                evaluations.most,
                evaluations.waiting,
                most,
            ),
        ]


def _flake_status(flake: Flake) -> FlakeStatus:
    look, stale = flake.last_look, flake.last_look and flake.last_look.stale
    return FlakeStatus(
        flake.prefix,
        flake.shown,
        flake.patterns,
        None if look is None else flake.hide(look.found),
        (look and look.at) or None,
        stale or flake.trouble,
    )
