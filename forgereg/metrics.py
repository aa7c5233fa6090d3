"""
What is counted and measured: every instrument there is, and their text for Prometheus.

Labels have few values, all of them ours: no name of an image, no client's address.
Source: Prometheus, "Metric and label naming"; OpenMetrics 1.0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from math import inf

from attrs import define, field, frozen
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# When each counter began: as many lines again, which nothing here asks for.
disable_created_metrics()

_OPENMETRICS = "application/openmetrics-text"
#: The bounds of histograms, in seconds. A first pull takes as long as its build.
_REQUEST = (
    *(0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1, 2.5, 5, 10),
    *(30, 60, 120, 300, 600, 1800),
)
_BUILD = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
_EVALUATION = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_READING = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


@define(eq=False)
class _Durations:
    """A histogram for one thread, without the library's locks."""

    _counts: list[int] = field(init=False, factory=lambda: [0] * (len(_REQUEST) + 1))
    _sum: float = field(init=False, default=0.0)

    def observe(self, seconds: float) -> None:
        seconds = max(0.0, seconds)  # clocks may be set back
        self._counts[bisect_left(_REQUEST, seconds)] += 1
        self._sum += seconds

    def tell(self, family: HistogramMetricFamily, route: str) -> None:
        bounds = map(floatToGoString, (*_REQUEST, inf))
        family.add_metric(
            [route], [*zip(bounds, accumulate(self._counts), strict=True)], self._sum
        )


@define(eq=False)
class _Route:
    sent: int = 0
    first: _Durations = field(init=False, factory=_Durations)
    whole: _Durations = field(init=False, factory=_Durations)


@define(eq=False)
class Answers:
    """Where answers of one kind are counted, in the reactor's thread."""

    _route: _Route
    times: int = field(init=False, default=0)

    def count(self, sent: int, first: float | None, whole: float) -> None:
        """
        Count an answer.

        :param sent: bytes of its body that are not counted yet.
        :param first: how long it took to begin, in seconds; None where it never did.
        :param whole: how long it took in all, in seconds.
        """
        self.times += 1
        self._route.sent += sent
        if first is not None:
            self._route.first.observe(first)
        self._route.whole.observe(whole)


@define(eq=False)
class Requests(Collector):
    """
    What is counted of requests, of which there may be thousands in a second.

    The library's instruments would take a quarter of the time in which an answer is
    given out of memory.
    """

    _routes: dict[str, _Route] = field(init=False, factory=dict)
    _answers: dict[tuple[str, str, int], Answers] = field(init=False, factory=dict)

    def answers(self, route: str, method: str, status: int) -> Answers:
        """
        Say where answers of a kind are counted.

        :param route: one of few, as is the method.
        """
        key = (route, method, status)
        answers = self._answers.get(key)
        if answers is None:
            answers = self._answers[key] = Answers(self._route(route))
        return answers

    def sent(self, route: str, count: int) -> None:
        """Count bytes of an answer that goes on."""
        self._route(route).sent += count

    def _route(self, name: str) -> _Route:
        return self._routes.setdefault(name, _Route())

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "forge_http_requests",
            "Requests; status 499 where the connection ended before the answer did.",
            labels=["route", "method", "status"],
        )
        for (name, method, status), answers in list(self._answers.items()):
            requests.add_metric([name, method, str(status)], answers.times)
        sent = CounterMetricFamily(
            "forge_http_sent_bytes",
            "Bytes of bodies sent, as they go.",
            labels=["route"],
        )
        first = HistogramMetricFamily(
            "forge_http_first_byte_seconds",
            "From a request to the first byte of its answer.",
            labels=["route"],
        )
        whole = HistogramMetricFamily(
            "forge_http_request_seconds",
            "From a request to the end of its answer, or of the connection.",
            labels=["route"],
        )
        for name, route in list(self._routes.items()):
            sent.add_metric([name], route.sent)
            route.first.tell(first, name)
            route.whole.tell(whole, name)
        yield from (requests, sent, first, whole)


@frozen(eq=False)
class Cache:
    """Where the questions to a cache are counted."""

    _hits: Counter
    _misses: Counter

    def count(self, is_hit: bool) -> None:
        """Count whether something was there."""
        (self._hits if is_hit else self._misses).inc()


@contextmanager
def timed(histogram: Histogram, clock: Callable[[], float]) -> Iterator[None]:
    """
    Observe how long a block takes, whatever comes of it.

    :param clock: gives seconds.
    """
    start = clock()
    try:
        yield
    finally:
        histogram.observe(max(0.0, clock() - start))


