"""
The git refs of a flake's repository, listed once for all who wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, evolve, field

from forgereg.flow.errand import Errand
from forgereg.flow.looked import LOOK_SECONDS, Looked
from forgereg.flow.once import Once
from forgereg.flow.policy import Policy
from forgereg.flow.report import State
from forgereg.flow.slots import Slots
from forgereg.logs import logger
from forgereg.nix.build import Nix
from forgereg.nix.refs import Refs, parse_refs, remote_url
from forgereg.oci.errors import FlakeUnavailable

_log = logger(__name__)


@define(eq=False)
class GitRefs:
    """
    The git refs, as they were when last asked for.

    :ivar flake: flake ref as configured; one that is not in git has no refs.
    :ivar shown: gives that as anyone may read it.
    :ivar ready: gives nix, with the access token as its file has it now.
    :ivar lookups: how many refs may be looked up at a time.
    :ivar now: gives seconds since the epoch.
    """

    _flake: str
    _shown: Callable[[], str]
    _ready: Callable[[], Coroutine[Any, Any, Nix]]
    _policy: Policy
    _lookups: Slots
    _now: Callable[[], float]
    _listed: Looked[Refs | None] | None = field(init=False, default=None)
    #: how often they were said to have moved: no list from before counts after that
    _moves: int = field(init=False, default=0)
    _listings: Once[int, Looked[Refs | None]] = field(init=False, factory=Once)

    @property
    def known(self) -> Refs | None:
        """What was listed last, however long ago."""
        return None if self._listed is None else self._listed.found

    def listed_now(self) -> tuple[Refs, str | None] | None:
        """Give what `list` does, if that is known and still to be trusted."""
        listed = self._listed
        if listed is None or listed.found is None:
            return None
        is_fresh = listed.is_fresh(self._now(), self._policy.ttl_seconds)
        return (listed.found, listed.stale) if is_fresh else None

    def expire(self) -> None:
        """List them anew at the next pull."""
        self._moves += 1
        if self._listed is not None:
            self._listed = evolve(self._listed, at=0.0)

    async def list(
        self, errand: Errand, most_seconds: float
    ) -> tuple[Refs, str | None]:
        """
        Give them, and why they may be out of date.

        :param most_seconds: how old they may be.
        :raises FlakeUnavailable: they cannot be had, and never were.
        """
        url = remote_url(self._flake)
        if url is None:
            return Refs(), None
        listed = self._listed
        if listed is None or not listed.is_fresh(self._now(), most_seconds):
            errand.enter(State.LOCKING)
            listed = await errand.share(
                lambda: self._listings.do(
                    self._moves, lambda: self._list_anew(errand, url)
                )
            )
        if listed.found is None:
            raise FlakeUnavailable(listed.stale or "")
        return listed.found, listed.stale

    async def _list_anew(self, errand: Errand, url: str) -> Looked[Refs | None]:
        began, moves = self._now(), self._moves
        mine = errand.beside(min(errand.timeout_seconds, LOOK_SECONDS))
        try:
            async with self._lookups.turn(mine, State.LOCKING):
                out = await (await self._ready()).remote_refs(mine, url)
        except FlakeUnavailable as e:
            if self._policy.last_known_good == "off":
                raise
            listed = Looked(self.known, self._now(), e.detail)
            if self.known is not None:
                _log.warn(
                    "going on with the git refs of {flake} that are known: {error}",
                    flake=self._shown(),
                    error=e,
                )
        else:
            listed = Looked(parse_refs(out), began if moves == self._moves else 0.0)
        if moves == self._moves or self._listed is None:
            self._listed = listed
        return listed
