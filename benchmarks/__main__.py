"""
Measure, print the table, and write the page: `make bench`.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from benchmarks import machine, pictures
from benchmarks.bench import Bench
from benchmarks.rows import (
    blobs,
    coding,
    manifests,
    memory,
    pages,
    pulls,
    records,
    requests,
    shapes,
)
from benchmarks.table import Row, Run, write_page, write_points, write_table

ROOT = Path(__file__).parent.parent
NOTES = Path(__file__).parent / "notes.toml"

#: In the order of the page.
GROUPS: dict[str, Callable[[Bench], Iterable[Row]]] = {
    "manifests": manifests.measure,
    "cold-pull": pulls.measure_cold,
    "blobs": blobs.measure,
    "crowd": blobs.measure_crowd,
    "requests": requests.measure,
    "latency": requests.measure_latency,
    "copy": pulls.measure_copy,
    "memory": memory.measure,
    "records": records.measure,
    "coding": coding.measure,
    "page": pages.measure,
}
SHAPES = "shapes"


def _groups(_context: object, _option: object, given: str) -> list[str]:
    names = [*GROUPS, SHAPES]
    wanted = given.split(",") if given else names
    if unknown := [name for name in wanted if name not in names]:
        raise click.BadParameter(f"no {unknown[0]!r}; there are {', '.join(names)}")
    return wanted


@click.command()
@click.option("--only", default="", callback=_groups, help="Some, with commas between.")
@click.option("--quick", is_flag=True, help="A tenth of the sizes, each measured once.")
@click.option(
    "--tmp",
    type=click.Path(exists=True, file_okay=False),
    default="/var/tmp",
    show_default=True,
    help="Where there is room: 30 GB for all.",
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the page here, and the pictures into a folder of its name.",
)
def main(only: list[str], quick: bool, tmp: str, page: Path | None) -> None:
    """Measure the registry against its peers, side by side."""
    # So that everything is cleaned up, whoever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(dir=tmp, prefix="bench-") as folder:
        bench = Bench(Path(folder), quick)
        ran_on = machine.describe(Path(folder))
        try:
            run = measure(bench, only, ran_on)
        finally:
            bench.close()
            Path(folder).mkdir(exist_ok=True)  # its own end is to find it
    if page is not None:
        write(run, page)


def measure(bench: Bench, wanted: list[str], ran_on: dict[str, str]) -> Run:
    """Measure; print each group as soon as it is known."""
    rows: list[Row] = []
    for name, group in GROUPS.items():
        if name in wanted:
            bench.say(name)
            start = time.monotonic()
            found = list(group(bench))
            bench.say(f"  {time.monotonic() - start:.0f} s")
            print(write_table(found), flush=True)
            rows += found
    points = []
    if SHAPES in wanted:
        bench.say(SHAPES)
        points = shapes.measure(bench)
        print(write_points(points), flush=True)
    return Run(tuple(rows), tuple(points), ran_on, bench.is_quick)


def write(run: Run, page: Path) -> None:
    """Write the page and its pictures."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = pictures.draw(run)
    for name, (svg, _) in drawn.items():
        (folder / name).write_text(svg)
    paths = {title: f"{folder.name}/{name}" for name, (_, title) in drawn.items()}
    page.write_text(write_page(run, read_notes(), paths))


def read_notes() -> dict[str, str]:
    """Read what is noted about rows, by their keys."""
    notes: dict[str, str] = tomllib.loads(NOTES.read_text())
    return notes


if __name__ == "__main__":
    main()
