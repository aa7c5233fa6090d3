"""
An application's compose file, with its images as this registry has them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from attrs import define, evolve, field, frozen
from cachetools import LRUCache
from twisted.internet.defer import Deferred, FirstError, gatherResults

from forgereg.flow.archives import Archives
from forgereg.flow.compose import (
    FILES,
    MAX_BYTES,
    ComposeFile,
    image_meant,
    parse_compose,
)
from forgereg.flow.families import images_in
from forgereg.flow.images import Forms
from forgereg.flow.registry import Found, Registry
from forgereg.flow.threads import InThread
from forgereg.nix.store import Store
from forgereg.oci.errors import ArchiveInvalid, NameUnknown, RegistryError
from forgereg.oci.media import REFERABLE
from forgereg.oci.reference import Name, Tag

#: How many directories are known in memory, each with a compose file.
_MOST = 50
#: How many names a message lists.
_NAMES_SHOWN = 20


@frozen
class Composed:
    """
    A compose file whose images can be pulled here.

    :ivar stale: why it may be out of date; None where it is not.
    """

    text: str
    stale: str | None


@frozen
class _Directory:
    """
    What is looked at of an application's directory.

    :ivar images: by name, the store path that leads to it.
    :ivar references: by the name of an image that no service names, what its archive
        calls it.
    """

    images: Mapping[str, str]
    compose: ComposeFile
    references: Mapping[str, Sequence[str]] = field(factory=dict)

    def image_of(self, reference: str) -> str | None:
        """Say which of the images a service means."""
        return image_meant(reference, self.images, self.references)


@define
class Applications:
    """The applications of all flakes."""

    _registry: Registry
    _archives: Archives
    _store: Store
    _in_thread: InThread
    #: by store path, which always means the same
    _known: LRUCache[str, _Directory] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._known = LRUCache(_MOST)

    async def compose(
        self, application: Name, tag: Tag, host: str, client: str = ""
    ) -> Composed:
        """
        Give an application's compose file, its images pinned by digest.

        :param application: such as ``applications/shop``.
        :param tag: of the application, and so of its images.
        :param host: what the registry is called in the images' references.
        :param client: who asks, for the sake of fairness.
        :raises NameUnknown: there is no such application, or no compose file in it.
        :raises RegistryError: it, or one of its images, cannot be had.
        """
        built, directory = await self._directory(application, tag, client)

        image_of, compose = directory.image_of, directory.compose
        images = sorted({*filter(None, map(image_of, compose.images))})
        found = await self._manifests(
            [Name(f"{application}/{image}") for image in images], tag, client
        )
        pinned = {
            image: f"{host}/{application}/{image}@{each.manifest.digest}"
            for image, each in zip(images, found, strict=True)
        }
        text = compose.rewritten(lambda r: pinned.get(image_of(r) or ""))
        stale = [built.stale, *(each.stale for each in found)]
        return Composed(text, next(filter(None, stale), None))

    async def _directory(
        self, application: Name, tag: Tag, client: str
    ) -> tuple[Forms, _Directory]:
        for anew in (False, True):
            built = await self._registry.directory(application, tag, client, anew=anew)
            known = self._known.get(built.output)
            if known is not None:
                return built, known
            try:
                known = await self._in_thread(self._read, application, built.output)
                known = await self._with_references(application, known, client)
            except FileNotFoundError as e:
                # Nix's garbage collector may have been there since.
                missing = e.filename
            else:
                self._known[built.output] = known
                return built, known
        raise ArchiveInvalid(f"{application} leads to {missing}, and nothing is there")

    async def _with_references(
        self, application: Name, directory: _Directory, client: str
    ) -> _Directory:
        """Add what archives call their images, where services may go by that."""
        meant = {
            reference: directory.image_of(reference)
            for reference in directory.compose.images
        }
        left = sorted(directory.images.keys() - meant.values())
        if None not in meant.values() or not left:
            return directory
        errand = self._registry.errand(str(application), client)
        references = {}
        for name in left:
            try:
                read = await self._archives.read(errand, directory.images[name])
            except (RegistryError, FileNotFoundError):
                continue  # whoever pulls it is told
            images = read.reading.images
            references[name] = [tag for image in images for tag in image.tags]
        return evolve(directory, references=references)

    async def _manifests(self, names: list[Name], tag: Tag, client: str) -> list[Found]:
        """Give an image's manifest in the form that any client reads, of each name."""
        manifest, forms = self._registry.manifest, list(REFERABLE)
        pulls = [
            Deferred.fromCoroutine(manifest(name, tag, forms, client)) for name in names
        ]
        try:
            return await gatherResults(pulls, consumeErrors=True)
        except FirstError as e:
            failure = e.subFailure
        failure.raiseException()

    def _read(self, application: Name, output: str) -> _Directory:
        """Blocking."""
        path, real = self._store.locate(output)
        if not real.is_dir():
            raise ArchiveInvalid(f"{application} is not a directory of images")
        entries = os.listdir(real)
        images = images_in(entries)
        file = next((name for name in FILES if name in entries), None)
        if file is None:
            raise NameUnknown(_no_compose(application, sorted(images)))
        try:
            with self._store.locate(f"{path}/{file}")[1].open("rb") as opened:
                compose = parse_compose(opened.read(MAX_BYTES + 1))
        except IsADirectoryError as e:
            raise ArchiveInvalid(f"{file} of {application} is a directory") from e
        except ArchiveInvalid as e:
            raise ArchiveInvalid(f"{file} of {application}: {e.detail}") from e
        paths = {name: f"{path}/{entry}" for name, entry in images.items()}
        return _Directory(paths, compose)


def _no_compose(application: Name, images: list[str]) -> str:
    shown = ", ".join(f"{application}/{image}" for image in images[:_NAMES_SHOWN])
    return (
        f"{application} has no compose file: add a compose.yaml, whose images are those"
        f" of the application, to the directory that its 'containers' is; images that"
        f" it has: {shown or 'none'}"
    )
