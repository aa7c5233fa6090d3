"""
What an operator, a forge or the clock can have done: builds that nobody pulls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from forgereg.flow.builds import Builds
from forgereg.flow.failures import Failures
from forgereg.flow.policy import Policy
from forgereg.flow.pulls import PullLog
from forgereg.flow.push import Push, repository_of_flake
from forgereg.flow.registry import Registry
from forgereg.flow.report import ANY, Choice, Report, SweepReport
from forgereg.flow.sweeper import Sweeper
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.refs import LATEST
from forgereg.oci.errors import NameInvalid, RegistryError, RequestInvalid
from forgereg.oci.reference import (
    Digest,
    Name,
    Tag,
    parse_name,
    parse_reference,
    shown,
)
from forgereg.records.buildlogs import BuildLogs
from forgereg.records.builds import BuildRecords
from forgereg.records.pulls import Pulls, day_of

_log = logger(__name__)

#: Who asks for what nobody has asked for yet, as far as fairness goes.
_PREWARM = "prewarm"
#: What counts as pulled lately when a flake has changed, in seconds, and how many
#: images are built then.
_LATELY_SECONDS, _MOST_LATELY = 7 * 86400.0, 50
#: For how long it is known how often something was pulled on a day, in days.
_YEAR_DAYS = 366


@define(eq=False)
class Works:
    """
    Builds as an operator sees them.

    :ivar logs: what nix said during each; blocking.
    :ivar now: gives seconds since the epoch.
    """

    _registry: Registry
    _builds: Builds
    _failures: Failures
    _records: BuildRecords
    logs: BuildLogs
    _pulls: Pulls
    _pull_log: PullLog
    _sweeper: Sweeper
    _policy: Policy
    _now: Callable[[], float]
    _in_thread: InThread

    async def builds(self, most: int, choice: Choice = ANY) -> list[Report]:
        """List builds: active ones first, then the newest first."""
        return await self._builds.newest(most, choice)

    async def build(self, id: str) -> Report:
        """
        Give one build.

        :raises BuildUnknown: it is not remembered.
        """
        return await self._builds.report(id)

    async def log(self, id: str, offset: int, most: int) -> bytes:
        """
        Give what nix said.

        :param offset: where to begin, in bytes, as ``most`` is.
        :raises BuildUnknown: the build is not remembered.
        """
        await self._builds.report(id)
        return await self._in_thread(self.logs.read, id, offset, most)

    async def start(self, image: str, client: str) -> Report:
        """
        Have an image built, or join the build that runs.

        :raises RequestInvalid: it is no image's name.
        :raises NameUnknown: it is of no family that is served here.
        """
        name, tag = parse_image(image)
        return self._registry.start(name, tag, client)

    async def cancel(self, id: str) -> Report:
        """
        End a build.

        :raises BuildUnknown: it is not remembered.
        :raises BuildOver: it has ended before.
        """
        return await self._builds.cancel(id)

    async def retry(self, id: str, client: str) -> Report:
        """
        Forget what failed, and build an image again.

        :raises BuildUnknown: the build is not remembered.
        """
        report = await self._builds.report(id)
        name, tag = parse_image(report.image)
        self._failures.forget()
        return self._registry.start(name, tag, client)

    async def sweep(self, dry_run: bool) -> SweepReport:
        """Let go of what nobody pulls, or only say what that is."""
        return await self._sweeper.sweep(dry_run)

    async def pushed(self, push: Push) -> list[str]:
        """
        Look at the flakes again that were pushed to, and build what was pulled lately.

        :returns: the refs of these flakes, without secrets.
        """
        flakes = [
            flake
            for flake in self._registry.flakes
            if repository_of_flake(flake.ref) in push.repositories
        ]
        for flake in flakes:
            flake.expire()
            _log.info("somebody has pushed to {flake}", flake=flake.shown)
        if flakes:
            await self._pull_log.flush()
            lately = await self._in_thread(
                self._pulls.pulled_since, self._now() - _LATELY_SECONDS
            )
            images = [
                f"{name}:{tag}"
                for name, tag in lately
                if self._registry.flake_of(name) in flakes
            ]
            self._warm(images[:_MOST_LATELY])
            self.prewarm()
        return [flake.shown for flake in flakes]

    def prewarm(self) -> None:
        """Have built what is to be there before anyone asks, as it is now."""
        self._warm(self._policy.prewarm)

    def _warm(self, images: Iterable[str]) -> None:
        for image in images:
            Deferred.fromCoroutine(self._have(image)).addErrback(_tell, image)

    async def _have(self, image: str) -> None:
        name, tag = parse_image(image)
        began_before = self._builds.find((name, tag)) is not None
        await self._registry.warm(name, tag, _PREWARM)
        if began_before:  # and has maybe looked at the flake before it moved
            await self._registry.warm(name, tag, _PREWARM)

    async def tidy(self) -> None:
        """Forget builds and logs whose time is over, and pulls of a year ago."""
        a_year_ago = day_of(self._now()) - _YEAR_DAYS
        await self._in_thread(self._pulls.forget_days, a_year_ago)
        before = self._now() - self._policy.log_seconds
        gone = await self._in_thread(self._records.forget_before, before)
        await self._in_thread(self.logs.forget, gone)
        await self._in_thread(self.logs.prune, before)


def parse_image(text: str) -> tuple[Name, Tag]:
    """
    Read an image's name: a repository, a colon and a tag; ``latest`` without one.

    :raises NameInvalid: there is no such repository's name in it.
    :raises RequestInvalid: there is no tag in it.
    """
    name, _, tag = text.partition(":")
    kind: type[RegistryError] = RequestInvalid
    try:
        reference = parse_reference(tag or LATEST)
        if not isinstance(reference, Digest) and "@" not in name:
            return parse_name(name), reference
        why = "a digest cannot be built"
    except RegistryError as e:
        kind = NameInvalid if isinstance(e, NameInvalid) else RequestInvalid
        why = e.detail
    raise kind(
        f"{shown(text)} is not an image: {why}; it is written as packages/hello:latest,"
        " without the registry's address"
    )


def _tell(failure: Failure, image: str) -> None:
    failure.trap(RegistryError)
    error = failure.getErrorMessage()
    _log.warn("{image} is not there yet: {error}", image=image, error=error)
