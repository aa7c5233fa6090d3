"""
Remember what was resolved, evaluated and built. Blocking: for threads.

The tables are drawn in `forgereg.records.schema`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import attrs
from attrs import frozen
from sqlalchemy import URL, Connection, Engine, delete, select
from sqlalchemy.dialects.sqlite import insert

from forgereg.oci.descriptor import Image
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
    """

    locked: str
    attribute: str
    derivation: str
    archive: str
    flake: str = ""


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

    def blob(self, name: Name, digest: Digest) -> tuple[int, Source] | None:
        """
        Give what is known of a blob of some image of this name.

        :returns: its size in bytes, and what it can be read from again.
        """
        query = (
            select(
                blobs.c.size,
                sources.c.locked,
                sources.c.attribute,
                sources.c.derivation,
                sources.c.archive,
                sources.c.flake,
            )
            .join(sources, sources.c.id == blobs.c.source)
            .where(blobs.c.name == str(name), blobs.c.digest == str(digest))
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else (row[0], Source(*row[1:]))

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
        image: Image,
        written: tuple[Manifest, ...],
    ) -> None:
        """
        Note an image under a tag of this derivation.

        :param written: its manifests, the preferred form first.
        """
        with self._writing() as connection:
            source_id = connection.execute(
                insert(sources)
                .values(attrs.asdict(source))
                .on_conflict_do_update(
                    index_elements=["derivation", "archive"],
                    set_=attrs.asdict(source),
                )
                .returning(sources.c.id)
            ).scalar_one()
            for preference, manifest in enumerate(written):
                found = {"name": str(name), "digest": str(manifest.digest)}
                row: dict[str, Any] = {
                    "media_type": manifest.media_type,
                    "body": manifest.body,
                }
                connection.execute(upsert(manifests, found | row))
                row = {
                    "derivation": source.derivation,
                    "tag": str(tag),
                    "preference": preference,
                }
                connection.execute(upsert(tags, found | row))
            for blob in image.blobs:
                row = {
                    "name": str(name),
                    "digest": str(blob.digest),
                    "size": blob.size,
                    "source": source_id,
                }
                connection.execute(upsert(blobs, row))
            for digest in (
                *(m.digest for m in written),
                *(b.digest for b in image.blobs),
            ):
                row = {"source": source_id, "name": str(name), "digest": str(digest)}
                connection.execute(upsert(origins, row))
