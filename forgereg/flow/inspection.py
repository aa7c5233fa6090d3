"""
Tell what is known of an image: its tags, parts, past and pulls.

Nobody is asked: looking at an image has nothing locked, evaluated, built or unpacked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from attrs import define, evolve, frozen

from forgereg.flow.anatomy import (
    Platform,
    difference,
    read_anatomy,
    read_config,
    read_platforms,
)
from forgereg.flow.families import (
    Wanted,
    images_in,
    parse_application,
    parse_wanted,
    paths_listed,
)
from forgereg.flow.flakes import Flake
from forgereg.flow.inspected import (
    DAYS,
    Built,
    Commit,
    Inspected,
    Listed,
    PullDays,
    Step,
    TagLine,
)
from forgereg.flow.meanings import find_meant, find_past, is_now, list_tags
from forgereg.flow.registry import Registry
from forgereg.flow.report import Report
from forgereg.flow.threads import InThread
from forgereg.nix.refs import LATEST, commit_url, content_of, revision_of
from forgereg.oci.errors import BuildUnknown, ManifestUnknown, NameUnknown
from forgereg.oci.manifest import Manifest
from forgereg.oci.media import INDEXES
from forgereg.oci.reference import Digest, Name, Tag, is_name, shown
from forgereg.records.pulls import Pulls, day_of
from forgereg.records.records import Records
from forgereg.records.revisions import Making, Revision, Revisions

#: How large a config may be that is shown, in bytes.
_MAX_CONFIG = 2**20
#: How many images that a tag has meant are listed, how many other repositories that
#: have a layer, and how many names one may have meant.
_MOST_STEPS, _MOST_OTHERS, _MOST_NEAR = 20, 5, 10


@frozen
class _Recalled:
    """
    What is known of a flake without asking.

    :ivar locked: what it was locked to last.
    :ivar listed: what it has.
    :ivar is_before: whether that is what it had at another revision.
    """

    locked: str | None
    listed: list[dict[str, Any]] | None
    is_before: bool


@define(eq=False)
class Inspection:
    """
    Tells of images.

    :ivar now: gives seconds since the epoch.
    """

    _registry: Registry
    _records: Records
    _revisions: Revisions
    _pulls: Pulls
    _now: Callable[[], float]
    _in_thread: InThread

    async def image(
        self, name: Name, reference: Tag | Digest | None, platform: str = ""
    ) -> Inspected:
        """
        Tell of an image.

        :param reference: None for the tag that stands for the repository.
        :param platform: of those that it is there for, the one that is meant, if any.
        :raises NameUnknown: nothing is known under this name.
        :raises ManifestUnknown: it is not known to have that tag or digest.
        """
        flake = self._registry.flake_for(name)
        wanted = parse_wanted(name, flake.prefix)
        known = await _recall(flake)
        entry, locked = _entry(known.listed, wanted), known.locked
        package = await flake.recall_package(locked, wanted) if locked else None
        revisions = await self._in_thread(self._revisions.of, name)
        if not revisions and package is None and entry is None:
            raise _unknown(name, known)
        counts, pulls = await self._in_thread(self._count, name)

        def list_all() -> tuple[TagLine, ...]:
            # There, as git may have very many.
            git_tags = flake.known_git_tags()
            return list_tags(package, git_tags, revisions, counts, reference)

        tags = await self._in_thread(list_all)
        reference = reference or next((line.tag for line in tags), Tag(LATEST))
        meant = find_meant(reference, package, revisions)
        digest, tag = None if meant is None else meant.digest, None
        if isinstance(reference, Digest):
            digest = reference
        else:
            tag = reference
            if tags and tag not in (line.tag for line in tags):
                raise _no_tag(name, tag, tags)
        image, steps = None, tuple[Step, ...]()
        if digest is not None:
            past = find_past(meant, revisions, _MOST_STEPS + 1)
            look = partial(self._look, name, digest, past, platform, flake)
            image, steps = await self._in_thread(look)
            if image is None:
                raise ManifestUnknown(f"{name} has no manifest {digest}")
            image = await self._configured(name, image)
        is_past = any(line.is_past and line.tag == tag for line in tags)
        is_behind = meant is not None and not is_now(meant, package, tag)
        build = None if tag is None else self._registry.waiting_for(name, tag)
        failed = None
        is_there = image is not None and package is not None and not is_behind
        if locked and tag and not build and not is_there:
            failed = await self._failed(flake.hide(locked), name)
        about = _description(entry)
        return Inspected(
            name,
            tag,
            flake.shown,
            about,
            tags,
            is_past,
            is_behind,
            known.is_before and package is None,
            build,
            failed,
            image,
            steps,
            pulls,
        )

    async def _failed(self, locked: str, name: Name) -> Report | None:
        builds = self._registry.builds
        failed = await builds.failed([locked], name.text)
        try:
            return await builds.report(failed[name.text]) if failed else None
        except BuildUnknown:  # it was forgotten just now
            return None

    async def _configured(self, name: Name, image: Built) -> Built:
        part = image.anatomy.config
        held = self._registry.held
        data = None if part is None else await held(name, part.digest, _MAX_CONFIG)
        if data is None:
            return image
        return evolve(image, config=await self._in_thread(read_config, data))

    def _count(self, name: Name) -> tuple[Mapping[Tag, int], PullDays]:
        """Count pulls: by each tag, and on each day. Blocking."""
        first = day_of(self._now()) - DAYS + 1
        by_tag, by_digest = [0] * DAYS, [0] * DAYS
        tags: Counter[Tag] = Counter()
        for pulled in self._pulls.days(name, first):
            # Clocks may have been set back since.
            day = min(pulled.day - first, DAYS - 1)
            if pulled.tag is None:
                by_digest[day] += pulled.count
            else:
                by_tag[day] += pulled.count
                tags[pulled.tag] += pulled.count
        last = self._pulls.last(name)
        return tags, PullDays(first, tuple(by_tag), tuple(by_digest), last)

    def _look(
        self,
        name: Name,
        digest: Digest,
        past: Sequence[Revision],
        platform: str,
        flake: Flake,
    ) -> tuple[Built | None, tuple[Step, ...]]:
        """Look an image up, and those before it. Blocking."""
        top = self._records.manifest(name, digest)
        if top is None:
            return None, ()
        platforms, chosen, manifest = self._choose(name, top, platform)
        derivation = past[0].derivation if past else None
        making = self._revisions.making(name, digest, derivation)
        anatomy = read_anatomy(manifest)
        digests = [part.digest for part in anatomy.layers]
        image = Built(
            digest,
            top.media_type,
            platforms,
            chosen,
            manifest.digest,
            anatomy,
            None,
            self._revisions.sharing(name, digests, _MOST_OTHERS),
            making,
            _commit(making, flake),
        )
        label = platform if chosen is None else chosen.label
        steps: list[Step] = []
        after = None
        for revision in past:
            before = self._records.manifest(name, revision.digest)
            if before is None:
                continue
            its = read_anatomy(self._choose(name, before, label)[2])
            if after is not None:
                steps[-1] = evolve(steps[-1], change=difference(its, after))
            made = self._revisions.making(name, revision.digest, revision.derivation)
            commit = _commit(made, flake)
            steps.append(Step(revision.digest, revision.since, commit, None))
            after = its
        return image, tuple(steps[:_MOST_STEPS])

    def _choose(
        self, name: Name, top: Manifest, platform: str
    ) -> tuple[tuple[Platform, ...], Platform | None, Manifest]:
        """Choose what is shown of an index: what is asked for, or else the first."""
        platforms = read_platforms(top) if top.media_type in INDEXES else ()
        asked = [each for each in platforms if each.label == platform]
        for each in (*asked, *platforms):
            manifest = self._records.manifest(name, each.digest)
            if manifest is not None:
                return platforms, each, manifest
        return platforms, None, top

    def is_application(self, name: Name) -> bool:
        """Whether a name is that of an application, rather than of an image."""
        path = name.text.removeprefix(self._registry.flake_for(name).path)
        family, _, word = path.partition("/")
        return family == "applications" and word != "" and "/" not in word

    async def application(self, name: Name) -> Listed:
        """
        List the images of an application.

        :raises NameUnknown: there is no such application, as far as is known.
        """
        flake = self._registry.flake_for(name)
        wanted = parse_application(name, flake.prefix)
        known = await _recall(flake)
        entry = _entry(known.listed, wanted)
        built = await self._in_thread(self._records.names, f"{name}/")
        if entry is None and not built:
            raise _unknown(name, known)
        images = images_in(entry["entries"] if entry else ())
        names = {*built, *(f"{name}/{image}" for image in images)}
        about = _description(entry)
        return Listed(name, about, known.is_before, tuple(sorted(names)))

    async def near(self, text: str) -> list[str]:
        """List names that are known and like what was asked for; or just some."""
        names: set[str] = set()
        for flake in self._registry.flakes:
            known = await _recall(flake)
            for row in known.listed or ():
                names.update(path for _, path in paths_listed(row, flake.path))
        names.update(await self._in_thread(self._records.names, ""))
        return await self._in_thread(_near, text, sorted(filter(is_name, names)))


async def _recall(flake: Flake) -> _Recalled:
    locked = await flake.last_locked()
    listed = await flake.recall_listed(locked) if locked else None
    if listed is not None:
        return _Recalled(locked, listed, False)
    before = await flake.last_listed()
    return _Recalled(locked, before, before is not None)


def _near(text: str, names: list[str]) -> list[str]:
    """Blocking, as it takes its time."""
    words = [name.rpartition("/")[2] for name in names]
    word = text[:255].rpartition("/")[2]
    near = get_close_matches(word, {*words}, n=_MOST_NEAR)
    named = [
        n for word in near for n, its in zip(names, words, strict=True) if its == word
    ]
    return (named or names)[:_MOST_NEAR]


def _entry(
    listed: list[dict[str, Any]] | None, wanted: Wanted
) -> Mapping[str, Any] | None:
    """Give what the flake lists of a package, if it may have what is wanted."""
    for package in listed or []:
        if package["name"].lower() != wanted.attribute or not package[wanted.output]:
            continue
        # Which images an application has may be known only once it is built.
        images = images_in(package["entries"])
        if wanted.member is None or not images or wanted.member in images:
            return package
    return None


def _description(entry: Mapping[str, Any] | None) -> str | None:
    return entry.get("description") if entry else None


def _unknown(name: Name, known: _Recalled) -> NameUnknown:
    if known.is_before:
        return NameUnknown(
            f"There was no {name} when the flake was read last, and it has changed"
            " since: pull it, and see."
        )
    if known.listed is not None:
        return NameUnknown(f"There is no {name}: the flake has no such image.")
    return NameUnknown(
        f"No image called {name} was built here, and what the flake has is not known"
        " yet: pull it, and see."
    )


def _no_tag(name: Name, tag: Tag, tags: Sequence[TagLine]) -> ManifestUnknown:
    some = ", ".join(line.tag.text for line in tags[:_MOST_NEAR])
    return ManifestUnknown(
        f"{name} is not known to have a tag {shown(tag.text)}; those that are known:"
        f" {some}."
    )


def _commit(making: Making | None, flake: Flake) -> Commit | None:
    if making is None:
        return None
    locked = making.source.locked
    revision = revision_of(locked) or content_of(locked)
    return Commit(flake.hide(locked), revision, commit_url(locked))
