"""Tests for `forgereg.records.database`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from forgereg.records.database import VERSION, VersionUnknown, open_engine
from forgereg.records.records import Records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite"


def run(path: Path, sql: str) -> list[tuple[int]]:
    """Have sqlite do something, as its own command would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


def test_opening_again(path: Path) -> None:
    """Records can be opened again by the version of the registry that made them."""
    for _ in range(2):
        open_engine(f"sqlite:///{path}").dispose()
    assert run(path, "PRAGMA user_version") == [(VERSION,)]


@pytest.mark.parametrize(
    "other",
    [
        "CREATE TABLE sources (id)",
        f"PRAGMA user_version = {VERSION + 1}",
    ],
)
def test_another_version(path: Path, other: str) -> None:
    """Records of an older or a newer version are refused, and left as they are."""
    run(path, other)
    with pytest.raises(VersionUnknown, match="move registry.sqlite away"):
        open_engine(f"sqlite:///{path}")
    assert run(path, "SELECT count(*) FROM sqlite_schema") < [(2,)]
    assert run(path, "PRAGMA user_version") != [(VERSION,)]


def test_writers_wait(path: Path) -> None:
    """Who writes waits for others who do, for longer than they need."""
    engine = open_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        timeout = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    assert timeout >= 30_000
    engine.dispose()


def test_errors_keep_secrets(path: Path) -> None:
    """An error that the log tells of does not repeat a password in a flake's ref."""
    records = Records.open(f"sqlite:///{path}")
    run(path, "DROP TABLE resolutions")
    with pytest.raises(SQLAlchemyError) as raised:
        records.resolution("git+https://me:s3cret@forge.example/x")
    assert "s3cret" not in str(raised.value)
    records.close()
