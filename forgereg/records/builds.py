"""
Remember builds, and which image of a tag worked last. Blocking: for threads.

The tables are drawn in `forgereg.records.schema`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from attrs import frozen
from sqlalchemy import Engine, delete, select, text, update

from forgereg.oci.reference import Name, Tag
from forgereg.records.database import upsert, writing
from forgereg.records.schema import builds, last_good


@frozen
class BuildRecords:
    """The builds that were asked for; each method is one transaction."""

    _engine: Engine

    def save(self, rows: Iterable[dict[str, Any]], gone: Iterable[str] = ()) -> None:
        """
        Note how builds stand.

        :param rows: by column.
        :param gone: ids of builds that came to nothing.
        :raises DiskFull: there is no room.
        """
        with writing(self._engine) as connection:
            for row in rows:
                connection.execute(upsert(builds, row))
            connection.execute(delete(builds).where(builds.c.id.in_(list(gone))))

    def interrupt(self, over: Sequence[str], state: str, error: str) -> int:
        """
        Note that builds that were under way are not any more.

        :param over: the states that end a build.
        :param state: the one that it has from now on.
        :returns: how many there were.
        """
        query = update(builds).where(builds.c.state.not_in(over))
        with writing(self._engine) as connection:
            return connection.execute(query.values(state=state, error=error)).rowcount

    def newest(
        self, most: int, states: Sequence[str] = (), image: str = ""
    ) -> list[dict[str, Any]]:
        """
        List builds, the newest first.

        :param states: only those in one of these; empty for all.
        :param image: only those that have it in their image's name, whatever the case.
        """
        newest = builds.c.asked_at.desc(), text("rowid DESC")
        query = select(builds).order_by(*newest).limit(most)
        if states:
            query = query.where(builds.c.state.in_(states))
        if image:
            query = query.where(builds.c.image.icontains(image, autoescape=True))
        return self._select(query)

    def newest_of(
        self, locked: Collection[str], states: Collection[str], name: str = ""
    ) -> dict[str, tuple[str, str]]:
        """
        Give the newest build of each repository, of some locked flakes.

        :param states: only those in one of these.
        :param name: only that repository; empty for all.
        :returns: by repository, id and state.
        """
        query = (
            select(builds.c.image, builds.c.id, builds.c.state)
            .where(builds.c.locked.in_(locked), builds.c.state.in_(states))
            .order_by(builds.c.asked_at, text("rowid"))
        )
        if name:
            query = query.where(builds.c.image.startswith(f"{name}:", autoescape=True))
        with self._engine.connect() as connection:
            return {
                image.rpartition(":")[0]: (build_id, state)
                for image, build_id, state in connection.execute(query)
            }

    def find(self, build_id: str) -> dict[str, Any] | None:
        """Give one build."""
        found = self._select(select(builds).where(builds.c.id == build_id))
        return found[0] if found else None

    def _select(self, query: Any) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def forget_before(self, asked_at: float) -> list[str]:
        """
        Forget builds that were asked for before some time.

        :param asked_at: in seconds since the epoch.
        :returns: their ids.
        """
        query = delete(builds).where(builds.c.asked_at < asked_at)
        with writing(self._engine) as connection:
            return list(connection.execute(query.returning(builds.c.id)).scalars())

    def remember_good(self, name: Name, tag: Tag, derivation: str) -> None:
        """Note what a tag means, as far as it works."""
        row = {"name": str(name), "tag": str(tag), "derivation": derivation}
        with writing(self._engine) as connection:
            connection.execute(upsert(last_good, row))

    def last_good(self, name: Name, tag: Tag) -> str | None:
        """Give the derivation of the last image of a tag that worked."""
        query = select(last_good.c.derivation).where(
            last_good.c.name == str(name), last_good.c.tag == str(tag)
        )
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none()
