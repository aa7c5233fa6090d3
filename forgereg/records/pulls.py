"""
Remember when, and how often, what is pulled. Blocking: for threads.

The tables are drawn in `forgereg.records.schema`.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from sqlalchemy import (
    Engine,
    delete,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from forgereg.oci.reference import Digest, Name, Tag
from forgereg.records.database import writing
from forgereg.records.schema import (
    pull_days,
    pulls,
)

_DAY_SECONDS = 86400


@frozen
class Pull:
    """
    A manifest that was answered, once or more.

    :ivar tag: None where it was asked for by digest.
    :ivar pulled_at: the last time, in seconds since the epoch.
    :ivar count: how often.
    """

    name: Name
    digest: Digest
    tag: Tag | None
    pulled_at: float
    count: int = 1


@frozen
class PulledOn:
    """
    How often something of a repository was pulled on one day.

    :ivar day: days since the epoch, UTC.
    :ivar tag: by which; None for by digest.
    """

    day: int
    tag: Tag | None
    count: int


def day_of(epoch: float) -> int:
    """Give the day of a time in seconds since the epoch, UTC."""
    return int(epoch // _DAY_SECONDS)


@frozen
class Pulls:
    """
    When what was pulled, in the database of `Records`.

    Each method is one transaction; those that write raise `DiskFull` where there is
    no room.
    """

    _engine: Engine

    def note(self, batch: Iterable[Pull]) -> None:
        """
        Note when manifests were pulled, and how often on that day.

        Of one manifest by one tag the last time counts.
        """
        rows = [
            {
                "name": str(pull.name),
                "digest": str(pull.digest),
                "tag": "" if pull.tag is None else str(pull.tag),
                "pulled_at": pull.pulled_at,
                "day": day_of(pull.pulled_at),
                "count": pull.count,
            }
            for pull in batch
        ]
        if not rows:
            return
        with writing(self._engine) as connection:
            for table, set_ in (
                (pulls, lambda old, new: {"pulled_at": new.pulled_at}),
                (pull_days, lambda old, new: {"count": old["count"] + new["count"]}),
            ):
                columns = table.c.keys()
                made = insert(table)
                noted = made.on_conflict_do_update(
                    index_elements=[column.name for column in table.primary_key],
                    set_=set_(table.c, made.excluded),
                )
                mine = [{column: row[column] for column in columns} for row in rows]
                connection.execute(noted, mine)

    def days(self, name: Name, since: int) -> list[PulledOn]:
        """
        List how often a repository was pulled, the first day first.

        :param since: the first day, in days since the epoch.
        """
        day, tag = pull_days.c.day, pull_days.c.tag
        query = (
            select(day, tag, func.sum(pull_days.c["count"]))
            .where(pull_days.c.name == str(name), day >= since)
            .group_by(day, tag)
            .order_by(day, tag)
        )
        with self._engine.connect() as connection:
            return [
                PulledOn(day, Tag(tag) if tag else None, count)
                for day, tag, count in connection.execute(query)
            ]

    def last(self, name: Name) -> float | None:
        """Give when a manifest of a repository was last pulled."""
        query = select(func.max(pulls.c.pulled_at)).where(pulls.c.name == str(name))
        with self._engine.connect() as connection:
            last: float | None = connection.execute(query).scalar_one()
        return last

    def forget_days(self, before: int) -> None:
        """Forget how often what was pulled before some day since the epoch."""
        with writing(self._engine) as connection:
            connection.execute(delete(pull_days).where(pull_days.c.day < before))

    def pulled_since(self, epoch: float) -> list[tuple[Name, Tag]]:
        """
        List what was pulled by tag, the newest first.

        :param epoch: seconds since the epoch.
        """
        last = func.max(pulls.c.pulled_at)
        query = (
            select(pulls.c.name, pulls.c.tag)
            .where(pulls.c.tag != "", pulls.c.pulled_at >= epoch)
            .group_by(pulls.c.name, pulls.c.tag)
            .order_by(last.desc(), pulls.c.name, pulls.c.tag)
        )
        with self._engine.connect() as connection:
            return [(Name(row[0]), Tag(row[1])) for row in connection.execute(query)]
