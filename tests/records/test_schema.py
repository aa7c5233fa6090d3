"""Tests for `forgereg.records.schema`."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import String, Table, create_engine, inspect

from forgereg.oci.reference import Digest
from forgereg.records import schema
from forgereg.records.schema import metadata


def test_the_drawing_has_every_table() -> None:
    """Whoever reads the drawing sees every table, and none that is not there."""
    assert schema.__doc__ is not None
    drawn = re.findall(r"^    (\w+) +[a-z]", schema.__doc__, re.MULTILINE)
    assert set(drawn) == set(metadata.tables)


@pytest.mark.parametrize("table", metadata.tables.values(), ids=str)
def test_the_drawing_has_every_key(table: Table) -> None:
    """Whoever reads the drawing sees by what each table is looked up."""
    assert schema.__doc__ is not None
    line = re.search(rf"^    {table.name} +(.*?) *→", schema.__doc__, re.MULTILINE)
    assert line is not None
    keys = {column.name for column in table.primary_key} - {"preference", "id"}
    assert keys <= set(line[1].split(", "))


def test_digests_fit() -> None:
    """The longest digest has room in every column of digests."""
    longest = len(str(Digest("sha512", "0" * 128)))
    for table in metadata.tables.values():
        if "digest" in table.c:
            kind = table.c.digest.type
            assert isinstance(kind, String) and kind.length == longest


def test_tables_can_be_made() -> None:
    """The tables that are described are the tables that are made."""
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    metadata.create_all(engine)
    assert set(inspect(engine).get_table_names()) == set(metadata.tables)
    engine.dispose()
