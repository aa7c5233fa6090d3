"""
Records of many images, against records of few.

One image is pulled; whatever was remembered of it is then written down again and again
under other names and digests, whatever the tables are.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from sqlalchemy import Column, Connection, Integer, Table, select

from benchmarks import images
from benchmarks.bench import Archive, Bench
from benchmarks.clients import ACCEPT, keep_alive
from benchmarks.table import Mark, Row
from forgereg.records.database import open_engine
from forgereg.records.schema import metadata

FEW, MANY = 100, 100_000
BATCH = 1000
ASKED = 500
#: Apart from which two images have ids of rows.
STRIDE = 1000

_NUMBER = "\0"
_OTHER = re.compile(r"(?<=[0-9a-f]{56})[0-9a-f]{8}\b|(?<=/nix/store/).{8}|(?<=counted)")


def measure(bench: Bench) -> Iterator[Row]:
    """Measure a manifest by digest, and the start."""
    many = MANY // 20 if bench.is_quick else MANY
    # A config and nine layers are ten blobs.
    archive = bench.archive("counted", [images.of_noise(n + 1) for n in range(9)])
    few_found, few_start = _measure(bench, archive, FEW)
    many_found, many_start = _measure(bench, archive, many)
    what = f"records with {many:,} images, {10 * many:,} blobs"
    for key, work, ours, theirs, unit in (
        ("records", f"{what}: manifest by digest", many_found, few_found, "ms"),
        ("records-start", "the same: start-up", many_start, few_start, "s"),
    ):
        yield Row(key, work, f"the same with {FEW}", ours, theirs, unit, Mark(1.5))


def _measure(bench: Bench, archive: Archive, count: int) -> tuple[float, float]:
    """Give milliseconds for a manifest by digest, and seconds for the start."""
    bench.say(f"  writing records of {count:,} images")
    folder = bench.folder()
    flake = bench.flake(archive)
    path = f"/v2/packages/{archive.name}/manifests"
    with bench.serving(flake, folder=folder) as running:
        answer = running.ask(f"{path}/latest", Accept=ACCEPT.split(": ", 1)[1])
        digest = answer.headers["docker-content-digest"]
    multiply(folder / "state" / "registry.sqlite", count)
    starts, waits = [], []
    for _ in range(1 + bench.times):
        bench.settle()
        begun = time.monotonic()
        # Nothing is to come out of memory, however few there are.
        with bench.serving(flake, "--cache-size", "1", folder=folder) as running:
            assert running.ask("/v2/").status == 200
            starts.append(time.monotonic() - begun)
            with keep_alive(running.port) as ask:
                for number in random.Random(1).choices(range(1, count), k=ASKED):
                    waits.append(ask(other(f"{path}/{digest}", number)))
    shutil.rmtree(folder)
    return statistics.median(waits) * 1000, statistics.median(starts[1:])


def template(text: str) -> str:
    """Mark what is another one for each image: digests, store paths and names. Pure."""
    return _OTHER.sub(_NUMBER, text)


def other(text: str, number: int) -> str:
    """Say what some text about the first image is for another one. Pure."""
    return template(text).replace(_NUMBER, f"{number:08d}")


def multiply(path: Path, count: int) -> None:
    """
    Write down an image again and again.

    :param path: of the records, in which there is one.
    :param count: how many there are to be.
    """
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        copies = [
            (table, found)
            for table in metadata.sorted_tables
            if (found := _copied(connection, table))
        ]
        numbers = iter(range(1, count))
        while batch := list(itertools.islice(numbers, BATCH)):
            for table, rows in copies:
                written = [row.write(number) for number in batch for row in rows]
                connection.execute(table.insert(), written)
    engine.dispose()


@frozen
class _Copied:
    """A row, as it is for any image: each column from the number of the image."""

    columns: dict[str, Callable[[int], Any]]

    def write(self, number: int) -> dict[str, Any]:
        return {name: value(number) for name, value in self.columns.items()}


def _copied(connection: Connection, table: Table) -> list[_Copied]:
    """Say how the rows of a table are copied; none whose primary key is the same."""
    found = []
    for row in connection.execute(select(table)).mappings():
        copied = _Copied({c.name: _column(c, row[c.name]) for c in table.columns})
        written = copied.write(1)
        if any(written[c.name] != row[c.name] for c in table.primary_key):
            found.append(copied)
    return found


def _column(column: Column[Any], value: Any) -> Callable[[int], Any]:
    if isinstance(value, str) and _NUMBER in (text := template(value)):
        return lambda number: text.replace(_NUMBER, f"{number:08d}")
    if isinstance(value, bytes):
        # Bodies of manifests are ASCII.
        body = template(value.decode())
        return lambda number: body.replace(_NUMBER, f"{number:08d}").encode()
    assert column.table is not None
    is_alone = column.primary_key and len(column.table.primary_key) == 1
    if isinstance(column.type, Integer) and (is_alone or column.foreign_keys):
        return lambda number: value + number * STRIDE
    return partial(_same, value)


def _same(value: Any, _number: int) -> Any:
    return value
