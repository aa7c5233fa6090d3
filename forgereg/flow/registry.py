"""
What a client can ask for, and how it comes about.

A tag becomes a locked flake ref, that and the name a derivation, that an archive in
the Nix store, that an image and its manifests. Each step is remembered, is done once
for all who wait for it, and goes on when they leave.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import BinaryIO

from attrs import define, field, frozen
from cachetools import LRUCache
from twisted.internet.defer import Deferred

from forgereg.archive.layout import choose
from forgereg.blobs.store import BlobStore
from forgereg.flow.archives import Archives
from forgereg.flow.build import Build
from forgereg.flow.builds import Builds
from forgereg.flow.errand import Errand
from forgereg.flow.families import Wanted, image_name, parse_wanted
from forgereg.flow.flakes import Flake, Located, Package
from forgereg.flow.policy import Policy
from forgereg.flow.report import Report
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.flake import Command, is_pure
from forgereg.nix.refs import LATEST, is_revision
from forgereg.oci.errors import (
    ArchiveInvalid,
    BlobUnknown,
    BuildCancelled,
    BuildTimedOut,
    EvaluationFailed,
    FlakeUnavailable,
    ManifestUnknown,
    NameUnknown,
    ReferrersUnknown,
    RegistryError,
)
from forgereg.oci.manifest import Manifest, write_manifests
from forgereg.oci.media import MANIFESTS
from forgereg.oci.reference import Digest, Name, Tag, is_name
from forgereg.records.builds import BuildRecords
from forgereg.records.records import Records, Source

_log = logger(__name__)

#: Tags by which clients look for signatures and other referrers of a manifest.
#: Source: OCI distribution-spec v1.1, "Referrers Tag Schema"; cosign.
_REFERRERS_TAG = re.compile(r"sha(256|512)-[a-f0-9]+.*")


@frozen
class OpenBlob:
    """
    A blob that can be sent.

    :ivar file: stands at its begin; whoever has it closes it.
    :ivar size: in bytes.
    """

    file: BinaryIO
    size: int


@frozen
class Found:
    """
    A manifest that was asked for.

    :ivar stale: why it may be out of date; None where it is not.
    """

    manifest: Manifest
    stale: str | None = None


@frozen
class _Forms:
    """The forms of one manifest, the preferred one first."""

    forms: tuple[Manifest, ...]
    stale: str | None = None


#: What is wrong with the flake as configured where a git ref may be fine.
_PERHAPS_IN_GIT = (
    BuildTimedOut,
    EvaluationFailed,
    FlakeUnavailable,
    ManifestUnknown,
    NameUnknown,
)


def _way(flake: Flake, tag: Tag, located: Located) -> str:
    """
    Name all that led to what a tag means in git.

    A ref means nothing where the flake as configured has a version of that name.
    """
    now = None if is_revision(tag.text) else flake.locked_now()
    return f"{now.locked if now else ''} {located.locked}"


def _ignore(name: Name, digest: Digest, tag: Tag | None) -> None:
    pass


@define(eq=False)
class Registry:
    """
    The registry's content: all of it comes out of flakes.

    :ivar flakes: those with longer prefixes first; the last has none.
    :ivar cache_size: how many manifests are kept in memory.
    :ivar pulled: told of each manifest that is answered.
    """

    flakes: Sequence[Flake]
    builds: Builds
    _archives: Archives
    _records: Records
    _blobs: BlobStore
    _command: Command
    _policy: Policy
    _in_thread: InThread
    _cache_size: int
    _pulled: Callable[[Name, Digest, Tag | None], None] = _ignore
    _builds_known: BuildRecords = field(init=False)
    #: locked flake refs that led there, name, tag → manifests, the preferred form first
    _tagged: LRUCache[tuple[str, Name, Tag], tuple[Manifest, ...]] = field(init=False)
    _manifests: LRUCache[tuple[Name, Digest], Manifest] = field(init=False)
    _good: LRUCache[tuple[Name, Tag], str] = field(init=False)
    #: how often something was forgotten
    _forgotten: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._builds_known = BuildRecords(self._records.engine)
        self._tagged = LRUCache(self._cache_size)
        self._manifests = LRUCache(self._cache_size)
        self._good = LRUCache(self._cache_size)

    def _find(self, name: Name) -> tuple[Flake, Wanted]:
        """
        Say which flake a name is of, and what it asks of it.

        :raises NameUnknown: it is of no family that is served here.
        """
        flake = next(f for f in self.flakes if name.text.startswith(f.path))
        return flake, parse_wanted(name, flake.prefix)

    async def manifest(
        self,
        name: Name,
        reference: Tag | Digest,
        accepted: Sequence[str],
        client: str = "",
    ) -> Found:
        """
        Give a manifest, building what it describes if need be.

        :param accepted: the media types that the client reads, those it likes best
            first; a digest is answered whichever form it is of.
        :param client: who asks, for the sake of fairness.
        :raises ManifestUnknown: there is none, or not in a form that is accepted.
        :raises RegistryError: it cannot be had, and the error says why.
        """
        if not accepted:
            raise ManifestUnknown(
                f"manifests are served as {' or '.join(MANIFESTS)},"
                " and the client accepts neither"
            )
        if isinstance(reference, Digest):
            found = await self._by_digest(name, reference)
            self._pulled(name, reference, None)
            return Found(found)
        tagged = await self._by_tag(name, reference, client)
        forms = {form.media_type: form for form in tagged.forms}
        for media_type in accepted:
            if media_type in forms:
                self._pulled(name, forms[media_type].digest, reference)
                return Found(forms[media_type], tagged.stale)
        raise ManifestUnknown(
            f"{name}:{reference} can only be written as {' or '.join(forms)},"
            " which the client does not accept"
        )

    async def _by_digest(self, name: Name, digest: Digest) -> Manifest:
        known = self._manifests.get((name, digest))
        if known is None:
            known = await self._in_thread(self._records.manifest, name, digest)
        if known is None:
            raise ManifestUnknown(f"{name} has no manifest {digest}")
        self._manifests[name, digest] = known
        return known

    async def _by_tag(self, name: Name, tag: Tag, client: str) -> _Forms:
        flake, wanted = self._find(name)
        if _REFERRERS_TAG.fullmatch(tag.text):
            raise ReferrersUnknown(f"{name} has no signatures or other referrers")
        known = self._known(flake, name, tag)
        if known is not None:
            return known
        return await self._pull(flake, wanted, name, tag, client)[1]

    def _known(self, flake: Flake, name: Name, tag: Tag) -> _Forms | None:
        """Give what is known without asking anyone."""
        now = flake.locked_now()
        if now is None and not is_revision(tag.text):
            return None
        forms = self._tagged.get((now.locked, name, tag)) if now else None
        if now is not None and forms is not None:
            return _Forms(forms, now.stale)
        located = flake.located_now(tag)
        if located is None:
            return None
        forms = self._tagged.get((_way(flake, tag, located), name, tag))
        return None if forms is None else _Forms(forms, located.stale)

    def _pull(
        self,
        flake: Flake,
        wanted: Wanted,
        name: Name,
        tag: Tag,
        client: str,
        *,
        is_wanted: bool = False,
    ) -> tuple[Build, Deferred[_Forms]]:
        return self.builds.pull(
            (name, tag),
            f"{name}:{tag}",
            client,
            lambda build: self._prepare(build, flake, wanted, name, tag),
            is_wanted=is_wanted,
        )

    def start(self, name: Name, tag: Tag, client: str) -> Report:
        """
        Have an image built, and do not wait for it.

        :raises NameUnknown: it is of no family that is served here.
        """
        flake, wanted = self._find(name)
        build, done = self._pull(flake, wanted, name, tag, client, is_wanted=True)
        done.addErrback(lambda failure: failure.trap(RegistryError) and None)
        return build.report()

    async def warm(self, name: Name, tag: Tag, client: str) -> None:
        """
        Have an image there before anyone asks.

        :raises RegistryError: it cannot be had.
        """
        await self._by_tag(name, tag, client)

    def flake_of(self, name: Name) -> Flake | None:
        """Give the flake that a name is of; None where there is none."""
        try:
            return self._find(name)[0]
        except NameUnknown:
            return None

    def forget(self) -> None:
        """Look again into the records: something was forgotten there."""
        self._forgotten += 1
        for memory in (self._tagged, self._manifests, self._good):
            memory.clear()

    def waiting_for(self, name: Name, tag: Tag) -> Report | None:
        """Tell of the build that those wait for who ask for a tag."""
        build = self.builds.find((name, tag))
        return None if build is None or build.state is None else build.report()

    async def _prepare(
        self, build: Build, flake: Flake, wanted: Wanted, name: Name, tag: Tag
    ) -> _Forms:
        forgotten = self._forgotten
        try:
            found = await self._resolve(build, flake, wanted, name, tag)
        except RegistryError as e:
            good = await self._last_good(name, tag, e)
            if not good:
                raise
            _log.warn(
                "{name}:{tag} goes on meaning the last image that worked: {error}",
                name=name,
                tag=tag,
                error=e,
            )
            build.failed = e
            return _Forms(good, e.detail)
        for form in found.forms:
            self._manifests[name, form.digest] = form
        if forgotten != self._forgotten:
            self.forget()  # it may have been this image
        return found

    async def _last_good(
        self, name: Name, tag: Tag, error: RegistryError
    ) -> tuple[Manifest, ...]:
        if not self._policy.goes_on(error):
            return ()
        derivation = await self._in_thread(self._builds_known.last_good, name, tag)
        if derivation is None:
            return ()
        return await self._in_thread(self._records.tagged, name, derivation, tag)

    async def _resolve(
        self, build: Build, flake: Flake, wanted: Wanted, name: Name, tag: Tag
    ) -> _Forms:
        """Go from a tag to its image: first the flake as configured, then git's refs."""
        configured: RegistryError | None = None
        if not is_revision(tag.text):
            try:
                return await self._configured(build, flake, wanted, name, tag)
            except _PERHAPS_IN_GIT as e:
                if tag.text == LATEST or not flake.patterns:
                    raise
                configured = e
        try:
            located = await flake.locate(build, tag)
        except RegistryError as e:
            raise e from configured
        if located is None:
            raise configured or ManifestUnknown(
                f"{name} has no tag {tag.text!r}: no pattern lets revisions of"
                f" {flake.shown} be pulled"
            )
        locked = located.locked
        package = await self._package(build, flake, locked, wanted)
        forms = await self._built(
            build, flake, locked, name, tag, wanted, package, [tag.text]
        )
        self._tagged[_way(flake, tag, located), name, tag] = forms
        return _Forms(forms, located.stale)

    async def _configured(
        self, build: Build, flake: Flake, wanted: Wanted, name: Name, tag: Tag
    ) -> _Forms:
        located = await flake.lock(build)
        locked = located.locked
        try:
            forms = await self._locked(build, flake, locked, name, tag, wanted)
        except BuildCancelled:
            raise
        except RegistryError as first:
            # Whoever has just changed the flake on this machine wants it as it is now.
            try:
                moved = await flake.moved(build, locked)
            except RegistryError as second:
                # What was not there may be in what cannot be read.
                if isinstance(first, NameUnknown | ManifestUnknown):
                    raise second from first
                raise first from second
            if moved is None:
                raise first
            locked = moved
            forms = await self._locked(build, flake, locked, name, tag, wanted)
        if is_pure(locked):
            self._tagged[locked, name, tag] = forms
        return _Forms(forms, located.stale)

    async def _package(
        self, build: Build, flake: Flake, locked: str, wanted: Wanted
    ) -> Package:
        build.locked = flake.hide(locked)
        return await flake.package(build, locked, wanted)

    async def _locked(
        self,
        build: Build,
        flake: Flake,
        locked: str,
        name: Name,
        tag: Tag,
        wanted: Wanted,
    ) -> tuple[Manifest, ...]:
        package = await self._package(build, flake, locked, wanted)
        if tag.text not in package.tags:
            raise ManifestUnknown(
                f"{name} has no tag {tag.text!r}; it has: {', '.join(package.tags)}"
            )
        return await self._built(
            build, flake, locked, name, tag, wanted, package, package.tags
        )

    async def _built(
        self,
        build: Build,
        flake: Flake,
        locked: str,
        name: Name,
        tag: Tag,
        wanted: Wanted,
        package: Package,
        tags: Sequence[str],
    ) -> tuple[Manifest, ...]:
        """
        Give an image's manifests, building it if it is not there.

        :param tags: all that lead to it: an archive is not read again for another one.
        """
        derivation = package.derivation
        forms = await self._in_thread(self._records.tagged, name, derivation, tag)
        if not forms:
            attribute = self._command.installable(package.attribute, wanted.output)
            output = await self._realise(build, flake, locked, attribute, derivation)
            archive = await self._archives.find(build, output, wanted)
            packed = await self._archives.read_built(build, archive)
            source = Source(locked, attribute, derivation, archive)
            for text in tags:
                image = choose(packed, name, Tag(text))
                written = write_manifests(image)
                remember = self._records.remember_image
                await self._in_thread(remember, name, Tag(text), source, image, written)
                if text == tag.text:
                    forms = written
        if self._good.get((name, tag)) != derivation:
            self._good[name, tag] = derivation
            await flake.note(self._builds_known.remember_good, name, tag, derivation)
        return forms

    async def _realise(
        self, build: Build, flake: Flake, locked: str, attribute: str, derivation: str
    ) -> str:
        return await self.builds.realise(
            build,
            derivation,
            lambda: flake.build(build, locked, attribute, derivation),
        )

    async def blob(self, name: Name, digest: Digest, client: str = "") -> OpenBlob:
        """
        Open a blob, bringing it back if its file is gone.

        :raises BlobUnknown: no manifest of this name that was ever answered has it.
        :raises RegistryError: it is gone and cannot be had again.
        """
        size, source, file = await self._in_thread(self._open, name, digest)
        if file is None:
            _log.info("{name}: blob {digest} is gone", name=name, digest=digest)
            key = (name, source.archive)
            work = self._read_again
            image = f"{name}@{digest}"
            await self.builds.pull(key, image, client, lambda b: work(b, name, source))[
                1
            ]
            file = await self._in_thread(self._blobs.open, digest, size)
        if file is None:
            # It is built differently each time: let the tags mean what it is now.
            self._tagged.clear()
            await self._in_thread(self._records.forget_tags, source.derivation)
            raise ArchiveInvalid(
                f"{source.archive} was built anew and no longer holds {digest};"
                " pull it by tag"
            )
        return OpenBlob(file, size)

    async def blob_size(self, name: Name, digest: Digest) -> int:
        """
        Say how large a blob is, though its file may be gone.

        :raises BlobUnknown: no manifest of this name that was ever answered has it.
        """
        return (await self._in_thread(self._find_blob, name, digest))[0]

    def _find_blob(self, name: Name, digest: Digest) -> tuple[int, Source]:
        """Look a blob up. Blocking."""
        known = self._records.blob(name, digest)
        if known is None:
            raise BlobUnknown(f"{name} has no blob {digest}")
        return known

    def _open(self, name: Name, digest: Digest) -> tuple[int, Source, BinaryIO | None]:
        """Look a blob up and open it. Blocking."""
        size, source = self._find_blob(name, digest)
        return size, source, self._blobs.open(digest, size)

    async def _read_again(self, build: Build, name: Name, source: Source) -> None:
        """Bring back the blobs of an archive that was read before."""
        try:
            await self._archives.read(build, source.archive)
            return
        except FileNotFoundError:
            _log.info("{image}: its archive is gone; building", image=build.image)
        flake, _ = self._find(name)
        build.locked = flake.hide(source.locked)
        await self._realise(
            build, flake, source.locked, source.attribute, source.derivation
        )
        try:
            await self._archives.read(build, source.archive)
        except FileNotFoundError as e:
            raise ArchiveInvalid(
                f"{source.archive} is gone, and {source.attribute} is built as"
                " something else by now: pull it by tag"
            ) from e

    def errand(self, what: str, client: str = "") -> Errand:
        """Begin to ask about something that is not built."""
        return Errand(what, [client], self._policy.timeout_seconds)

    async def tags(self, name: Name, client: str = "") -> list[str]:
        """
        List the tags of an image, sorted, without building it.

        :raises NameUnknown: the flake has no such image.
        """
        flake, wanted = self._find(name)
        errand = self.errand(str(name), client)
        located = await flake.lock(errand)
        tags = (await flake.package(errand, located.locked, wanted)).tags
        try:
            return sorted({*tags, *await flake.git_tags(errand)})
        except FlakeUnavailable as e:
            _log.warn("{name}: git refs are not listed: {error}", name=name, error=e)
            return tags

    async def catalogue(self, client: str = "") -> list[str]:
        """
        List the repositories, sorted, from what the flakes say of themselves.

        An application whose images are not known without a build is listed as
        ``applications/<application>``, beside those images of it that were pulled. A
        flake that cannot be had does not hide the others.

        :raises RegistryError: no flake can be listed.
        """

        async def attempt(flake: Flake) -> set[str] | RegistryError:
            try:
                return await self._listed(flake, client)
            except RegistryError as e:
                _log.warn("{flake} is not listed: {error}", flake=flake.shown, error=e)
                return e

        attempts = [Deferred.fromCoroutine(attempt(flake)) for flake in self.flakes]
        found = [await attempted for attempted in attempts]
        listed = [each for each in found if not isinstance(each, RegistryError)]
        if not listed and isinstance(found[-1], RegistryError):
            raise found[-1]
        return sorted(filter(is_name, set().union(*listed)))

    async def _listed(self, flake: Flake, client: str) -> set[str]:
        errand = self.errand("the catalogue", client)
        located = await flake.lock(errand)
        prefix = flake.path
        names: set[str] = set()
        for package in await flake.listed(errand, located.locked):
            name = package["name"].lower()
            if package["image"]:
                names.add(f"{prefix}packages/{name}")
            if package["containers"]:
                application = f"{prefix}applications/{name}"
                images = [*filter(None, map(image_name, package["entries"]))]
                names.update(f"{application}/{image.lower()}" for image in images)
                if not images:
                    names.add(application)
                    known = self._records.names
                    names.update(await self._in_thread(known, f"{application}/"))
        return names