@define(eq=False)
class Metrics:
    """
    The registry's instruments, which may be used from any thread but for `requests`.

    What can be read is not counted beside: see `watch`.
    """

    registry: CollectorRegistry = field(init=False, factory=CollectorRegistry)
    requests: Requests = field(init=False, factory=Requests)
    connections: Gauge = field(init=False)
    active_requests: Gauge = field(init=False)
    transfers: Gauge = field(init=False)
    builds: Counter = field(init=False)
    active_builds: Gauge = field(init=False)
    build_seconds: Histogram = field(init=False)
    evaluation_seconds: Histogram = field(init=False)
    reading_seconds: Histogram = field(init=False)
    slots: Gauge = field(init=False)
    taken_slots: Gauge = field(init=False)
    queue_length: Gauge = field(init=False)
    cache_hits: Counter = field(init=False)
    cache_misses: Counter = field(init=False)
    blob_bytes: Gauge = field(init=False)
    blob_limit_bytes: Gauge = field(init=False)
    sweeps: Counter = field(init=False)
    swept_images: Counter = field(init=False)
    swept_bytes: Counter = field(init=False)
    sweep_time: Gauge = field(init=False)
    scrubbed_blobs: Counter = field(init=False)
    scrubbed_bytes: Counter = field(init=False)
    damaged_blobs: Counter = field(init=False)
    processes: Gauge = field(init=False)
    started_processes: Counter = field(init=False)
    lag: Gauge = field(init=False)
    lag_seconds: Histogram = field(init=False)
    info: Info = field(init=False)
    _watched: list[Callable[[], object]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"forge_{name}", help, labels, registry=self.registry)

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(f"forge_{name}", help, labels, registry=self.registry)

        def histogram(
            name: str, help: str, bounds: tuple[float, ...], *labels: str
        ) -> Histogram:
            return Histogram(
                f"forge_{name}", help, labels, registry=self.registry, buckets=bounds
            )

        self.registry.register(self.requests)
        self.connections = gauge("http_connections", "Connections that are open.")
        self.active_requests = gauge(
            "http_active_requests", "Requests that are waiting or being answered."
        )
        self.transfers = gauge("http_transfers", "Blobs that are being sent.")
        self.builds = counter(
            "builds_total",
            "Builds that ended; those interrupted by the last stop count at start.",
            "outcome",
        )
        self.active_builds = gauge(
            "active_builds", "Builds under way, by where they stand.", "state"
        )
        self.build_seconds = histogram(
            "build_seconds", "How long nix built, whatever came of it.", _BUILD
        )
        self.evaluation_seconds = histogram(
            "evaluation_seconds",
            "How long nix evaluated, whatever came of it.",
            _EVALUATION,
        )
        self.reading_seconds = histogram(
            "archive_reading_seconds", "How long archives took to be read.", _READING
        )
        self.slots = gauge("slots", "How many may run at a time.", "work")
        self.taken_slots = gauge("slots_taken", "How many are running.", "work")
        self.queue_length = gauge(
            "queue_length", "How many wait for one of the slots.", "work"
        )
        self.cache_hits = counter(
            "cache_hits_total", "What was there when it was asked for.", "cache"
        )
        self.cache_misses = counter(
            "cache_misses_total", "What had to be made or fetched.", "cache"
        )
        self.blob_bytes = gauge(
            "blob_store_bytes", "What the blob store takes on the disk."
        )
        self.blob_limit_bytes = gauge(
            "blob_store_limit_bytes", "What it may take (FORGE_BLOBS_SIZE), or +Inf."
        )
        self.sweeps = counter("sweeps_total", "Sweeps that came to their end.")
        self.swept_images = counter("swept_images_total", "Images that were let go of.")
        self.swept_bytes = counter(
            "swept_bytes_total", "Bytes that sweeps freed on the registry's disk."
        )
        self.sweep_time = gauge(
            "last_sweep_timestamp_seconds",
            "When the last sweep came to its end; 0 if none has since the start.",
        )
        self.scrubbed_blobs = counter(
            "scrubbed_blobs_total", "Files of blobs that were checked on the disk."
        )
        self.scrubbed_bytes = counter(
            "scrubbed_bytes_total", "Bytes of blobs that were read for that."
        )
        self.damaged_blobs = counter(
            "damaged_blobs_total", "Files of blobs that had rotted, and were dropped."
        )
        self.processes = gauge(
            "processes", "Children that run: nix, git, images' scripts.", "kind"
        )
        self.started_processes = counter(
            "processes_started_total", "Children that were started.", "kind"
        )
        self.lag = gauge(
            "reactor_lag_latest_seconds",
            "How late the reactor was when it was last looked at, once a second.",
        )
        self.lag_seconds = histogram(
            "reactor_lag_seconds", "How late the reactor was, once a second.", _LAG
        )
        self.info = Info(
            "forge_registry", "Which version runs.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def cache(self, name: str) -> Cache:
        """Say where the questions to a cache are counted."""
        return Cache(self.cache_hits.labels(name), self.cache_misses.labels(name))

    def watch(self, look: Callable[[], object]) -> None:
        """Have something looked at before each scrape, in the reactor's thread."""
        self._watched.append(look)

    def look(self) -> None:
        """Bring up to date what is watched."""
        for look in self._watched:
            look()

    def text(self, accept: str) -> tuple[str, bytes]:
        """
        Write everything down. Blocking.

        :param accept: what the client reads, as HTTP's header has it.
        :returns: the media type, and the text.
        """
        # Who names it reads it; all others read what Prometheus always had.
        if _OPENMETRICS in accept:
            text = openmetrics.generate_latest(self.registry)
            return openmetrics.CONTENT_TYPE_LATEST, text
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self.registry)
