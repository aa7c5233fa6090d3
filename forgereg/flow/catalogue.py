"""
What there is to pull, as people look through it: read from the flakes, never built.

Nobody waits for nix here for more than a moment: what is not read yet is read in the
background, once, and what was read before is shown meanwhile.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from itertools import chain

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime

from forgereg.flow.entries import Entry, Kind, read_entries, read_unnamed
from forgereg.flow.flakes import Flake
from forgereg.flow.once import Once
from forgereg.flow.registry import Registry
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.oci.errors import EvaluationFailed, RegistryError
from forgereg.records.records import Records

_log = logger(__name__)

#: How long whoever looks for the first time waits for nix, in seconds.
_MOMENT_SECONDS = 0.25
#: How long a flake is left alone that has just been read, or could not be, in seconds.
_REST_SECONDS, _RETRY_SECONDS = 5.0, 10.0


class Standing(Enum):
    """What a pull would find; what is most to be told comes first."""

    #: It is being built.
    BUILDING = "building"
    #: The image of the revision that the flake has now.
    READY = "ready"
    #: The last build of the revision that the flake has now failed.
    FAILED = "failed"
    #: The image of another revision; nix is asked whether it is still the same.
    OLDER = "older"
    #: Nothing: it would be built.
    UNBUILT = "unbuilt"


_ORDER = {standing: place for place, standing in enumerate(Standing)}


@frozen
class Shelf:
    """
    What is known of one flake.

    :ivar shown: its ref, as anyone may read it; `locked` likewise.
    :ivar is_reading: whether it is being read.
    :ivar is_read: whether it ever was.
    :ivar trouble: why it cannot be read, or not be read anew; None where it can.
    :ivar lack: why nothing is known of its packages but their names; None otherwise.
    :ivar unnamed: what cannot be pulled, as its name can be none of a repository.
    """

    prefix: str
    shown: str
    locked: str | None
    is_reading: bool
    is_read: bool
    trouble: str | None
    lack: str | None
    unnamed: tuple[str, ...]


@frozen
class View:
    """
    All that there is to pull at one moment.

    :ivar entries: sorted by name.
    :ivar shelves: the main flake first.
    """

    entries: Sequence[Entry]
    shelves: Sequence[Shelf]
    _standings: Mapping[str, Standing]
    _members: Mapping[str, Sequence[str]]
    _builds: Mapping[str, str]

    def standing(self, path: str) -> Standing:
        """Say what a pull of a repository, or an application, would find."""
        return self._standings.get(path, Standing.UNBUILT)

    def build(self, path: str) -> str | None:
        """Give the id of the build that is under way, or of the one that failed."""
        return self._builds.get(path)

    def images(self, entry: Entry) -> Sequence[str]:
        """List the repositories of an entry, also those that only a pull has shown."""
        return entry.images or self._members.get(entry.path, ())

    def search(self, text: str, kind: Kind | None, standing: Standing | None) -> Hits:
        """
        Find entries by words of their names and descriptions, the best first.

        :param kind: and `standing`: which to leave out; None for none.
        """
        text = " ".join(text.casefold().split())
        found = self.entries if not text else self._ranked(text)
        all_of = [(entry, self.standing(entry.path)) for entry in found]
        return Hits(
            [e for e, s in all_of if kind in (None, e.kind) and standing in (None, s)],
            Counter(e.kind for e, s in all_of if standing in (None, s)),
            Counter(s for e, s in all_of if kind in (None, e.kind)),
        )

    def _ranked(self, text: str) -> Sequence[Entry]:
        ranked = [(entry.rank(text), entry) for entry in self.entries]
        found = [(rank, entry) for rank, entry in ranked if rank is not None]
        return [entry for _, entry in sorted(found, key=lambda each: each[0])]


@frozen
class Hits:
    """
    What a search found.

    :ivar kinds: how many there were of each, whichever kind was left out; `standings`
        likewise.
    """

    entries: Sequence[Entry]
    kinds: Mapping[Kind, int]
    standings: Mapping[Standing, int]


@define(eq=False)
class _Reading:
    """A flake, and what came of reading it."""

    flake: Flake
    entries: tuple[Entry, ...] = ()
    #: locked flake ref that the entries are of
    locked: str | None = None
    stale: str | None = None
    error: str | None = None
    lack: str | None = None
    unnamed: tuple[str, ...] = ()
    #: not before; seconds since the epoch
    next_at: float = 0.0
    is_reading: bool = False


@define(eq=False)
class Catalogue:
    """
    What all flakes have.

    :ivar now: gives seconds since the epoch.
    """

    _registry: Registry
    _records: Records
    _clock: IReactorTime
    _now: Callable[[], float]
    _in_thread: InThread
    _readings: list[_Reading] = field(init=False)
    _once: Once[str, None] = field(init=False, factory=Once)

    def __attrs_post_init__(self) -> None:
        self._readings = [_Reading(flake) for flake in self._registry.flakes]
        # The registry has it last, as the one that any name may be of.
        self._readings.insert(0, self._readings.pop())

    async def view(self) -> View:
        """Give what there is, as far as it is known by now."""
        due = [reading for reading in self._readings if self._is_due(reading)]
        begun = [(reading, self._begin(reading)) for reading in due]
        await self._moment([done for reading, done in begun if not reading.locked])
        reports = self._registry.builds.under_way
        builds = {each.image.rpartition(":")[0]: each.id for each in reports}
        failed = await self._registry.builds.failed(self._locked())
        return await self._in_thread(self._look, builds, failed)

    def _locked(self) -> set[str]:
        """List what the flakes are locked to, as builds tell it."""
        locked = set()
        for reading in self._readings:
            look = reading.flake.last_look
            found = reading.locked, look and look.found
            locked |= {reading.flake.hide(each) for each in found if each}
        return locked

    def _is_due(self, reading: _Reading) -> bool:
        if reading.is_reading:
            return reading.locked is None
        if 0 <= reading.next_at - self._now() <= _RETRY_SECONDS:
            return False
        now = reading.flake.locked_now()
        return now is None or now.locked != reading.locked

    def _begin(self, reading: _Reading) -> Deferred[None]:
        return self._once.do(reading.flake.prefix, lambda: self._read(reading))

    async def _moment(self, works: Sequence[Deferred[None]]) -> None:
        waiting = DeferredList(works, consumeErrors=True)
        try:
            await waiting.addTimeout(_MOMENT_SECONDS, self._clock)
        except TimeoutError:
            pass

    async def _read(self, reading: _Reading) -> None:
        reading.is_reading = True
        seconds = _RETRY_SECONDS
        try:
            errand = self._registry.errand("the catalogue")
            located = await reading.flake.lock(errand)
            if located.locked != reading.locked:
                await self._list(reading, located.locked)
            reading.stale, reading.error, seconds = located.stale, None, _REST_SECONDS
        except RegistryError as e:
            flake = reading.flake.shown
            _log.warn("{flake} is not shown as it is: {error}", flake=flake, error=e)
            reading.error = e.detail
        except Exception:
            _log.failure("{flake} is not shown as it is", flake=reading.flake.shown)
            reading.error = "the registry failed, and its log says how"
        finally:
            reading.is_reading, reading.next_at = False, self._now() + seconds

    async def _list(self, reading: _Reading, locked: str) -> None:
        flake, lack = reading.flake, None
        errand = self._registry.errand("the catalogue")
        try:
            rows = await flake.listed(errand, locked, details=True)
        except EvaluationFailed as e:
            # One package can break what all say of themselves; their names are left.
            lack = e.detail
            errand = self._registry.errand("the names in the catalogue")
            rows = await flake.listed(errand, locked)
        reading.entries = await self._in_thread(read_entries, rows, flake)
        reading.unnamed = await self._in_thread(read_unnamed, rows, flake)
        reading.locked, reading.lack = locked, lack

    def _look(self, building: Mapping[str, str], failed: Mapping[str, str]) -> View:
        """Look up in the records what was built. Blocking."""
        names = self._records.names("")
        members: dict[str, list[str]] = {}
        for name in names:
            members.setdefault(name.rpartition("/")[0], []).append(name)
        ready: set[str] = set()
        for reading in self._readings:
            if reading.locked is not None:
                ready |= self._ready(reading.locked, reading.entries, members)
        standings = dict.fromkeys(names, Standing.OLDER)
        standings |= dict.fromkeys(failed, Standing.FAILED)
        standings |= dict.fromkeys(ready, Standing.READY)
        standings |= dict.fromkeys(building, Standing.BUILDING)
        builds = {n: i for n, i in failed.items() if n not in ready} | {**building}
        entries = list(chain.from_iterable(r.entries for r in self._readings))
        for entry in entries:
            if entry.kind is Kind.APPLICATION:
                images = entry.images or members.get(entry.path, ())
                found = [n for n in (*images, entry.path) if n in standings]
                foremost = min(
                    found, key=lambda n: _ORDER[standings[n]], default=entry.path
                )
                standings[entry.path] = standings.get(foremost, Standing.UNBUILT)
                if foremost in builds:
                    builds[entry.path] = builds[foremost]
                else:
                    builds.pop(entry.path, None)
        entries.sort(key=lambda entry: (entry.name, entry.path))
        shelves = [_shelf(reading) for reading in self._readings]
        return View(entries, shelves, standings, members, builds)

    def _ready(
        self,
        locked: str,
        entries: Collection[Entry],
        members: Mapping[str, Sequence[str]],
    ) -> set[str]:
        """List the repositories whose image is that of the revision. Blocking."""
        answers = self._records.answers(locked, [entry.question for entry in entries])
        derivations = {
            question: json.loads(answer)["derivation"]
            for question, answer in answers.items()
        }
        built = self._records.built(derivations.values())
        return {
            name
            for entry in entries
            if entry.question in derivations
            for name in entry.images or members.get(entry.path, ())
            if (name, derivations[entry.question]) in built
        }


def _shelf(reading: _Reading) -> Shelf:
    flake, locked = reading.flake, reading.locked
    return Shelf(
        flake.prefix,
        flake.shown,
        None if locked is None else flake.hide(locked),
        reading.is_reading,
        locked is not None,
        reading.error or reading.stale,
        reading.lack,
        reading.unnamed,
    )
