"""
Remember what was resolved, evaluated and built. Blocking: for threads.

The tables are drawn in `forgereg.records.schema`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
from attrs import frozen
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from forgereg.oci.descriptor import Descriptor, Place
from forgereg.oci.manifest import Manifest
from forgereg.oci.reference import Digest, Name, Tag, parse_digest
from forgereg.records.database import open_engine, upsert, writing
from forgereg.records.schema import (
    blobs,
    evaluations,
    manifests,
    origins,
    resolutions,
    sources,
    tags,
)


@frozen
class Source:
    """
    Where an image came from, and can come from again.

    :ivar locked: locked flake ref.
    :ivar attribute: what was built of it, as an installable's fragment.
    :ivar derivation: store path of its ``.drv``.
    :ivar archive: store path of the archive.
    :ivar flake: whose ref it is, by the prefix of its names: several may have the
        derivation.
    :ivar stamp: tells the file that was read from another one at its path; empty where
        nothing is read from it without being checked.
    """

    locked: str
    attribute: str
    derivation: str
    archive: str
    flake: str = ""
    stamp: str = ""


@frozen
class KnownBlob:
    """
    What is known of a blob.

    :ivar size: in bytes.
    :ivar place: where in its source it is.
    """

    digest: Digest
    size: int
    source: Source
    place: Place


@frozen
class Records:
    """
    What is remembered; each method is one transaction.

    Those that note something raise `DiskFull` where there is no room for it.
    """

    _engine: Engine

    @classmethod
    def open(cls, url: str | URL) -> Records:
        """
        Open a database, making what tables it lacks.

        :param url: as SQLAlchemy reads it.
        :raises sqlalchemy.exc.SQLAlchemyError: it cannot be opened or is damaged.
        """
        return cls(open_engine(url))

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The database, for what else is kept in it."""
        return self._engine

    def _writing(self) -> AbstractContextManager[Connection]:
        return writing(self._engine)

    def resolution(self, flake: str) -> tuple[str, float] | None:
        """
        Give what a flake ref was last resolved to.

        :returns: locked flake ref, and when, in seconds since the epoch.
        """
        query = select(resolutions.c.locked, resolutions.c.resolved_at).where(
            resolutions.c.flake == flake
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else (row.locked, row.resolved_at)

    def remember_resolution(self, flake: str, locked: str, now: float) -> None:
        """Note what a flake ref is resolved to from now on."""
        with self._writing() as connection:
            connection.execute(
                upsert(
                    resolutions,
                    {"flake": flake, "locked": locked, "resolved_at": now},
                )
            )

    def answer(self, locked: str, question: str) -> str | None:
        """Give what Nix answered to a question about a locked flake, as JSON."""
        query = select(evaluations.c.answer).where(
            evaluations.c.locked == locked, evaluations.c.question == question
        )
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none()

    def remember_answer(self, locked: str, question: str, answer: str) -> None:
        """Note what Nix answered; a locked flake answers the same for ever."""
        row = {"locked": locked, "question": question, "answer": answer}
        with self._writing() as connection:
            connection.execute(upsert(evaluations, row))

    def answers(self, locked: str, questions: Collection[str]) -> dict[str, str]:
        """Give what Nix answered to any of these questions about a locked flake."""
        query = select(evaluations.c.question, evaluations.c.answer).where(
            evaluations.c.locked == locked, evaluations.c.question.in_(_all(questions))
        )
        with self._engine.connect() as connection:
            return {row.question: row.answer for row in connection.execute(query)}

    def built(self, derivations: Collection[str]) -> set[tuple[str, str]]:
        """Say of which repositories there are images from any of these derivations."""
        query = (
            select(tags.c.name, tags.c.derivation)
            .distinct()
            .where(tags.c.derivation.in_(_all(derivations)))
        )
        with self._engine.connect() as connection:
            return {(row.name, row.derivation) for row in connection.execute(query)}

    def tagged(self, name: Name, derivation: str, tag: Tag) -> tuple[Manifest, ...]:
        """
        Give the manifests of an image by its tag.

        :returns: the preferred form first; none where there is no such image.
        """
        query = (
            select(manifests.c.media_type, manifests.c.body, manifests.c.digest)
            .join(
                tags,
                (tags.c.name == manifests.c.name)
                & (tags.c.digest == manifests.c.digest),
            )
            .where(
                tags.c.name == str(name),
                tags.c.derivation == derivation,
                tags.c.tag == str(tag),
            )
            .order_by(tags.c.preference)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(
            Manifest(row.media_type, row.body, parse_digest(row.digest)) for row in rows
        )

    def last_forms(self, name: Name) -> tuple[Manifest, ...]:
        """Give the manifests of the image that came last under this name, by any tag."""
        last = (
            select(tags.c.derivation, tags.c.tag)
            .join(sources, sources.c.derivation == tags.c.derivation)
            .where(tags.c.name == str(name))
            .order_by(sources.c.id.desc())
            .limit(1)
        )
        with self._engine.connect() as connection:
            row = connection.execute(last).one_or_none()
        return () if row is None else self.tagged(name, row.derivation, Tag(row.tag))

    def forget_tags(self, derivation: str) -> None:
        """Forget what the tags of a derivation mean; its manifests stay."""
        with self._writing() as connection:
            connection.execute(delete(tags).where(tags.c.derivation == derivation))

    def manifest(self, name: Name, digest: Digest) -> Manifest | None:
        """Give a manifest that was once answered under this name."""
        query = select(manifests.c.media_type, manifests.c.body).where(
            manifests.c.name == str(name), manifests.c.digest == str(digest)
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Manifest(row.media_type, row.body, digest)

    def blob(self, name: Name, digest: Digest) -> KnownBlob | None:
        """Give what is known of a blob of some image of this name."""
        query = _BLOBS.where(blobs.c.name == str(name), blobs.c.digest == str(digest))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _known_blob(row)

    def blobs_of(self, name: Name, source: Source) -> list[KnownBlob]:
        """List what an archive has for images of this name."""
        query = _BLOBS.where(
            blobs.c.name == str(name),
            sources.c.derivation == source.derivation,
            sources.c.archive == source.archive,
        )
        with self._engine.connect() as connection:
            return [_known_blob(row) for row in connection.execute(query)]

    def names(self, prefix: str) -> list[str]:
        """List the repositories that an image was remembered of, sorted."""
        query = (
            select(tags.c.name)
            .distinct()
            .where(tags.c.name.startswith(prefix, autoescape=True))
            .order_by(tags.c.name)
        )
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def remember_image(
        self,
        name: Name,
        tag: Tag,
        source: Source,
        forms: tuple[Manifest, ...],
        placed: Mapping[Descriptor, Place],
        parts: tuple[Manifest, ...] = (),
    ) -> None:
        """
        Note an image under a tag of this derivation.

        :param forms: the manifests that the tag can mean, the preferred one first.
        :param placed: every blob that there is, and where in the source.
        :param parts: the other manifests that those lead to.
        """
        with self._writing() as connection:
            _lose_places(connection, source)
            source_id = connection.execute(
                insert(sources)
                .values(attrs.asdict(source))
                .on_conflict_do_update(
                    index_elements=["derivation", "archive"],
                    set_=attrs.asdict(source),
                )
                .returning(sources.c.id)
            ).scalar_one()

            def note(table: Table, digest: Digest, **row: Any) -> None:
                found = {"name": str(name), "digest": str(digest)}
                connection.execute(upsert(table, found | row))

            for manifest in (*forms, *parts):
                media_type, body = manifest.media_type, manifest.body
                note(manifests, manifest.digest, media_type=media_type, body=body)
                note(origins, manifest.digest, source=source_id)
            for preference, manifest in enumerate(forms):
                row = {
                    "name": str(name),
                    "derivation": source.derivation,
                    "tag": str(tag),
                    "preference": preference,
                    "digest": str(manifest.digest),
                }
                connection.execute(upsert(tags, row))
            for blob, place in placed.items():
                note(blobs, blob.digest, size=blob.size, source=source_id)
                where = attrs.asdict(place)
                note(origins, blob.digest, source=source_id, **where)

    def note_places(self, source: Source, places: Mapping[Digest, Place]) -> None:
        """
        Note where blobs lie in an archive that was read again.

        :param source: with the stamp that it has now.
        :param places: of what it has now.
        """
        with self._writing() as connection:
            _lose_places(connection, source)
            source_id = connection.execute(
                update(sources)
                .where(_is_same(source))
                .values(stamp=source.stamp)
                .returning(sources.c.id)
            ).scalar_one_or_none()
            moved = update(origins).where(
                origins.c.source == source_id,
                origins.c.digest == bindparam("its_digest"),
            )
            rows = [
                {"its_digest": str(digest), **attrs.asdict(place)}
                for digest, place in places.items()
            ]
            if source_id is not None and rows:
                connection.execute(
                    moved.values(
                        path=bindparam("path"),
                        offset=bindparam("offset"),
                        is_plain=bindparam("is_plain"),
                    ),
                    rows,
                )


def _all(texts: Collection[str]) -> Select[tuple[str]]:
    # As one parameter: there may be thousands.
    listed = func.json_each(json.dumps([*texts])).table_valued("value")
    return select(listed.c.value)


def _is_same(source: Source) -> ColumnElement[bool]:
    return (sources.c.derivation == source.derivation) & (
        sources.c.archive == source.archive
    )


def _lose_places(connection: Connection, source: Source) -> None:
    """Where another file is at an archive's path, nothing lies where it did."""
    other = select(sources.c.id).where(
        _is_same(source), sources.c.stamp != source.stamp
    )
    connection.execute(
        update(origins)
        .where(origins.c.source.in_(other), origins.c.path.is_not(None))
        .values(path="", offset=-1, is_plain=False)
    )


_BLOBS = (
    select(
        blobs.c.digest,
        blobs.c.size,
        origins.c.offset,
        origins.c.path,
        origins.c.is_plain,
        sources.c.locked,
        sources.c.attribute,
        sources.c.derivation,
        sources.c.archive,
        sources.c.flake,
        sources.c.stamp,
    )
    .join(sources, sources.c.id == blobs.c.source)
    .join(
        origins,
        (origins.c.source == blobs.c.source)
        & (origins.c.name == blobs.c.name)
        & (origins.c.digest == blobs.c.digest),
    )
)


def _known_blob(row: Sequence[Any]) -> KnownBlob:
    digest, size = row[:2]
    return KnownBlob(parse_digest(digest), size, Source(*row[5:]), Place(*row[2:5]))
