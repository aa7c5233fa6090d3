"""
Manifests that are known: how many in a second, and how soon under load.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks import images, peers
from benchmarks.bench import Bench, large, single, warm_layer
from benchmarks.clients import ACCEPT, fetching, first_in_line, keep_asking, wrk
from benchmarks.table import Mark, Row
from benchmarks.timing import in_turns, percentile

CONNECTIONS = 16
BLOBS = 20
IDLE_SECONDS = 5.0


def measure(bench: Bench) -> Iterator[Row]:
    """Measure requests in a second, by tag and by digest, each server on one core."""
    files = images.programs()
    fills = [images.of_programs(files, 2**20) for _ in range(10)]
    archive = bench.archive("modest", fills)
    folder = bench.folder()
    seconds = 2 if bench.is_quick else 5
    name = f"/v2/packages/{archive.name}/manifests"
    with (
        bench.serving(bench.flake(archive), cores={0}) as running,
        peers.docker_registry(folder, {0}) as port,
    ):
        peers.give(running, archive.name, port)
        answer = running.ask(f"{name}/latest", Accept=ACCEPT.split(": ", 1)[1])
        digest = answer.headers["docker-content-digest"]

        def asked(at: int, reference: str) -> float:
            url = f"http://127.0.0.1:{at}{name}/{reference}"
            return wrk(url, connections=CONNECTIONS, seconds=seconds, cores={1})

        for key, what, reference in (
            ("requests", "by tag", "latest"),
            ("requests-digest", "by digest", digest),
        ):
            rates = in_turns(
                lambda ref=reference: asked(running.port, ref),  # type: ignore[misc]
                lambda ref=reference: asked(port, ref),  # type: ignore[misc]
                bench.times,
            )
            yield Row(
                key,
                f"warm manifests {what}, {CONNECTIONS} connections, one core each",
                "docker-registry",
                *rates,
                "/s",
                mark=Mark(5.0, is_least=True),
            )


def measure_latency(bench: Bench) -> Iterator[Row]:
    """Measure how much longer one waits while others are served."""
    blob, unread = single(bench), large(bench, packed=True)
    flake = bench.flake(blob, unread)
    with bench.serving(flake) as running, first_in_line():
        path = f"/v2/packages/{blob.name}/manifests/latest"
        layer = warm_layer(running, blob)
        enough = time.monotonic() + (1 if bench.is_quick else IDLE_SECONDS)
        idle = keep_asking(running.port, path, lambda: time.monotonic() > enough)
        with (
            fetching(f"http://127.0.0.1:{running.port}{layer}", BLOBS),
            ThreadPoolExecutor(1) as pool,
        ):
            manifest = f"/v2/packages/{unread.name}/manifests/latest"
            reading = pool.submit(running.ask, manifest)
            busy = keep_asking(running.port, path, reading.done)
        assert reading.result().status == 200, reading.result().body
    yield Row(
        "latency",
        f"95th percentile of a manifest while {BLOBS} blobs are being sent and one"
        " 1.2 GB archive is being read",
        "the same, idle",
        percentile(busy, 0.95) * 1000,
        percentile(idle, 0.95) * 1000,
        "ms",
        mark=Mark(5.0),
        remark=f"{len(busy)} requests against {len(idle)}; at most"
        f" {max(busy) * 1000:.0f} ms. The clients have the lowest priority, as they"
        " stand for other machines.",
    )
