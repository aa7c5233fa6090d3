"""
Memory, with many clients that are slow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.bench import Bench, single, warm_layer
from benchmarks.clients import reading_slowly
from benchmarks.table import Mark, Row

CLIENTS = 500
LIMIT_MB = 200.0
SECONDS = 10


def measure(bench: Bench) -> Iterator[Row]:
    """Measure the most memory that the registry had while they were there."""
    archive = single(bench)
    with bench.serving(bench.flake(archive)) as running:
        path = warm_layer(running, archive)
        before = running.resident_bytes() / 1e6
        with reading_slowly(running.port, path, CLIENTS) as clients:
            for _ in range(2 if bench.is_quick else SECONDS):
                for client in clients:
                    assert client.recv(2**14), "a client was sent away"
                time.sleep(1)
            after = running.resident_bytes() / 1e6
    yield Row(
        "memory",
        f"resident memory at {CLIENTS} slow clients, at most",
        "as much as it may be",
        after,
        LIMIT_MB,
        "MB",
        mark=Mark(1.0),
        remark=f"It was {before:.0f} MB before they came.",
    )
