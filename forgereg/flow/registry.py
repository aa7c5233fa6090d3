"""
What a client can ask for, and how it comes about.

A tag becomes a locked flake ref, that and the name a derivation, that an archive in
the Nix store, that an image and its manifests. Each step is remembered, is done once
for all who wait for it, and goes on when they leave.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import BinaryIO

from attrs import define, field, frozen
from cachetools import LRUCache

from forgereg.archive.layout import choose
from forgereg.blobs.store import BlobStore
from forgereg.flow.builds import Builds
from forgereg.flow.families import Wanted, image_name, parse_wanted
from forgereg.flow.once import Once
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.nix.build import Errand
from forgereg.nix.flake import is_pure
from forgereg.oci.errors import (
    ArchiveInvalid,
    BlobUnknown,
    ManifestUnknown,
    NameUnknown,
    ReferrersUnknown,
    RegistryError,
)
from forgereg.oci.manifest import Manifest, write_manifests
from forgereg.oci.media import MANIFESTS
from forgereg.oci.reference import Digest, Name, Tag, is_name
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


@define
class Registry:
    """
    The registry's content: all of it comes out of one flake.

    :ivar cache_size: how many manifests are kept in memory.
    """

    _builds: Builds
    _records: Records
    _blobs: BlobStore
    _in_thread: InThread
    _cache_size: int
    _pulls: Once[tuple[Name, Tag], tuple[Manifest, ...]] = field(
        init=False, factory=Once
    )
    #: locked flake ref, name, tag → manifests, the preferred form first
    _tagged: LRUCache[tuple[str, Name, Tag], tuple[Manifest, ...]] = field(init=False)
    _manifests: LRUCache[tuple[Name, Digest], Manifest] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tagged = LRUCache(self._cache_size)
        self._manifests = LRUCache(self._cache_size)

    async def manifest(
        self, name: Name, reference: Tag | Digest, accepted: Sequence[str]
    ) -> Manifest:
        """
        Give a manifest, building what it describes if need be.

        :param accepted: the media types that the client reads, those it likes best
            first; a digest is answered whichever form it is of.
        :raises ManifestUnknown: there is none, or not in a form that is accepted.
        :raises RegistryError: it cannot be had, and the error says why.
        """
        if not accepted:
            raise ManifestUnknown(
                f"manifests are served as {' or '.join(MANIFESTS)},"
                " and the client accepts neither"
            )
        if isinstance(reference, Digest):
            return await self._by_digest(name, reference)
        forms = {form.media_type: form for form in await self._by_tag(name, reference)}
        for media_type in accepted:
            if media_type in forms:
                return forms[media_type]
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

    async def _by_tag(self, name: Name, tag: Tag) -> tuple[Manifest, ...]:
        wanted = parse_wanted(name)
        if _REFERRERS_TAG.fullmatch(tag.text):
            raise ReferrersUnknown(f"{name} has no signatures or other referrers")
        locked = self._builds.locked_now()
        if locked is not None:
            known = self._tagged.get((locked, name, tag))
            if known is not None:
                return known
        return await self._pulls.do(
            (name, tag), lambda: self._prepare(name, tag, wanted)
        )

    async def _prepare(
        self, name: Name, tag: Tag, wanted: Wanted
    ) -> tuple[Manifest, ...]:
        errand = self._builds.errand(f"{name}:{tag}")
        locked = await self._builds.lock(errand)
        try:
            forms = await self._locked(errand, locked, name, tag, wanted)
        except RegistryError as first:
            # Whoever has just changed the flake on this machine wants it as it is now.
            try:
                moved = await self._builds.moved(errand, locked)
            except RegistryError as second:
                # What was not there may be in what cannot be read.
                if isinstance(first, NameUnknown | ManifestUnknown):
                    raise second from first
                raise first from second
            if moved is None:
                raise first
            locked = moved
            forms = await self._locked(errand, locked, name, tag, wanted)
        if is_pure(locked):
            self._tagged[locked, name, tag] = forms
        for form in forms:
            self._manifests[name, form.digest] = form
        return forms

    async def _locked(
        self, errand: Errand, locked: str, name: Name, tag: Tag, wanted: Wanted
    ) -> tuple[Manifest, ...]:
        package = await self._builds.package(errand, locked, wanted)
        if tag.text not in package.tags:
            raise ManifestUnknown(
                f"{name} has no tag {tag.text!r}; it has: {', '.join(package.tags)}"
            )
        forms = await self._in_thread(
            self._records.tagged, name, package.derivation, tag
        )
        if not forms:
            source, packed = await self._builds.images(errand, locked, wanted, package)
            # For every tag at once: an archive is not read again for another one.
            for text in package.tags:
                image = choose(packed, name, Tag(text))
                written = write_manifests(image)
                await self._in_thread(
                    self._records.remember_image,
                    name,
                    Tag(text),
                    source,
                    image,
                    written,
                )
                if text == tag.text:
                    forms = written
        return forms

    async def blob(self, name: Name, digest: Digest) -> OpenBlob:
        """
        Open a blob, bringing it back if its file is gone.

        :raises BlobUnknown: no manifest of this name that was ever answered has it.
        :raises RegistryError: it is gone and cannot be had again.
        """
        size, source, file = await self._in_thread(self._open, name, digest)
        if file is None:
            _log.info("{name}: blob {digest} is gone", name=name, digest=digest)
            await self._builds.read_again(self._builds.errand(str(name)), source)
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

    def _open(self, name: Name, digest: Digest) -> tuple[int, Source, BinaryIO | None]:
        """Look a blob up and open it. Blocking."""
        known = self._records.blob(name, digest)
        if known is None:
            raise BlobUnknown(f"{name} has no blob {digest}")
        size, source = known
        return size, source, self._blobs.open(digest, size)

    async def tags(self, name: Name) -> list[str]:
        """
        List the tags of an image, sorted, without building it.

        :raises NameUnknown: the flake has no such image.
        """
        wanted = parse_wanted(name)
        errand = self._builds.errand(str(name))
        locked = await self._builds.lock(errand)
        return (await self._builds.package(errand, locked, wanted)).tags

    async def catalogue(self) -> list[str]:
        """
        List the repositories, sorted, from what the flake says of itself.

        An application whose images are not known without a build is listed as
        ``applications/<application>``, beside those images of it that were pulled.
        """
        errand = self._builds.errand("the catalogue")
        locked = await self._builds.lock(errand)
        names: set[str] = set()
        for package in await self._builds.listed(errand, locked):
            name = package["name"].lower()
            if package["image"]:
                names.add(f"packages/{name}")
            if package["containers"]:
                application = f"applications/{name}"
                images = [*filter(None, map(image_name, package["entries"]))]
                names.update(f"{application}/{image.lower()}" for image in images)
                if not images:
                    names.add(application)
                    names.update(
                        await self._in_thread(self._records.names, f"{application}/")
                    )
        return sorted(filter(is_name, names))
