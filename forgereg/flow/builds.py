"""
From a flake to the images in an archive: what nix and the archive are asked for.

Each question is asked once for all who wait for the answer. What a locked flake
answered is remembered for ever, what a flake ref was resolved to for its time to live.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from attrs import define, field, frozen
from cachetools import TTLCache
from twisted.internet.defer import Deferred

from forgereg.archive.layout import Packed
from forgereg.archive.scan import scan
from forgereg.blobs.store import BlobStore
from forgereg.flow.families import ENDINGS, Wanted
from forgereg.flow.once import Once
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.build import Errand, Nix
from forgereg.nix.flake import (
    Command,
    catalogue_query,
    is_here,
    is_pure,
    masked,
    package_query,
)
from forgereg.nix.store import Store
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildFailed,
    BuildTimedOut,
    DiskFull,
    FlakeUnavailable,
    NameUnknown,
    RegistryError,
)
from forgereg.oci.reference import is_name, is_tag
from forgereg.records.records import Records, Source

_log = logger(__name__)

#: How long a flake that is a directory of this machine is trusted, in seconds: somebody
#: may be writing it, and to look costs little.
_HERE_SECONDS = 5.0
#: How long a flake may take to be reached where one can go on without, and how long it
#: is left alone if it cannot be, in seconds.
_LOOK_SECONDS, _RETRY_SECONDS = 60.0, 30.0
#: How long a failed build is not tried again, in seconds, and how many are remembered:
#: docker asks twice for whatever fails.
_FAILED_SECONDS, _MOST_FAILED = 10.0, 1000
#: How many names a message lists.
_NAMES_SHOWN = 20


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
        tags = {"latest"}
        if self.version is not None and is_tag(self.version):
            tags.add(self.version)
        return sorted(tags)


@define
class Builds:
    """
    One flake, as it is built.

    :ivar flake: flake ref as configured.
    :ivar ttl_seconds: how long what it is resolved to is trusted.
    :ivar timeout_seconds: for everything that one pull has nix do.
    :ivar max_bytes: of an archive when it is unpacked.
    :ivar now: gives seconds since the epoch; remembered between restarts.
    :ivar clock: gives seconds that only ever go forwards.
    :ivar in_reader: where archives are read: as many at a time as there are cores.
    """

    flake: str
    _command: Command
    _nix: Nix
    _store: Store
    _records: Records
    _blobs: BlobStore
    _ttl_seconds: float
    _timeout_seconds: float
    _max_bytes: int
    _now: Callable[[], float]
    _clock: Callable[[], float]
    _in_thread: InThread
    _in_reader: InThread
    _resolution: tuple[str, float] | None = field(init=False, default=None)
    _stopping: bool = field(init=False, default=False)
    _locks: Once[str, str] = field(init=False, factory=Once)
    _questions: Once[tuple[str, str], Any] = field(init=False, factory=Once)
    _outputs: Once[str, str] = field(init=False, factory=Once)
    _scans: Once[str, tuple[Packed, ...]] = field(init=False, factory=Once)
    #: derivation → what its build ended with, for clients that ask twice in a row
    _failed: TTLCache[str, tuple[type[RegistryError], str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._failed = TTLCache(_MOST_FAILED, _FAILED_SECONDS, timer=self._clock)

    def stop(self) -> None:
        """Give up what is being read."""
        self._stopping = True

    def errand(self, image: str) -> Errand:
        """Begin to ask on behalf of an image: its time runs from now."""
        deadline = self._clock() + self._timeout_seconds
        return Errand(image, deadline, self._timeout_seconds)

    def locked_now(self) -> str | None:
        """Give the locked flake ref, if it is known and still to be trusted."""
        if self._resolution is not None:
            locked, resolved_at = self._resolution
            ttl_seconds = self._ttl_seconds
            if is_here(locked):
                ttl_seconds = min(ttl_seconds, _HERE_SECONDS)
            if resolved_at <= self._now() < resolved_at + ttl_seconds:
                return locked
        return None

    async def lock(self, errand: Errand) -> str:
        """
        Give the locked flake ref.

        :raises RegistryError: as `Nix.lock`.
        """
        if self._resolution is None:
            known = await self._in_thread(self._records.resolution, self.flake)
            self._resolution = self._resolution or known
        return self.locked_now() or await self._look(errand)

    async def moved(self, errand: Errand, locked: str) -> str | None:
        """
        Look whether a flake that is a directory has changed before its time was over.

        :returns: what it is locked to now, if that is something else.
        :raises RegistryError: as `Nix.lock`.
        """
        if not is_here(locked):
            return None
        now = await self._look(errand)
        return None if now == locked else now

    def _look(self, errand: Errand) -> Deferred[str]:
        return self._locks.do(self.flake, lambda: self._lock(errand))

    async def _lock(self, errand: Errand) -> str:
        now = self._now()
        known = None if self._resolution is None else self._resolution[0]
        spare = None if known is None or is_here(known) else known
        if spare is not None:
            limit = min(self._timeout_seconds, _LOOK_SECONDS)
            errand = Errand(errand.image, self._clock() + limit, limit)
        try:
            locked = await self._nix.lock(errand, self.flake)
        except (FlakeUnavailable, BuildTimedOut):
            if spare is None:
                raise
            # Better the images that are known than none, until it can be reached.
            self._resolution = (spare, now + _RETRY_SECONDS - self._ttl_seconds)
            _log.warn("going on with {locked}", locked=masked(spare))
            return spare
        if locked != known:
            _log.info(
                "{flake} is now {locked}", flake=self.shown, locked=masked(locked)
            )
        self._resolution = (locked, now)
        await self._note(self._records.remember_resolution, self.flake, locked, now)
        return locked

    async def _note(self, remember: Callable[..., None], *what: object) -> None:
        """Remember what only saves time; a full disk must not be in the way."""
        try:
            await self._in_thread(remember, *what)
        except DiskFull as e:
            _log.warn("not remembered: {error}", error=e)

    @property
    def shown(self) -> str:
        """The flake ref as anyone may read it."""
        return masked(self.flake)

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
            case {"status": "no-package", "names": list(names)}:
                raise NameUnknown(_no_package(self.shown, wanted, names))
            case {"status": "ambiguous", "names": list(names)}:
                raise NameUnknown(
                    f"the flake {self.shown} has {' and '.join(names)}, which are one"
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
            answer = await self._nix.evaluate(errand, locked, query, builds=builds)
            # What is not there is not remembered: anyone may ask for anything.
            is_there = not isinstance(answer, dict) or answer.get("status") == "ok"
            if is_there and is_pure(locked):
                text = json.dumps(answer)
                await self._note(self._records.remember_answer, locked, question, text)
            return answer

        return await self._questions.do((locked, question), ask)

    async def images(
        self, errand: Errand, locked: str, wanted: Wanted, package: Package
    ) -> tuple[Source, tuple[Packed, ...]]:
        """
        Build what is wanted, read it, and keep its blobs.

        :raises NameUnknown: the application has no such image.
        :raises ArchiveInvalid: what was built cannot be served.
        :raises RegistryError: as `Nix.build`.
        """
        attribute = self._command.installable(package.attribute, wanted.output)
        output = await self._build(errand, locked, attribute, package.derivation)
        try:
            archive = await self._in_thread(self._find, output, wanted)
            source = Source(locked, attribute, package.derivation, archive)
            return source, await self._read(errand, archive)
        except (ArchiveInvalid, DiskFull) as e:
            _log.warn("{image}: {error}", image=errand.image, error=e)
            raise
        except FileNotFoundError as e:
            raise ArchiveInvalid(
                f"{errand.image} leads to {e.filename}, and nothing is there;"
                " does FORGE_STORE name the store that nix builds in?"
            ) from e

    async def read_again(self, errand: Errand, source: Source) -> None:
        """
        Bring back the blobs of an archive that was read before.

        :raises RegistryError: as `images`.
        """
        try:
            await self._read(errand, source.archive)
        except FileNotFoundError:
            _log.info("{image}: its archive is gone; building", image=errand.image)
            await self._build(
                errand, source.locked, source.attribute, source.derivation
            )
            try:
                await self._read(errand, source.archive)
            except FileNotFoundError as e:
                raise ArchiveInvalid(
                    f"{source.archive} is gone, and {source.attribute} is built as"
                    " something else by now: pull it by tag"
                ) from e

    async def _build(
        self, errand: Errand, locked: str, attribute: str, derivation: str
    ) -> str:
        failed = self._failed.get(derivation)
        if failed is not None:
            raise failed[0](failed[1])

        async def build() -> str:
            _log.info("{image}: building {drv}", image=errand.image, drv=derivation)
            start = self._clock()
            try:
                output = await self._nix.build(errand, locked, attribute, derivation)
            except (BuildFailed, BuildTimedOut) as e:
                self._failed[derivation] = type(e), e.detail
                raise
            _log.info(
                "{image}: nix gave {output} after {seconds:.1f} s",
                image=errand.image,
                output=output,
                seconds=self._clock() - start,
            )
            return output

        return await self._outputs.do(derivation, build)

    async def _read(self, errand: Errand, archive: str) -> tuple[Packed, ...]:
        async def read() -> tuple[Packed, ...]:
            start = self._clock()
            packed = await self._in_reader(self._scan, archive)
            _log.info(
                "{image}: {archive} read in {seconds:.1f} s",
                image=errand.image,
                archive=archive,
                seconds=self._clock() - start,
            )
            return packed

        return await self._scans.do(archive, read)

    def _scan(self, archive: str) -> tuple[Packed, ...]:
        """Read an archive. Blocking."""
        real = self._store.locate(archive)[1]
        try:
            with self._blobs.stage() as stage:
                return scan(real, stage, self._max_bytes, lambda: self._stopping)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("the registry's disk has no room for the layers") from e
            raise

    def _find(self, output: str, wanted: Wanted) -> str:
        """Say where in what was built the archive lies. Blocking."""
        path, real = self._store.locate(output)
        if wanted.member is None:
            return path
        if not real.is_dir():
            raise ArchiveInvalid(
                f"{wanted.attribute}.{wanted.output} is not a directory of archives"
            )
        entries = _entries(os.listdir(real))
        if wanted.member not in entries:
            raise NameUnknown(_no_member(wanted, entries))
        return self._store.locate(f"{path}/{entries[wanted.member]}")[0]


def _entries(names: list[str]) -> dict[str, str]:
    """
    Say which images a directory holds.

    :returns: by name, the file that it is in; names are lower case, and of several
        files for one name it is that with the first of `ENDINGS`, in lower case first.
    """
    found: dict[str, str] = {}
    for ending in ENDINGS:
        for name in sorted(names, reverse=True):
            image = name.removesuffix(ending)
            if name.endswith(ending) and is_name(image.lower()):
                found.setdefault(image.lower(), name)
    return found


def _no_package(flake: str, wanted: Wanted, names: list[str]) -> str:
    kind = "application" if wanted.output == "containers" else "package"
    shown = {n.lower(): n for n in names if not n.startswith("_")}
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


def _no_member(wanted: Wanted, entries: dict[str, str]) -> str:
    images = ", ".join(sorted(entries)[:_NAMES_SHOWN])
    hint = f"it has: {images}" if images else "it has none at all"
    return (
        f"the application {wanted.attribute!r} has no image {wanted.member!r}; {hint}"
    )
