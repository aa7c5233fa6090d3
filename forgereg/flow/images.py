"""
From a tag to its image: which locked flake it means, what is there, and building it.

First the flake as configured, then git's refs. What is known is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from attrs import define, evolve, field, frozen
from cachetools import LRUCache

from forgereg.archive.layout import choose
from forgereg.flow.archives import Archives
from forgereg.flow.build import Build
from forgereg.flow.builds import Builds
from forgereg.flow.families import Wanted
from forgereg.flow.flakes import Flake, Located
from forgereg.flow.packages import Package
from forgereg.flow.policy import Policy
from forgereg.flow.threads import InThread, note
from forgereg.logs import logger
from forgereg.nix.flake import Command, is_pure
from forgereg.nix.refs import LATEST, is_revision
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildCancelled,
    BuildTimedOut,
    EvaluationFailed,
    FlakeUnavailable,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
)
from forgereg.oci.manifest import Manifest
from forgereg.oci.reference import Digest, Name, Tag
from forgereg.records.builds import BuildRecords
from forgereg.records.records import Records, Source
from forgereg.records.revisions import Revisions

_log = logger(__name__)

#: What is wrong with the flake as configured where a git ref may be fine.
_PERHAPS_IN_GIT = (
    BuildTimedOut,
    EvaluationFailed,
    FlakeUnavailable,
    ManifestUnknown,
    NameUnknown,
)


@frozen
class Wish:
    """An image that is asked for, and the flake and attribute that it is of."""

    name: Name
    tag: Tag
    flake: Flake
    wanted: Wanted

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"


@frozen
class Forms:
    """
    The manifests of an image, one for each form, the preferred one first.

    :ivar stale: why they may be out of date; None where they are not.
    :ivar output: what was built, where it is a directory that is wanted, and no image.
    """

    manifests: tuple[Manifest, ...]
    stale: str | None = None
    output: str = ""

    def choose(self, accepted: Sequence[str]) -> Manifest | None:
        """Give the form that a client likes best, by media types in that order."""
        forms = {form.media_type: form for form in self.manifests}
        return next((forms[each] for each in accepted if each in forms), None)


def _way(now: Located | None, located: Located) -> str:
    """
    Name all that led to what a tag means in git.

    :param now: the flake as configured, which has no version of that name; None for a
        revision, which needs no such thing.
    """
    return f"{now.locked if now else ''} {located.locked}"


@define(eq=False)
class Images:
    """
    The images of all flakes.

    :ivar now: gives seconds since the epoch.
    :ivar cache_size: how many tags are known in memory.
    """

    _builds: Builds
    _archives: Archives
    _records: Records
    _build_records: BuildRecords
    _revisions: Revisions
    _command: Command
    _policy: Policy
    _now: Callable[[], float]
    _in_thread: InThread
    _cache_size: int
    #: locked flake refs that led there, name, tag → manifests
    _tagged: LRUCache[tuple[str, Name, Tag], Forms] = field(init=False)
    #: name, tag → derivation, as the records know it to be the last that worked
    _good: LRUCache[tuple[Name, Tag], str] = field(init=False)
    #: how often something was forgotten
    _forgotten: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._tagged = LRUCache(self._cache_size)
        self._good = LRUCache(self._cache_size)

    def forget(self) -> None:
        """Look again into the records: something was forgotten there."""
        self._forgotten += 1
        self._clear()

    def _clear(self) -> None:
        self._tagged.clear()
        self._good.clear()

    def known(self, wish: Wish) -> Forms | None:
        """Give what is known without asking anyone."""
        name, tag, flake = wish.name, wish.tag, wish.flake
        now = None
        if not is_revision(tag.text):
            now = flake.locked_now()
            if now is None:
                return None
            forms = self._tagged.get((now.locked, name, tag))
            if forms is not None:
                return evolve(forms, stale=now.stale)
        located = flake.located_now(tag)
        if located is None:
            return None
        forms = self._tagged.get((_way(now, located), name, tag))
        return None if forms is None else evolve(forms, stale=located.stale)

    async def prepare(self, build: Build, wish: Wish) -> Forms:
        """
        Give an image's manifests, building it if need be.

        :raises RegistryError: it cannot be had, nor is an older one to be had instead.
        """
        forgotten = self._forgotten
        try:
            return await self._resolve(build, wish)
        except RegistryError as e:
            good = await self._last_good(wish, e)
            if not good:
                raise
            _log.warn(
                "{wish} goes on meaning the last image that worked: {error}",
                wish=wish,
                error=e,
            )
            build.failed = e
            return Forms(good, e.detail)
        finally:
            if forgotten != self._forgotten:
                self._clear()  # it may have been this image

    async def _last_good(
        self, wish: Wish, error: RegistryError
    ) -> tuple[Manifest, ...]:
        if not self._policy.goes_on(error):
            return ()
        name, tag = wish.name, wish.tag
        derivation = await self._in_thread(self._build_records.last_good, name, tag)
        if derivation is None:
            return ()
        return await self._in_thread(self._records.tagged, name, derivation, tag)

    async def _resolve(self, build: Build, wish: Wish) -> Forms:
        flake, tag = wish.flake, wish.tag
        configured: RegistryError | None = None
        now: Located | None = None
        if not is_revision(tag.text):
            try:
                return await self._configured(build, wish)
            except _PERHAPS_IN_GIT as e:
                if tag.text == LATEST or not flake.patterns:
                    raise
                configured = e
            now = flake.locked_now()
        try:
            located = await flake.locate(build, tag)
        except RegistryError as e:
            raise e from configured
        if located is None:
            raise configured or ManifestUnknown(
                f"{wish.name} has no tag {tag.text!r}: no pattern lets revisions of"
                f" {flake.shown} be pulled"
            )
        package = await self._package(build, wish, located.locked)
        forms = await self._built(build, wish, located.locked, package, [tag.text])
        self._tagged[_way(now, located), wish.name, tag] = forms
        return evolve(forms, stale=located.stale)

    async def _configured(self, build: Build, wish: Wish) -> Forms:
        located = await wish.flake.lock(build)
        locked = located.locked
        try:
            forms = await self._locked(build, wish, locked)
        except BuildCancelled:
            raise
        except RegistryError as first:
            # Whoever has just changed the flake on this machine wants it as it is now.
            try:
                moved = await wish.flake.moved(build, locked)
            except RegistryError as second:
                # What was not there may be in what cannot be read.
                if isinstance(first, NameUnknown | ManifestUnknown):
                    raise second from first
                raise first from second
            if moved is None:
                raise first
            locked = moved
            forms = await self._locked(build, wish, locked)
        if is_pure(locked):
            self._tagged[locked, wish.name, wish.tag] = forms
        return evolve(forms, stale=located.stale)

    async def _locked(self, build: Build, wish: Wish, locked: str) -> Forms:
        package = await self._package(build, wish, locked)
        if wish.tag.text not in package.tags:
            refs = (
                "; nor is it a git tag, a branch or a full revision that may be pulled"
            )
            raise ManifestUnknown(
                f"{wish.name} has no tag {wish.tag.text!r}; it has:"
                f" {', '.join(package.tags)}{refs if wish.flake.patterns else ''}"
            )
        return await self._built(build, wish, locked, package, package.tags)

    async def _package(self, build: Build, wish: Wish, locked: str) -> Package:
        build.locked = wish.flake.hide(locked)
        return await wish.flake.package(build, locked, wish.wanted)

    async def _built(
        self,
        build: Build,
        wish: Wish,
        locked: str,
        package: Package,
        tags: Sequence[str],
    ) -> Forms:
        """
        Give an image's manifests, building it if it is not there.

        :param tags: all that lead to it: an archive is not read again for another one.
        """
        name, tag, derivation = wish.name, wish.tag, package.derivation
        attribute = self._command.installable(package.attribute, wish.wanted.output)

        async def realise() -> str:
            flake = wish.flake
            return await self._realise(build, flake, locked, attribute, derivation)

        if wish.wanted.is_directory:
            return Forms((), output=await realise())
        forms = await self._in_thread(self._records.tagged, name, derivation, tag)
        if not forms:
            output = await realise()
            archive = await self._archives.find(build, output, wish.wanted)
            read = await self._archives.read_built(build, archive)
            prefix, stamp = wish.flake.prefix, read.stamp
            source = Source(locked, attribute, derivation, archive, prefix, stamp)
            for text in tags:
                packed = choose(read.reading.images, name, Tag(text))
                await self._in_thread(
                    self._records.remember_image,
                    name,
                    Tag(text),
                    source,
                    packed.forms,
                    {blob: read.reading.places[blob.digest] for blob in packed.blobs},
                    packed.parts,
                )
                if text == tag.text:
                    forms = packed.forms
            made = source, self._now(), build.nix_seconds
            await note(self._in_thread, self._revisions.note_making, *made)
        if self._good.get((name, tag)) != derivation:
            self._good[name, tag] = derivation
            remember = self._build_records.remember_good
            await note(self._in_thread, remember, name, tag, derivation)
            meant = name, tag, derivation, forms[0].digest, self._now()
            await note(self._in_thread, self._revisions.note, *meant)
        return Forms(forms)

    async def _realise(
        self, build: Build, flake: Flake, locked: str, attribute: str, derivation: str
    ) -> str:
        return await self._builds.realise(
            build,
            derivation,
            lambda: flake.build(build, locked, attribute, derivation),
        )

    async def read_again(
        self, build: Build, flake: Flake, source: Source
    ) -> Collection[Digest]:
        """
        Find the blobs of an archive again, building it if it is gone.

        :returns: those that it has.
        :raises RegistryError: it cannot be had again.
        """
        try:
            read = await self._archives.read(build, source.archive)
        except FileNotFoundError:
            _log.info("{image}: its archive is gone; building", image=build.image)
            build.locked = flake.hide(source.locked)
            await self._realise(
                build, flake, source.locked, source.attribute, source.derivation
            )
            try:
                read = await self._archives.read(build, source.archive)
            except FileNotFoundError as e:
                raise ArchiveInvalid(
                    f"{source.archive} is gone, and {source.attribute} is built as"
                    " something else by now: pull it by tag"
                ) from e
        now = evolve(source, stamp=read.stamp)
        places = read.reading.places
        await self._in_thread(self._records.note_places, now, places)
        return places.keys()
