"""
Which images are remembered, and forget one whole. Blocking: for threads.

The tables are drawn in `forgereg.records.schema`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from attrs import frozen
from sqlalchemy import (
    ColumnElement,
    Delete,
    Engine,
    Table,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from forgereg.oci.errors import DiskFull
from forgereg.oci.reference import Digest, Name, parse_digest
from forgereg.records.database import writing
from forgereg.records.records import Source
from forgereg.records.schema import (
    blobs,
    manifests,
    origins,
    pull_days,
    pulls,
    revisions,
    sightings,
    sources,
    tags,
)


@frozen
class KeptImage:
    """
    All that was remembered of one source.

    :ivar names: ``repository:tag`` of all that led to it, sorted; the tag is empty
        where none does any more.
    :ivar manifests: its manifests, by repository and digest.
    :ivar blobs: of all of them.
    :ivar pulled_at: when it was last pulled, in seconds since the epoch; None: never.
    :ivar seen_at: when it was first listed here.
    """

    source: Source
    names: tuple[str, ...]
    manifests: frozenset[tuple[Name, Digest]]
    blobs: frozenset[Digest]
    pulled_at: float | None
    seen_at: float

    @property
    def used_at(self) -> float:
        """When it was last pulled, or first seen if nobody has pulled it yet."""
        return self.seen_at if self.pulled_at is None else self.pulled_at


@frozen
class Forgotten:
    """
    What nothing refers to any more.

    :ivar blobs: that no other image has, whatever its name.
    :ivar derivation: whether no other image comes from the derivation.
    """

    blobs: frozenset[Digest]
    derivation: bool


@frozen
class KeptImages:
    """
    The images that are remembered, in the database of `Records`.

    Each method is one transaction; those that write raise `DiskFull` where there is
    no room.
    """

    _engine: Engine

    def all(self, now: float) -> list[KeptImage]:
        """
        List what is remembered, in no particular order.

        :param now: from when an image counts that was never listed before, in seconds
            since the epoch.
        """
        fresh = select(sources.c.id, literal(now)).where(
            sources.c.id.not_in(select(sightings.c.source))
        )
        noted = insert(sightings).from_select(["source", "seen_at"], fresh)
        # On a full disk they are noted when there is room again.
        with suppress(DiskFull), writing(self._engine) as connection:
            connection.execute(noted)
        had = select(origins.c.source, origins.c.name, origins.c.digest)
        last = func.max(pulls.c.pulled_at).label("pulled_at")
        with self._engine.connect() as connection:
            with_sight = sources.outerjoin(sightings)
            found = connection.execute(
                select(sources, sightings.c.seen_at).select_from(with_sight)
            ).all()
            manifest_rows = connection.execute(had.join(manifests, _same(manifests)))
            held = _grouped((row.source, row[1:]) for row in manifest_rows)
            blob_rows = connection.execute(had.join(blobs, _same(blobs)))
            layers = _grouped((row.source, row.digest) for row in blob_rows)
            tag_rows = connection.execute(
                select(tags.c.name, tags.c.digest, tags.c.tag)
            )
            tagged = _grouped((row[:2], row.tag) for row in tag_rows)
            pull_rows = connection.execute(
                select(pulls.c.name, pulls.c.digest, last).group_by(
                    pulls.c.name, pulls.c.digest
                )
            )
            pulled = {row[:2]: row.pulled_at for row in pull_rows}
        digest = cache(parse_digest)  # layers are in many images
        return [
            KeptImage(
                Source(
                    row.locked,
                    row.attribute,
                    row.derivation,
                    row.archive,
                    row.flake,
                    row.stamp,
                ),
                _names(held[row.id], tagged),
                frozenset((Name(name), digest(text)) for name, text in held[row.id]),
                frozenset(map(digest, layers[row.id])),
                max((pulled[e] for e in held[row.id] if e in pulled), default=None),
                now if row.seen_at is None else row.seen_at,
            )
            for row in found
            if row.id in held
        ]

    def forget(
        self, source: Source, unless_pulled_after: float | None
    ) -> Forgotten | None:
        """
        Forget an image and all that only it refers to.

        :param unless_pulled_after: when it was last pulled as far as the caller knows,
            in seconds since the epoch; None: never.
        :returns: None if it was pulled since, or is not there.
        """
        with writing(self._engine) as connection:
            # A write comes first, and keeps other writers out: what is looked up
            # below is still true when the transaction ends.
            known = connection.execute(
                update(sources)
                .where(
                    sources.c.derivation == source.derivation,
                    sources.c.archive == source.archive,
                )
                .values(locked=sources.c.locked)
                .returning(sources.c.id)
            ).scalar_one_or_none()
            mine = origins.c.source == known
            since = select(pulls.c.name).join(origins, _same(pulls)).where(mine)
            if unless_pulled_after is not None:
                since = since.where(pulls.c.pulled_at > unless_pulled_after)
            if known is None or connection.execute(since.limit(1)).first():
                return None
            repositories = select(origins.c.name).where(mine).distinct()
            names = connection.execute(repositories).scalars().all()
            connection.execute(delete(origins).where(mine))
            connection.execute(delete(sightings).where(sightings.c.source == known))
            for table, kept in (
                (manifests, origins),
                (tags, manifests),
                (revisions, manifests),
                (pulls, manifests),
                (pull_days, manifests),
            ):
                connection.execute(_orphans(table, names, kept))
            gone = connection.execute(
                _orphans(blobs, names, origins).returning(blobs.c.digest)
            )
            digests = set(gone.scalars())
            another = select(func.max(origins.c.source)).where(_same(blobs))
            connection.execute(
                update(blobs)
                .where(blobs.c.source == known)
                .values(source=another.scalar_subquery())
            )
            connection.execute(delete(sources).where(sources.c.id == known))
            elsewhere = select(blobs.c.digest).where(blobs.c.digest.in_(digests))
            digests -= set(connection.execute(elsewhere).scalars())
            same = select(sources.c.id).where(sources.c.derivation == source.derivation)
            is_last = connection.execute(same.limit(1)).first() is None
            if is_last:
                lost = revisions.c.derivation == source.derivation
                connection.execute(delete(revisions).where(lost))
        return Forgotten(frozenset(map(parse_digest, digests)), is_last)


def _same(table: Table, other: Table = origins) -> ColumnElement[bool]:
    """Whether rows of two tables speak of one digest of one repository."""
    return (table.c.name == other.c.name) & (table.c.digest == other.c.digest)


def _orphans(table: Table, names: Sequence[str], kept: Table) -> Delete:
    """Delete what another table has not, in these repositories."""
    is_kept = select(literal(1)).where(_same(table, kept)).exists()
    return delete(table).where(table.c.name.in_(names), ~is_kept)


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> defaultdict[Any, set[Any]]:
    grouped: defaultdict[Any, set[Any]] = defaultdict(set)
    for key, value in pairs:
        grouped[key].add(value)
    return grouped


def _names(
    held: Iterable[tuple[str, str]], tagged: Mapping[Any, set[str]]
) -> tuple[str, ...]:
    """Write the names that lead to manifests."""
    found = _grouped((each[0], tag) for each in held for tag in tagged.get(each, ()))
    return tuple(
        sorted(
            f"{name}:{tag}"
            for name in {name for name, _ in held}
            for tag in found[name] or {""}
        )
    )
