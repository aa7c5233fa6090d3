"""
A flake: what it is locked to, which tags it has, what is in it. Nothing is built here.

Each question is asked once for all who wait for the answer. What a locked flake
answered is remembered for ever, what a moving ref was resolved to for its time to live.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from attrs import define, field, frozen
from cachetools import LRUCache

from forgereg.flow.errand import Errand
from forgereg.flow.failures import Failures
from forgereg.flow.families import Wanted
from forgereg.flow.once import Once
from forgereg.flow.policy import Policy
from forgereg.flow.report import State
from forgereg.flow.slots import Slots
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.build import Nix
from forgereg.nix.flake import (
    Command,
    catalogue_query,
    is_here,
    is_pure,
    package_query,
)
from forgereg.nix.refs import (
    LATEST,
    Refs,
    at_revision,
    find,
    is_revision,
    names,
    parse_refs,
    remote_url,
)
from forgereg.oci.errors import DiskFull, FlakeUnavailable, NameUnknown
from forgereg.oci.reference import Tag, is_tag
from forgereg.records.records import Records

_log = logger(__name__)

#: How long a flake that is a directory of this machine is trusted, in seconds: somebody
#: may be writing it, and to look costs little.
_HERE_SECONDS = 5.0
#: How long a flake may take to be reached where one can go on without, and how long it
#: is left alone if it cannot be, in seconds.
_LOOK_SECONDS, _RETRY_SECONDS = 60.0, 30.0
#: How old a list of git refs may be in which somebody does not find theirs, in seconds.
_REFS_SECONDS = 10.0
#: How many revisions of a flake are known in memory.
_MOST_REVISIONS = 1000


@frozen
class Package:
    """
    What the flake says of a package or application.

    :ivar attribute: its name in the flake, in the flake's own case.
    :ivar derivation: store path of the ``.drv`` of what is to be built.
    :ivar version: its own, if it says one.
    """

    attribute: str
    derivation: str
    version: str | None

    @property
    def tags(self) -> list[str]:
        """The tags that mean this package, sorted."""
        tags = {LATEST}
        if self.version is not None and is_tag(self.version):
            tags.add(self.version)
        return sorted(tags)


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
    """

    prefix: str
    ref: str
    patterns: tuple[str, ...]
    nix: Nix
    _renew: Callable[[], Mapping[str, str]]
    _command: Command
    _records: Records
    _policy: Policy
    _failures: Failures
    _evaluations: Slots
    _lookups: Slots
    _now: Callable[[], float]
    _in_thread: InThread
    #: ref → what it was resolved to, and when
    _resolutions: LRUCache[str, tuple[Located, float]] = field(init=False)
    _refs: tuple[Refs, float, str | None] | None = field(init=False, default=None)
    #: how often what is known was said to be out of date
    _expired: int = field(init=False, default=0)
    _locks: Once[tuple[str, int], Located] = field(init=False, factory=Once)
    _listings: Once[tuple[str, int], Refs] = field(init=False, factory=Once)
    _questions: Once[tuple[str, str], Any] = field(init=False, factory=Once)

    def __attrs_post_init__(self) -> None:
        self._resolutions = LRUCache(_MOST_REVISIONS)

    @property
    def shown(self) -> str:
        """The flake ref as anyone may read it."""
        return self.nix.hide(self.ref)

    @property
    def is_here(self) -> bool:
        """Whether it is a directory of this machine."""
        return is_here(self.ref)

    def locked_now(self, at: str | None = None) -> Located | None:
        """
        Give what a ref is locked to, if that is known and still to be trusted.

        :param at: the flake at a revision; else it is meant as configured.
        """
        known = self._resolutions.get(at or self.ref)
        if known is None:
            return None
        located, resolved_at = known
        if at is not None:
            return located
        ttl_seconds = self._policy.ttl_seconds
        if is_here(located.locked):
            ttl_seconds = min(ttl_seconds, _HERE_SECONDS)
        is_fresh = resolved_at <= self._now() < resolved_at + ttl_seconds
        return located if is_fresh else None

    async def lock(self, errand: Errand, at: str | None = None) -> Located:
        """
        Give the locked flake ref.

        :param at: as for `locked_now`.
        :raises FlakeUnavailable: it cannot be had, and never was.
        """
        await self._recall(at or self.ref)
        return self.locked_now(at) or await self._look(errand, at)

    async def _recall(self, ref: str) -> None:
        if ref not in self._resolutions:
            known = await self._in_thread(self._records.resolution, ref)
            if known is not None and ref not in self._resolutions:
                self._resolutions[ref] = Located(known[0]), known[1]

    async def moved(self, errand: Errand, locked: str) -> str | None:
        """
        Look whether a flake that is a directory has changed before its time was over.

        :returns: what it is locked to now, if that is something else.
        :raises FlakeUnavailable: it cannot be had.
        """
        if not is_here(locked):
            return None
        now = await self._look(errand, None)
        return None if now.locked == locked else now.locked

    def expire(self) -> None:
        """Look again at the next pull whether the flake, or a git ref, has moved."""
        self._expired += 1
        known = self._resolutions.get(self.ref)
        if known is not None:
            self._resolutions[self.ref] = known[0], float("-inf")
        if self._refs is not None:
            self._refs = (self._refs[0], float("-inf"), self._refs[2])

    async def _look(self, errand: Errand, at: str | None) -> Located:
        errand.enter(State.LOCKING)
        return await errand.share(
            lambda: self._locks.do(
                (at or self.ref, self._expired), lambda: self._lock(errand, at)
            )
        )

    async def _lock(self, errand: Errand, at: str | None) -> Located:
        now, expired = self._now(), self._expired
        ref = at or self.ref
        old = self._resolutions.get(ref)
        known = None if old is None else old[0].locked
        spare = None if known is None or is_here(known) else known
        has_spare = spare is not None and self._policy.last_known_good != "off"
        mine = errand.beside(
            min(errand.timeout_seconds, _LOOK_SECONDS)
            if has_spare
            else errand.timeout_seconds
        )
        try:
            async with self._lookups.turn(mine, State.LOCKING):
                self.nix.env = await self._in_thread(self._renew)
                locked = await self.nix.lock(mine, ref)
        except FlakeUnavailable as e:
            if spare is None or not has_spare:
                raise
            # Better the images that are known than none, until it can be reached.
            stale = Located(spare, e.detail)
            self._put(ref, stale, now + _RETRY_SECONDS - self._policy.ttl_seconds)
            _log.warn("going on with {locked}", locked=self.nix.hide(spare))
            return stale
        if locked != known:
            _log.info(
                "{flake} is now {locked}",
                flake=self.nix.hide(ref),
                locked=self.nix.hide(locked),
            )
        if expired == self._expired:
            self._put(ref, Located(locked), now)
            await self.note(self._records.remember_resolution, ref, locked, now)
        return Located(locked)

    def _put(self, ref: str, located: Located, when: float) -> None:
        self._resolutions[ref] = located, when

    async def note(self, remember: Callable[..., None], *what: object) -> None:
        """Remember what only saves time; a full disk must not be in the way."""
        try:
            await self._in_thread(remember, *what)
        except DiskFull as e:
            _log.warn("not remembered: {error}", error=e)

    def at_now(self, tag: Tag) -> str | None:
        """Give the flake at what a tag means in git, if that is known."""
        if is_revision(tag.text) or self._refs is None:
            refs = Refs()
        else:
            refs, listed_at, _ = self._refs
            if self._now() >= listed_at + self._policy.ttl_seconds:
                return None
        return self._at(refs, tag)

    async def at(self, errand: Errand, tag: Tag) -> tuple[str, str | None] | None:
        """
        Give the flake at what a tag means in git: a revision, a tag or a branch.

        :returns: a flake ref that always means the same, and why that may be out of
            date; None where no ref is called so, or no pattern allows it.
        :raises FlakeUnavailable: the refs cannot be had, and never were.
        """
        if is_revision(tag.text):
            at = await self._revision(errand, tag)
            return None if at is None else (at, None)
        listed = await self._list(errand, self._policy.ttl_seconds)
        if listed is not None and self._at(listed[0], tag) is None:
            listed = await self._list(errand, _REFS_SECONDS)
        if listed is None:
            return None
        at = self._at(listed[0], tag)
        return None if at is None else (at, listed[2])

    async def _revision(self, errand: Errand, tag: Tag) -> str | None:
        """Give the flake at a full revision, locked already if that needs more."""
        at = self._at(Refs(), tag)
        if at is None:
            return None
        await self._recall(at)
        if at in self._resolutions or at == at_revision(self.ref, tag.text, "refs/x"):
            return at
        # An older nix finds it only in a ref that leads to it.
        listed = await self._list(errand, _REFS_SECONDS)
        through = None if listed is None else self._at(listed[0], tag)
        if through is not None and through != at:
            located = await self.lock(errand, through)
            self._put(at, located, self._now())
            note = self._records.remember_resolution
            await self.note(note, at, located.locked, self._now())
        return at

    def _at(self, refs: Refs, tag: Tag) -> str | None:
        if not self.patterns or remote_url(self.ref) is None:
            return None
        found = find(refs, self.patterns, tag.text)
        return (
            None if found is None else at_revision(self.ref, found.revision, found.ref)
        )

    async def git_tags(self, errand: Errand) -> list[str]:
        """
        List the git refs that can be pulled as tags, sorted.

        :raises FlakeUnavailable: they cannot be had, and never were.
        """
        listed = await self._list(errand, self._policy.ttl_seconds)
        return [] if listed is None else names(listed[0], self.patterns)

    async def _list(
        self, errand: Errand, most_seconds: float
    ) -> tuple[Refs, float, str | None] | None:
        url = remote_url(self.ref)
        if not self.patterns or url is None:
            return None
        if self._refs is None or self._now() >= self._refs[1] + most_seconds:
            errand.enter(State.LOCKING)
            await errand.share(
                lambda: self._listings.do(
                    (url, self._expired), lambda: self._list_anew(errand, url)
                )
            )
        return self._refs

    async def _list_anew(self, errand: Errand, url: str) -> Refs:
        now, expired = self._now(), self._expired
        mine = errand.beside(min(errand.timeout_seconds, _LOOK_SECONDS))
        try:
            async with self._lookups.turn(mine, State.LOCKING):
                self.nix.env = await self._in_thread(self._renew)
                out = await self.nix.remote_refs(mine, url)
        except FlakeUnavailable as e:
            if self._refs is None or self._policy.last_known_good == "off":
                raise
            retry_at = now + _RETRY_SECONDS - self._policy.ttl_seconds
            self._refs = (self._refs[0], retry_at, e.detail)
            return self._refs[0]
        refs = parse_refs(out)
        self._refs = (refs, now if expired == self._expired else float("-inf"), None)
        return refs

    async def package(self, errand: Errand, locked: str, wanted: Wanted) -> Package:
        """
        Say what the locked flake has under a name.

        :raises NameUnknown: no such package, or nothing of it that can be served.
        :raises RegistryError: as `Nix.evaluate`.
        """
        query = package_query(wanted.attribute, wanted.output)
        match await self._ask(errand, locked, query):
            case {
                "status": "ok",
                "attribute": str(attribute),
                "derivation": str(derivation),
                "version": version,
            }:
                return Package(attribute, derivation, version)
            case {"status": "no-package", "names": list(there)}:
                raise NameUnknown(_no_package(self.shown, wanted, there))
            case {"status": "ambiguous", "names": list(there)}:
                raise NameUnknown(
                    f"the flake {self.shown} has {' and '.join(there)}, which are one"
                    " name in lower case: rename all but one"
                )
            case {"status": "no-output", "has": list(has)}:
                raise NameUnknown(_no_output(self.shown, wanted, has))
        raise NameUnknown(
            f"{wanted.attribute}.{wanted.output} in the flake {self.shown} is not"
            " a derivation"
        )

    async def listed(self, errand: Errand, locked: str) -> list[dict[str, Any]]:
        """
        List what the locked flake has, without building any of it.

        :returns: for each package ``name``, ``image`` and ``containers`` (whether it
            has them), ``entries`` (names in its containers, where they are known).
        """
        listed: list[dict[str, Any]] = await self._ask(
            errand, locked, catalogue_query(), builds=False
        )
        return listed

    async def _ask(
        self, errand: Errand, locked: str, query: str, *, builds: bool = True
    ) -> Any:
        asked = f"{self._command.system}\n{query}"
        question = hashlib.sha256(asked.encode()).hexdigest()

        async def ask() -> Any:
            known = await self._in_thread(self._records.answer, locked, question)
            if known is not None:
                return json.loads(known)
            async with self._evaluations.turn(errand, State.EVALUATING):
                answer = await self.nix.evaluate(
                    errand, locked, query, builds=builds, limit=self._policy.evaluation
                )
            # What is not there is not remembered: anyone may ask for anything.
            is_there = not isinstance(answer, dict) or answer.get("status") == "ok"
            if is_there and is_pure(locked):
                text = json.dumps(answer)
                await self.note(self._records.remember_answer, locked, question, text)
            return answer

        key = (locked, question)
        return await errand.share(
            lambda: self._questions.do(key, lambda: self._failures.mind(key, ask))
        )


def _no_package(flake: str, wanted: Wanted, there: list[str]) -> str:
    kind = "application" if wanted.output == "containers" else "package"
    shown = {n.lower(): n for n in there if not n.startswith("_")}
    near = get_close_matches(wanted.attribute, shown, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"the flake {flake} has no {kind} {wanted.attribute!r}{hint}"


def _no_output(flake: str, wanted: Wanted, has: list[str]) -> str:
    name = wanted.attribute
    hint = "set passthru.image to what dockerTools.buildLayeredImage gives"
    if wanted.output == "containers":
        hint = "set passthru.containers to a directory of docker-archives"
    if "containers" in has:
        hint = f"it is an application: pull applications/{name}/<image>"
    if "image" in has:
        hint = f"it is a package: pull packages/{name}"
    return f"{name!r} in the flake {flake} has no attribute {wanted.output!r}; {hint}"
