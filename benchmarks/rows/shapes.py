"""
Archives of other shapes: time grows with bytes only.
"""

from __future__ import annotations

import statistics

from benchmarks import images
from benchmarks.bench import Bench, large
from benchmarks.rows.manifests import FirstManifest
from benchmarks.table import Point


def measure(bench: Bench) -> list[Point]:
    """Measure plain archives, of which the first is the one that others are like."""
    megabyte = bench.megabyte
    files = images.programs()
    few = [images.of_programs(files, 120 * megabyte) for _ in range(10)]
    many = [images.of_programs(files, 1200 * megabyte // 127) for _ in range(127)]
    points = []
    for what, archive in (
        ("10 layers", lambda: large(bench, packed=False)),
        ("127 layers", lambda: bench.archive("layers", many)),
        ("20,000 members", lambda: bench.archive("members", few, members=20_000)),
        (
            "a layer of 8 GB",
            lambda: bench.archive("giant", [images.of_noise(8192 * megabyte)]),
        ),
    ):
        made = archive()
        first = FirstManifest(bench, made)
        # What takes long needs no median.
        times = 1 if made.size > 2**32 else bench.times
        taken = [first.seconds() for _ in range(times)]
        points.append(Point(what, made.size, statistics.median(taken)))
        if made.name != "large":
            bench.forget(made)
    return points
