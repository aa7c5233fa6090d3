"""
What is counted and measured: every instrument there is, and their text for Prometheus.

Labels have few values, all of them ours: no name of an image, no client's address.
Source: Prometheus, "Metric and label naming"; OpenMetrics 1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field, frozen
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

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


@frozen(eq=False)
class Answers:
    """Where answers of one kind are counted, in a few microseconds each."""

    _requests: Counter
    _bytes: Counter
    _first: Histogram
    _whole: Histogram

    def count(self, sent: int, first: float | None, whole: float) -> None:
        """
        Count an answer.

        :param sent: bytes of its body that are not counted yet.
        :param first: how long it took to begin, in seconds; None where it never did.
        :param whole: how long it took in all, in seconds.
        """
        self._requests.inc()
        if sent:
            self._bytes.inc(sent)
        # Clocks may be set back.
        if first is not None:
            self._first.observe(max(0.0, first))
        self._whole.observe(max(0.0, whole))


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
    The registry's instruments, which may be used from any thread.

    What can be read is not counted beside: see `watch`.
    """

    registry: CollectorRegistry = field(init=False, factory=CollectorRegistry)
    requests: Counter = field(init=False)
    sent_bytes: Counter = field(init=False)
    first_byte_seconds: Histogram = field(init=False)
    request_seconds: Histogram = field(init=False)
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
    _answers: dict[tuple[str, str, int], Answers] = field(init=False, factory=dict)
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

        self.requests = counter(
            "http_requests_total",
            "Requests; status 499 where the connection ended before the answer did.",
            *("route", "method", "status"),
        )
        self.sent_bytes = counter(
            "http_sent_bytes_total", "Bytes of bodies sent, as they go.", "route"
        )
        self.first_byte_seconds = histogram(
            "http_first_byte_seconds",
            "From a request to the first byte of its answer.",
            _REQUEST,
            "route",
        )
        self.request_seconds = histogram(
            "http_request_seconds",
            "From a request to the end of its answer, or until its client left.",
            _REQUEST,
            "route",
        )
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

    def answers(self, route: str, method: str, status: int) -> Answers:
        """
        Say where answers of a kind are counted.

        :param route: one of few, as is the method.
        """
        key = (route, method, status)
        answers = self._answers.get(key)
        if answers is None:
            answers = self._answers[key] = Answers(
                self.requests.labels(route, method, str(status)),
                self.sent_bytes.labels(route),
                self.first_byte_seconds.labels(route),
                self.request_seconds.labels(route),
            )
        return answers

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
