"""
Remember which images a tag has meant, and tell what is known of one. Blocking.

The tables are drawn in `forgereg.records.schema`.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from attrs import frozen
from sqlalchemy import Engine, func, select, update
from sqlalchemy.dialects.sqlite import insert

from forgereg.oci.reference import Digest, Name, Tag, parse_digest
from forgereg.records.database import upsert, writing
from forgereg.records.records import Source
from forgereg.records.schema import (
    blobs,
    builds,
    origins,
    revisions,
    sightings,
    sources,
    tags,
)

#: By how much two images that a tag meant are apart, though clocks are set back.
_LEAST_SECONDS = 0.001
#: How many of them are listed.
_MOST = 1000


@frozen
class Revision:
    """
    An image that a tag means, or has meant.

    :ivar derivation: store path of its ``.drv``.
    :ivar digest: of its preferred manifest.
    :ivar since: when the tag began to mean it, in seconds since the epoch; None where
        it was built for another tag, and nobody has asked for it by this one.
    """

    tag: Tag
    derivation: str
    digest: Digest
    since: float | None


@frozen
class Making:
    """
    How an image came to be.

    :ivar seen_at: when it was read, in seconds since the epoch; None: not known.
    :ivar build_seconds: that nix took; None where what it builds was there.
    :ivar build: id of the last build that had to do with it, if that is remembered.
    """

    source: Source
    seen_at: float | None
    build_seconds: float | None
    build: str | None


@frozen
class Sharing:
    """
    Who else has a blob.

    :ivar names: of other repositories, sorted, the first few.
    :ivar count: of all of them.
    """

    names: tuple[str, ...]
    count: int


@frozen
class Revisions:
    """What the tags of repositories have meant, in the database of `Records`."""

    _engine: Engine

    def note(
        self, name: Name, tag: Tag, derivation: str, digest: Digest, now: float
    ) -> None:
        """
        Note what a tag means, unless that is known.

        :param now: in seconds since the epoch.
        :raises DiskFull: there is no room.
        """
        mine = (revisions.c.name == str(name)) & (revisions.c.tag == str(tag))
        newest = select(revisions).where(mine).order_by(revisions.c.since.desc())
        with writing(self._engine) as connection:
            last = connection.execute(newest.limit(1)).one_or_none()
            if last is not None:
                if (last.derivation, last.digest) == (derivation, str(digest)):
                    return
                now = max(now, last.since + _LEAST_SECONDS)
            row = {
                "name": str(name),
                "tag": str(tag),
                "derivation": derivation,
                "digest": str(digest),
                "since": now,
            }
            connection.execute(upsert(revisions, row))

    def note_making(
        self, source: Source, seen_at: float, build_seconds: float | None
    ) -> None:
        """
        Note that an image was read.

        :param build_seconds: that nix took for it.
        :raises DiskFull: there is no room.
        """
        known = select(sources.c.id).where(
            sources.c.derivation == source.derivation,
            sources.c.archive == source.archive,
        )
        with writing(self._engine) as connection:
            source_id = connection.execute(known).scalar_one_or_none()
            if source_id is None:
                return
            row = {"source": source_id, "seen_at": seen_at}
            fresh = insert(sightings).values(row).on_conflict_do_nothing()
            connection.execute(fresh)
            if build_seconds is not None:
                its = update(sightings).where(sightings.c.source == source_id)
                connection.execute(its.values(build_seconds=build_seconds))

    def of(self, name: Name) -> list[Revision]:
        """List what the tags of a repository have meant, the newest first."""
        query = (
            select(tags.c.tag, tags.c.derivation, tags.c.digest, revisions.c.since)
            .outerjoin(
                revisions,
                (revisions.c.name == tags.c.name)
                & (revisions.c.tag == tags.c.tag)
                & (revisions.c.derivation == tags.c.derivation),
            )
            .join(sources, sources.c.derivation == tags.c.derivation)
            .where(tags.c.name == str(name), tags.c.preference == 0)
            .group_by(tags.c.tag, tags.c.derivation)
            .order_by(
                revisions.c.since.desc().nulls_last(), func.max(sources.c.id).desc()
            )
            .limit(_MOST)
        )
        with self._engine.connect() as connection:
            return [
                Revision(
                    Tag(row.tag), row.derivation, parse_digest(row.digest), row.since
                )
                for row in connection.execute(query)
            ]

    def making(
        self, name: Name, digest: Digest, derivation: str | None = None
    ) -> Making | None:
        """
        Tell how an image came to be.

        :param digest: of one of its manifests.
        :param derivation: of several that gave it, the one that is meant; without it,
            the newest.
        """
        columns = [sources.c[field.name] for field in attrs.fields(Source)]
        query = (
            select(sightings.c.seen_at, sightings.c.build_seconds, *columns)
            .select_from(sources)
            .join(origins, origins.c.source == sources.c.id)
            .outerjoin(sightings, sightings.c.source == sources.c.id)
            .where(origins.c.name == str(name), origins.c.digest == str(digest))
            .order_by((sources.c.derivation == derivation).desc(), sources.c.id.desc())
            .limit(1)
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            source = Source(*row[2:])
            build = (
                select(builds.c.id)
                .where(builds.c.derivation == source.derivation)
                .order_by(builds.c.asked_at.desc())
                .limit(1)
            )
            build_id = connection.execute(build).scalar_one_or_none()
        return Making(source, row.seen_at, row.build_seconds, build_id)

    def sharing(
        self, name: Name, digests: Sequence[Digest], most: int
    ) -> dict[Digest, Sharing]:
        """
        Say which blobs other repositories have as well.

        :param most: how many of those are named.
        :returns: by digest, for those that any other has.
        """
        others = (
            select(
                blobs.c.digest,
                blobs.c.name,
                func.count().over(partition_by=blobs.c.digest).label("count"),
                func.row_number()
                .over(partition_by=blobs.c.digest, order_by=blobs.c.name)
                .label("number"),
            )
            .where(blobs.c.digest.in_(map(str, digests)), blobs.c.name != str(name))
            .subquery()
        )
        query = (
            select(others.c.digest, others.c.name, others.c["count"])
            .where(others.c.number <= most)
            .order_by(others.c.digest, others.c.name)
        )
        found: dict[Digest, Sharing] = {}
        with self._engine.connect() as connection:
            for text, other, count in connection.execute(query):
                digest = parse_digest(text)
                before = found[digest].names if digest in found else ()
                found[digest] = Sharing((*before, other), count)
        return found
