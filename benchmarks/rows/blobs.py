"""
Blobs that are there already, against nginx with the same bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks import peers
from benchmarks.bench import Bench, single, warm_layer
from benchmarks.clients import Fetched, curl, curl_together
from benchmarks.table import Mark, Row
from benchmarks.timing import in_turns
from tests.daemon import free_port

CLIENTS = 50


def measure(bench: Bench) -> Iterator[Row]:
    """Measure one client, without and with TLS."""
    archive = single(bench)
    folder = bench.folder()
    certificate = peers.make_certificate(folder)
    tls = free_port()
    flake = bench.flake(archive)
    endpoint = (
        f"ssl:{tls}:interface=127.0.0.1:privateKey={certificate.key}"
        f":certKey={certificate.path}"
    )
    times = 5 * bench.times
    with peers.nginx(folder, certificate) as nginx:
        with bench.serving(flake) as running:
            path = warm_layer(running, archive)
            url = f"http://127.0.0.1:{running.port}{path}"
            curl(url, into=nginx.root / "blob")
            ours, theirs = in_turns(
                lambda: curl(url).seconds,
                lambda: curl(f"http://127.0.0.1:{nginx.port}/blob").seconds,
                times,
            )
        yield Row(
            "blob", "warm blob of 1 GB, one client, plain HTTP",
            "nginx with sendfile", ours, theirs, mark=Mark(1.0),
        )  # fmt: skip
        state = bench.folder()
        with bench.serving(flake, folder=state) as running:
            warm_layer(running, archive)
        with bench.serving(
            flake, "--port", endpoint, port=tls, folder=state
        ) as running:
            ours, theirs = in_turns(
                lambda: curl(f"https://127.0.0.1:{tls}{path}").seconds,
                lambda: curl(f"https://127.0.0.1:{nginx.tls}/blob").seconds,
                times,
            )
        yield Row("blob-tls", "the same, TLS", "nginx", ours, theirs, mark=Mark(1.1))


def measure_crowd(bench: Bench) -> Iterator[Row]:
    """Measure many clients at once."""
    archive = single(bench)
    folder = bench.folder()
    certificate = peers.make_certificate(folder)
    with (
        peers.nginx(folder, certificate) as nginx,
        bench.serving(bench.flake(archive)) as running,
    ):
        url = f"http://127.0.0.1:{running.port}{warm_layer(running, archive)}"
        curl(url, into=nginx.root / "blob")
        spread: list[tuple[float, float]] = []

        def ours() -> float:
            fetched = curl_together(url, CLIENTS)
            taken = [each.seconds for each in fetched]
            spread.append((max(taken), statistics.median(taken)))
            return _throughput(fetched)

        def theirs() -> float:
            peer = f"http://127.0.0.1:{nginx.port}/blob"
            return _throughput(curl_together(peer, CLIENTS))

        # So many bytes that less would do.
        speeds = in_turns(ours, theirs, 1 if bench.is_quick else 2)
    work = f"{CLIENTS} clients × 1 GB at once, TLS off"
    yield Row(
        "crowd", f"{work}: total throughput", "nginx", *speeds, "MB/s",
        mark=Mark(0.9, is_least=True),
    )  # fmt: skip
    slowest, median = max(spread, key=lambda pair: pair[0] / pair[1])
    yield Row(
        "crowd-slowest", "the same: the slowest client", "the median client",
        slowest, median, mark=Mark(1.5),
    )  # fmt: skip


def _throughput(fetched: list[Fetched]) -> float:
    """Give megabytes in a second, until the last client has all of it."""
    total = sum(each.size for each in fetched)
    return total / 1e6 / max(each.seconds for each in fetched)
