"""
A flake: what it is locked to, which tags it has, what is in it. Nothing is built here.

Each question is asked once for all who wait for the answer. What a locked flake
answered is remembered for ever, what a moving ref was resolved to for its time to live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, evolve, field, frozen
from cachetools import LRUCache

from forgereg.flow.answers import Answers
from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.families import Wanted
from forgereg.flow.gitrefs import GitRefs
from forgereg.flow.looked import LOOK_SECONDS, RETRY_SECONDS, Looked
from forgereg.flow.once import Once
from forgereg.flow.packages import Package, read_package
from forgereg.flow.policy import Policy
from forgereg.flow.report import State
from forgereg.flow.slots import Slots
from forgereg.flow.threads import InThread, note
from forgereg.logs import logger
from forgereg.metrics import Metrics
from forgereg.nix.build import Nix
from forgereg.nix.flake import (
    Command,
    catalogue_query,
    is_here,
    is_pure,
    package_query,
)
from forgereg.nix.refs import (
    Refs,
    at_revision,
    find,
    is_revision,
    names,
    remote_url,
)
from forgereg.oci.errors import EvaluationFailed, FlakeUnavailable
from forgereg.oci.reference import Tag
from forgereg.records.records import Records

_log = logger(__name__)

#: How long a flake that is a directory of this machine is trusted, in seconds: somebody
#: may be writing it, and to look costs little.
_HERE_SECONDS = 5.0
#: How old a list of git refs may be in which somebody does not find theirs, in seconds.
_REFS_SECONDS = 10.0
#: How many revisions of a flake are known in memory.
_MOST_REVISIONS = 1000


@frozen
class Located:
    """
    What a ref means.

    :ivar locked: locked flake ref.
    :ivar stale: why it may be out of date; None where it is not.
    """

    locked: str
    stale: str | None = None


@define(eq=False)
class Flake:
    """
    One flake, and the names that it serves.

    :ivar prefix: what these names begin with; empty for any.
    :ivar ref: flake ref as configured.
    :ivar patterns: of git refs that can be pulled as tags.
    :ivar renew: reads the access token anew; blocking; gives the environment for nix.
    :ivar evaluations: how many may run at a time.
    :ivar lookups: how many refs may be looked up at a time.
    :ivar now: gives seconds since the epoch; remembered between restarts.
    :ivar trouble: why it could not be had the last time; None where it could, or nobody
        has looked.
    """

    prefix: str
    ref: str
    patterns: tuple[str, ...]
    _nix: Nix
    _renew: Callable[[], Mapping[str, str]]
    _command: Command
    _records: Records
    _policy: Policy
    _failures: Failures
    _evaluations: Slots
    _lookups: Slots
    _now: Callable[[], float]
    _in_thread: InThread
    _metrics: Metrics = field(factory=Metrics)
    trouble: str | None = field(init=False, default=None)
    #: flake ref, as configured or at a revision → locked flake ref
    _resolutions: LRUCache[str, Looked[str]] = field(init=False)
    #: how often it was said to have moved: no look from before counts after that
    _moves: int = field(init=False, default=0)
    _locks: Once[tuple[str, int], Located] = field(init=False, factory=Once)
    #: what it listed last, and of what, where that is remembered nowhere else
    _unkept: tuple[str, list[dict[str, Any]]] | None = field(init=False, default=None)
    _git: GitRefs = field(init=False)
    _answers: Answers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._resolutions = LRUCache(_MOST_REVISIONS)
        self._git = GitRefs(
            self.ref,
            lambda: self.shown,
            self._ready,
            self._policy,
            self._lookups,
            self._now,
        )
        self._answers = Answers(
            self._command.system,
            self._ready,
            self._records,
            self._policy,
            self._failures,
            self._evaluations,
            self._now,
            self._in_thread,
            self._metrics,
        )

    @property
    def path(self) -> str:
        """What its names begin with, and the slash that follows."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def shown(self) -> str:
        """The flake ref as anyone may read it."""
        return self.hide(self.ref)

    @property
    def hide(self) -> Callable[[str], str]:
        """What takes its secrets out of a text."""
        return self._nix.hide

    @property
    def last_look(self) -> Looked[str] | None:
        """Tell which locked flake ref was found last, as far as is in memory."""
        return self._resolutions.get(self.ref)

    def locked_now(self) -> Located | None:
        """Give what it is locked to, if that is known and still to be trusted."""
        known = self._resolutions.get(self.ref)
        if known is None:
            return None
        ttl_seconds, retry_seconds = self._policy.ttl_seconds, RETRY_SECONDS
        if is_here(known.found):
            ttl_seconds = min(ttl_seconds, _HERE_SECONDS)
            retry_seconds = ttl_seconds
        is_fresh = known.is_fresh(self._now(), ttl_seconds, retry_seconds)
        return Located(known.found, known.stale) if is_fresh else None

    def located_now(self, tag: Tag) -> Located | None:
        """Give what a tag means in git, if that is known and still to be trusted."""
        refs, stale = Refs(), None
        if not is_revision(tag.text):
            listed = self._git.listed_now()
            if listed is None:
                return None
            refs, stale = listed
        known = self._resolutions.get(self._at(refs, tag))
        return None if known is None else Located(known.found, stale)

    async def lock(self, errand: Errand) -> Located:
        """
        Give what it is locked to.

        :raises FlakeUnavailable: it cannot be had, and never was.
        """
        await self._recall(self.ref)
        return self.locked_now() or await self._look(errand, self.ref)

    async def moved(self, errand: Errand, locked: str) -> str | None:
        """
        Look whether a flake that is a directory has changed before its time was over.

        :returns: what it is locked to now, if that is something else.
        :raises FlakeUnavailable: it cannot be had.
        """
        if not is_here(locked):
            return None
        # No state of its own: what failed before is what people are to see.
        now = await self._look(errand, self.ref, is_told=False)
        return None if now.locked == locked else now.locked

    def expire(self) -> None:
        """Look again at the next pull whether the flake, or a git ref, has moved."""
        self._moves += 1
        known = self._resolutions.get(self.ref)
        if known is not None:
            self._resolutions[self.ref] = evolve(known, at=0.0)
        self._git.expire()

    async def locate(self, errand: Errand, tag: Tag) -> Located | None:
        """
        Give what a tag means in git: a revision, a tag or a branch.

        :returns: None where no ref is called so, or no pattern allows it.
        :raises FlakeUnavailable: it cannot be had, and never was.
        """
        if is_revision(tag.text):
            return await self._revision(errand, tag)
        # What is not in a list that is not quite new may have been pushed since.
        for most_seconds in (self._policy.ttl_seconds, _REFS_SECONDS):
            refs, stale = await self._list(errand, most_seconds)
            at = self._at(refs, tag)
            if at:
                return Located(await self._fixed(errand, at), stale)
        return None

    async def _revision(self, errand: Errand, tag: Tag) -> Located | None:
        at = through = self._at(Refs(), tag)
        if not at:
            return None
        await self._recall(at)
        is_known = at in self._resolutions
        if not is_known and at != at_revision(self.ref, tag.text, "refs/x"):
            # An older nix finds it only in a ref that leads to it.
            through = self._at((await self._list(errand, _REFS_SECONDS))[0], tag) or at
        locked = await self._fixed(errand, through)
        if through != at:
            await self._remember(at, locked, self._now())
        return Located(locked)

    def _at(self, refs: Refs, tag: Tag) -> str:
        """Give the flake at what a tag means in git; nothing where that is nothing."""
        if not self.patterns or remote_url(self.ref) is None:
            return ""
        found = find(refs, self.patterns, tag.text)
        return at_revision(self.ref, found.revision, found.ref) if found else ""

    async def _fixed(self, errand: Errand, at: str) -> str:
        """Give what the flake at a revision is locked to, now and for ever."""
        await self._recall(at)
        known = self._resolutions.get(at)
        return known.found if known else (await self._look(errand, at)).locked

    async def _recall(self, ref: str) -> None:
        if ref not in self._resolutions:
            known = await self._in_thread(self._records.resolution, ref)
            if known is not None and ref not in self._resolutions:
                locked, at = known
                self._resolutions[ref] = Looked(locked, 0.0 if self._moves else at)

    async def _remember(self, ref: str, locked: str, at: float) -> None:
        self._resolutions[ref] = Looked(locked, at)
        await note(self._in_thread, self._records.remember_resolution, ref, locked, at)

    async def _ready(self) -> Nix:
        """Give nix, which has the token as its file has it now."""
        self._nix.env = await self._in_thread(self._renew)
        return self._nix

    async def _look(self, errand: Errand, ref: str, *, is_told: bool = True) -> Located:
        if is_told:
            errand.enter(State.LOCKING)
        key = (ref, self._moves)
        try:
            located = await errand.share(
                lambda: self._locks.do(key, lambda: self._lock(errand, ref))
            )
        except (FlakeUnavailable, EvaluationFailed) as e:
            if ref == self.ref:
                self.trouble = e.detail
            raise
        if ref == self.ref:
            self.trouble = located.stale
        return located

    async def _lock(self, errand: Errand, ref: str) -> Located:
        began, moves = self._now(), self._moves
        old = self._resolutions.get(ref)
        known = None if old is None else old.found
        is_off = self._policy.last_known_good == "off"
        spare = None if is_off else known
        most = errand.timeout_seconds
        mine = errand.beside(most if spare is None else min(most, LOOK_SECONDS))
        try:
            async with self._lookups.turn(mine, State.LOCKING):
                locked = await (await self._ready()).lock(mine, ref)
        except FlakeUnavailable as e:
            if spare is None:
                raise
            # Better the images that are known than none, until it can be reached.
            if moves == self._moves:
                self._resolutions[ref] = Looked(spare, self._now(), e.detail)
            _log.warn(
                "going on with {locked}: {error}", locked=self.hide(spare), error=e
            )
            return Located(spare, e.detail)
        if locked != known:
            _log.info(
                "{flake} is now {locked}",
                flake=self.hide(ref),
                locked=self.hide(locked),
            )
        if moves == self._moves:
            await self._remember(ref, locked, began)
        elif ref not in self._resolutions:
            await self._remember(ref, locked, 0.0)
        return Located(locked)

    async def git_tags(self, errand: Errand) -> list[str]:
        """
        List the git refs that can be pulled as tags, sorted.

        :raises FlakeUnavailable: they cannot be had, and never were.
        """
        refs, _ = await self._list(errand, self._policy.ttl_seconds)
        return names(refs, self.patterns)

    async def _list(
        self, errand: Errand, most_seconds: float
    ) -> tuple[Refs, str | None]:
        """Give the git refs, and why they may be out of date."""
        if not self.patterns:
            return Refs(), None
        return await self._git.list(errand, most_seconds)

    def known_git_tags(self) -> list[str] | None:
        """Give what `git_tags` gave last, however long ago; None rather than ask git."""
        if not self.patterns or remote_url(self.ref) is None:
            return []
        known = self._git.known
        return None if known is None else names(known, self.patterns)

    async def build(
        self, errand: Errand, locked: str, attribute: str, derivation: str
    ) -> str:
        """Build an attribute of the locked flake, as `Nix.build` does."""
        return await (await self._ready()).build(errand, locked, attribute, derivation)

    async def package(self, errand: Errand, locked: str, wanted: Wanted) -> Package:
        """
        Say what the locked flake has under a name.

        :raises NameUnknown: no such package, or nothing of it that can be served.
        :raises RegistryError: as `Nix.evaluate`.
        """
        query = package_query(wanted.attribute, wanted.output)
        answer = await self._answers.ask(errand, locked, query)
        return read_package(answer, wanted, self.shown, self.path)

    async def listed(
        self, errand: Errand, locked: str, *, details: bool = False
    ) -> list[dict[str, Any]]:
        """
        List what the locked flake has, without building any of it.

        :returns: for each package ``name``, ``image`` and ``containers`` (whether it
            has them), ``entries`` (names in its containers, where they are known); with
            details ``version`` and ``description`` (None where it has none),
            ``licences`` and ``homepages``, each text of at most 1,000 bytes.
        """
        query = catalogue_query(details=details)
        listed: list[dict[str, Any]] = await self._answers.ask(
            errand, locked, query, builds=False
        )
        if is_pure(locked):
            self._unkept = None
            if await self._listed_of() != locked:
                await self._remember(self._listing, locked, self._now())
        else:
            self._unkept = locked, listed
        return listed

    @property
    def _listing(self) -> str:
        """By what is remembered which of its revisions was listed last: no flake ref."""
        return f"listed {self.ref}"

    async def _listed_of(self) -> str | None:
        await self._recall(self._listing)
        known = self._resolutions.get(self._listing)
        return None if known is None else known.found

    async def last_locked(self) -> str | None:
        """Give what it was locked to last, however long ago; None: it never was."""
        await self._recall(self.ref)
        known = self._resolutions.get(self.ref)
        return None if known is None else known.found

    async def recall_package(self, locked: str, wanted: Wanted) -> Package | None:
        """Give what `package` does, or None rather than asking nix."""
        query = package_query(wanted.attribute, wanted.output)
        answer = await self._answers.recall(locked, query)
        if answer is None:
            return None
        return read_package(answer, wanted, self.shown, self.path)

    async def recall_listed(self, locked: str) -> list[dict[str, Any]] | None:
        """Give what `listed` does, with details or not, or None rather than ask nix."""
        if self._unkept is not None and self._unkept[0] == locked:
            return self._unkept[1]
        for details in (True, False):
            listed = await self._answers.recall(
                locked, catalogue_query(details=details)
            )
            if isinstance(listed, list):
                return listed
        return None

    async def last_listed(self) -> list[dict[str, Any]] | None:
        """Give what `listed` gave last, of whatever revision; None: it never did."""
        locked = self._unkept[0] if self._unkept else await self._listed_of()
        return None if locked is None else await self.recall_listed(locked)

    def question(self, wanted: Wanted) -> str:
        """Give what the answer to `package` is remembered by, beside the locked ref."""
        return self._answers.key(package_query(wanted.attribute, wanted.output))
