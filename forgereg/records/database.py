"""
Open the database of the records, and write to it. Blocking: for threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, inspect
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from forgereg.oci.errors import DiskFull
from forgereg.records.schema import metadata

#: How SQLite says that the disk is full: with a page in hand, and without.
_NO_ROOM = ("is full", "disk I/O error")
#: How it says that it may not write, or not now.
_NO_WRITING = ("readonly", "unable to open", "is locked")
#: Of the tables; another one whenever they change.
VERSION = 3


class VersionUnknown(SQLAlchemyError):
    """The tables are those of another version of the registry."""


def open_engine(url: str | URL) -> Engine:
    """
    Open a database, making what tables it lacks.

    :param url: as SQLAlchemy reads it.
    :raises sqlalchemy.exc.SQLAlchemyError: it cannot be opened, is damaged, or was
        made by another version.
    """
    # Refs of flakes may have a password in them, which errors would repeat.
    engine = create_engine(url, hide_parameters=True)
    event.listen(engine, "connect", _tune_sqlite)
    try:
        with engine.begin() as connection:
            _prepare(connection)
    except SQLAlchemyError:
        engine.dispose()
        raise
    return engine


def _prepare(connection: Connection) -> None:
    found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    # Before there were versions, there were tables.
    if found != VERSION and (found or inspect(connection).get_table_names()):
        raise VersionUnknown(
            f"they were written by another version of the registry (tables of version"
            f" {found} rather than {VERSION}); move registry.sqlite away, and it begins"
            " anew"
        )
    metadata.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")


def _tune_sqlite(connection: Any, _record: object) -> None:
    # A reader never waits for the writer, and a killed process loses nothing that
    # was committed. Source: SQLite, "Write-Ahead Logging".
    for pragma in (
        # First, as what follows may have to wait; of writers, in milliseconds.
        "busy_timeout=60000",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """
    Write in one transaction.

    :raises DiskFull: there is no room for it, or no writing at all.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except OperationalError as e:
        if any(sign in str(e.orig) for sign in _NO_ROOM):
            raise DiskFull("the registry's disk has no room for records") from e
        if any(sign in str(e.orig) for sign in _NO_WRITING):
            raise DiskFull(f"the registry cannot write its records: {e.orig}") from e
        raise


def check(engine: Engine) -> None:
    """
    See whether the records can be read and written; nothing is changed.

    :raises DiskFull: they cannot be written.
    :raises sqlalchemy.exc.SQLAlchemyError: they cannot be read.
    """
    with writing(engine) as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        connection.exec_driver_sql(f"PRAGMA user_version = {found}")
        connection.rollback()


def upsert(table: Table, row: dict[str, Any]) -> Insert:
    """Insert a row, or bring the one with its primary key up to date."""
    key = [column.name for column in table.primary_key]
    rest = {name: value for name, value in row.items() if name not in key}
    made = insert(table).values(row)
    if not rest:
        return made.on_conflict_do_nothing()
    return made.on_conflict_do_update(index_elements=key, set_=rest)
