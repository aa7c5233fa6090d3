"""
What a client can ask for, and how it comes about.

A tag becomes a locked flake ref, that and the name a derivation, that an archive in
the Nix store, that an image and its manifests. Each step is remembered, is done once
for all who wait for it, and goes on when they leave.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import closing

from attrs import define, field, frozen
from cachetools import LRUCache
from twisted.internet.defer import Deferred

from forgereg.flow.build import Build
from forgereg.flow.builds import Builds
from forgereg.flow.encodings import Encodings
from forgereg.flow.errand import Errand
from forgereg.flow.families import (
    IMAGE,
    Wanted,
    images_in,
    parse_application,
    parse_wanted,
    paths_listed,
)
from forgereg.flow.flakes import Flake
from forgereg.flow.images import Forms, Images, Wish
from forgereg.flow.layers import Layers
from forgereg.flow.policy import Policy
from forgereg.flow.report import Report
from forgereg.flow.source import Source
from forgereg.flow.threads import InThread, or_drop
from forgereg.logs import logger
from forgereg.metrics import Cache, Metrics
from forgereg.nix.refs import LATEST
from forgereg.oci.errors import (
    ArchiveInvalid,
    BlobUnknown,
    EvaluationFailed,
    FlakeUnavailable,
    ManifestUnknown,
    NameUnknown,
    ReferrersUnknown,
    RegistryError,
)
from forgereg.oci.manifest import Manifest
from forgereg.oci.media import MANIFESTS
from forgereg.oci.reference import Digest, Name, Tag, is_name
from forgereg.records.records import KnownBlob, Records

_log = logger(__name__)

#: Tags by which clients look for signatures and other referrers of a manifest.
#: Source: OCI distribution-spec v1.1, "Referrers Tag Schema"; cosign.
_REFERRERS_TAG = re.compile(r"sha(256|512)-[a-f0-9]+.*")


@frozen
class Found:
    """
    A manifest that was asked for.

    :ivar forms: all that the tag can mean; the manifest is one of them.
    :ivar stale: why it may be out of date; None where it is not.
    """

    manifest: Manifest
    forms: tuple[Manifest, ...] = ()
    stale: str | None = None


@frozen
class Blob:
    """
    A blob that can be sent; whoever has it closes it.

    :ivar size: of the plain bytes.
    :ivar coding: in which its source gives them; None for as they are.
    """

    source: Source
    size: int
    coding: str | None = None

    def close(self) -> None:
        """Let go of it."""
        self.source.close()


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
    _images: Images
    _records: Records
    _layers: Layers
    _encodings: Encodings
    _policy: Policy
    _in_thread: InThread
    _cache_size: int
    _pulled: Callable[[Name, Digest, Tag | None], None] = _ignore
    _metrics: Metrics = field(factory=Metrics)
    _manifests: LRUCache[tuple[Name, Digest], Manifest] = field(init=False)
    _in_memory: Cache = field(init=False)
    _on_disk: Cache = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._manifests = LRUCache(self._cache_size)
        self._in_memory = self._metrics.cache("manifest")
        self._on_disk = self._metrics.cache("blob")

    def _find(self, name: Name) -> tuple[Flake, Wanted]:
        """
        Say which flake a name is of, and what it asks of it.

        :raises NameUnknown: it is of no family that is served here.
        """
        flake = self.flake_for(name)
        return flake, parse_wanted(name, flake.prefix)

    def flake_for(self, name: Name) -> Flake:
        """Give the flake whose names begin as this one does."""
        return next(f for f in self.flakes if name.text.startswith(f.path))

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
                " and the client accepts none of these"
            )
        if isinstance(reference, Digest):
            found = await self._by_digest(name, reference)
            self._pulled(name, reference, None)
            return Found(found)
        forms = await self._by_tag(name, reference, client)
        chosen = forms.choose(accepted)
        if chosen is None:
            written = " or ".join(form.media_type for form in forms.manifests)
            raise ManifestUnknown(
                f"{name}:{reference} can only be written as {written},"
                " which the client does not accept"
            )
        self._pulled(name, chosen.digest, reference)
        return Found(chosen, forms.manifests, forms.stale)

    def repeats(
        self, found: Found, name: Name, reference: Tag | Digest, accepted: Sequence[str]
    ) -> bool:
        """
        Say whether what was given once would be given again, without asking anyone.

        If so, it counts as a pull.
        """
        manifest, stale, tag = found.manifest, found.stale, None
        if isinstance(reference, Digest):
            again = self._manifests.get((name, reference))
        else:
            tag = reference
            forms = self._images.known(Wish(name, tag, *self._find(name)))
            if forms is None or forms.stale != stale:
                return False
            again = forms.choose(accepted)
        if again != manifest:
            return False
        self._pulled(name, manifest.digest, tag)
        return True

    async def last_forms(self, name: Name) -> tuple[Manifest, ...]:
        """Give the manifests of the last image that was built under a name, if any."""
        return await self._in_thread(self._records.last_forms, name)

    async def _by_digest(self, name: Name, digest: Digest) -> Manifest:
        known = self._manifests.get((name, digest))
        self._in_memory.count(known is not None)
        if known is None:
            known = await self._in_thread(self._records.manifest, name, digest)
        if known is None:
            raise ManifestUnknown(f"{name} has no manifest {digest}")
        self._manifests[name, digest] = known
        return known

    async def _by_tag(self, name: Name, tag: Tag, client: str) -> Forms:
        wish = Wish(name, tag, *self._find(name))
        if _REFERRERS_TAG.fullmatch(tag.text):
            raise ReferrersUnknown(f"{name} has no signatures or other referrers")
        forms = self._images.known(wish)
        self._in_memory.count(forms is not None)
        if forms is None:
            key = await self._key(wish, client)
            forms = await self._pull(wish, client, key)[1]
            for manifest in forms.manifests:
                self._manifests[name, manifest.digest] = manifest
        return forms

    async def _key(self, wish: Wish, client: str) -> tuple[object, ...]:
        """Name what a pull is the same work as: not what a flake was that has moved."""
        key = (wish.name, wish.tag)
        build, flake = self.builds.find(key), wish.flake
        if build is None or build.locked is None or wish.tag.text != LATEST:
            return key
        try:
            now = await flake.lock(self.errand(str(wish), client))
        except RegistryError:
            return key
        return key if flake.hide(now.locked) == build.locked else (*key, now.locked)

    def _pull(
        self,
        wish: Wish,
        client: str,
        key: tuple[object, ...],
        *,
        is_wanted: bool = False,
    ) -> tuple[Build, Deferred[Forms]]:
        return self.builds.pull(
            key,
            str(wish),
            client,
            lambda build: self._images.prepare(build, wish),
            is_wanted=is_wanted,
        )

    def start(self, name: Name, tag: Tag, client: str) -> Report:
        """
        Have an image built, and do not wait for it.

        :raises NameUnknown: it is of no family that is served here.
        """
        wish = Wish(name, tag, *self._find(name))
        build, done = self._pull(wish, client, (name, tag), is_wanted=True)
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
        self._images.forget()
        self._manifests.clear()

    def waiting_for(self, name: Name, tag: Tag) -> Report | None:
        """Tell of the build that those wait for who ask for a tag."""
        build = self.builds.find((name, tag))
        return None if build is None or build.state is None else build.report()

    async def blob(
        self,
        name: Name,
        digest: Digest,
        client: str = "",
        coding: str | None = None,
    ) -> Blob:
        """
        Open a blob, wherever its bytes are, bringing them back if they are gone.

        :param coding: in which the client may have it, if that pays.
        :raises BlobUnknown: no manifest of this name that was ever answered has it.
        :raises RegistryError: it is gone and cannot be had again.
        """
        if coding is not None:
            known = await self._in_thread(self._find_blob, name, digest)
            encoded = None
            if self._layers.is_sure(known):
                encoded = await self._encodings.open(
                    digest, coding, lambda: self._plain(name, digest, client)
                )
            if encoded is not None:
                return Blob(encoded, known.size, coding)
        known, source = await self._plain(name, digest, client)
        return Blob(source, known.size)

    async def _plain(
        self, name: Name, digest: Digest, client: str
    ) -> tuple[KnownBlob, Source]:
        known, source = await self._open(name, digest)
        self._on_disk.count(source is not None)
        errand = self.errand(f"{name}@{digest}", client)
        if source is None:
            source = await self._layers.unpack(errand, name, known)
        if source is None and await self._read_again(name, known, client):
            known, source = await self._open(name, digest)
            if source is None:
                source = await self._layers.unpack(errand, name, known)
        if source is None:
            # It is built differently each time: let the tags mean what it is now.
            self.forget()
            await self._in_thread(self._records.forget_tags, known.source.derivation)
            error = ArchiveInvalid(
                f"{known.source.archive} no longer holds {digest}: it was built anew,"
                " and is another one each time; or it is a script that writes something"
                " else each time, and what it wrote found no room (FORGE_BLOBS_SIZE); or"
                " it is damaged (nix-store --verify-path); pull it by tag"
            )
            self._layers.give_up(known, error)
            raise error
        return known, source

    async def _read_again(self, name: Name, known: KnownBlob, client: str) -> bool:
        """Read an archive again; say whether it has the blob."""
        source, digest = known.source, known.digest
        _log.info("{name}: blob {digest} is gone", name=name, digest=digest)
        # It may be another's that has the same derivation.
        of_name = self._find(name)[0]
        flakes = (f for f in self.flakes if f.prefix == source.flake)
        flake = next(flakes, of_name)
        read_again = self._images.read_again
        _, done = self.builds.pull(
            (name, source.archive),
            f"{name}@{digest}",
            client,
            lambda build: read_again(build, flake, source),
        )
        found = await done
        self._layers.trust(source.archive)
        return digest in found

    async def held(self, name: Name, digest: Digest, most_bytes: int) -> bytes | None:
        """
        Give a small blob whole, if it lies here: nothing is built or unpacked for it.

        :param most_bytes: how large it may be.
        """

        def read() -> bytes | None:
            known = self._records.blob(name, digest)
            if known is None or known.size > most_bytes:
                return None
            source = self._layers.find(known)
            if source is None:
                return None
            with closing(source):
                fd, offset = source.extent
                data = os.pread(fd, known.size, offset)
            hashed = hashlib.new(digest.algorithm, data).hexdigest()
            return data if hashed == digest.encoded else None

        return await self._in_thread(read)

    async def blob_size(self, name: Name, digest: Digest) -> int:
        """
        Say how large a blob is, though its file may be gone.

        :raises BlobUnknown: no manifest of this name that was ever answered has it.
        """
        return (await self._in_thread(self._find_blob, name, digest)).size

    def _find_blob(self, name: Name, digest: Digest) -> KnownBlob:
        """Look a blob up. Blocking."""
        known = self._records.blob(name, digest)
        if known is None:
            raise BlobUnknown(f"{name} has no blob {digest}")
        return known

    async def _open(
        self, name: Name, digest: Digest
    ) -> tuple[KnownBlob, Source | None]:
        """Look a blob up, and open it where it lies as it is."""

        def find() -> tuple[KnownBlob, Source | None]:
            known = self._find_blob(name, digest)
            return known, self._layers.find(known)

        def drop(found: tuple[KnownBlob, Source | None]) -> None:
            if found[1] is not None:
                found[1].close()

        return await or_drop(self._in_thread(find), drop)

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
        tags: set[str] = set()
        missing: RegistryError | None = None
        try:
            located = await flake.lock(errand)
            package = await flake.package(errand, located.locked, wanted)
            tags.update(package.tags)
        except (FlakeUnavailable, EvaluationFailed) as e:
            missing = e
        try:
            tags.update(await flake.git_tags(errand))
        except FlakeUnavailable as e:
            missing = missing or e
        if missing is not None:
            if not tags:
                raise missing
            _log.warn("{name}: not all tags are listed: {e}", name=name, e=missing)
        return sorted(tags)

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
        names: set[str] = set()
        for row in await flake.listed(errand, located.locked):
            for output, path in paths_listed(row, flake.path):
                images = images_in(row["entries"])
                if output == IMAGE:
                    names.add(path)
                elif images:
                    names.update(f"{path}/{image}" for image in images)
                else:
                    names.add(path)
                    known = self._records.names
                    names.update(await self._in_thread(known, f"{path}/"))
        return names

    async def directory(
        self, application: Name, tag: Tag, client: str = "", *, anew: bool = False
    ) -> Forms:
        """
        Have an application's directory built.

        :param application: such as ``applications/shop``.
        :param anew: even if it was there a while ago.
        :returns: its store path as ``output``.
        :raises RegistryError: it cannot be had.
        """
        flake = self.flake_for(application)
        wanted = parse_application(application, flake.prefix)
        wish = Wish(application, tag, flake, wanted)
        known = None if anew else self._images.known(wish)
        return known or await self._pull(wish, client, await self._key(wish, client))[1]
