"""
Keep traces with OpenTelemetry, and send them to a collector by OTLP over HTTP.

A pull is one trace: the request for the manifest, the states of the build below it, and
what the same client asks of the same repository in the minutes after it. Whoever says
by ``traceparent`` which trace a request is of has it there instead.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from threading import Thread
from typing import Any

from attrs import define, field, frozen
from cachetools import TTLCache
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.web.http_headers import Headers

from forgereg.lines import header_text, masked
from forgereg.logs import logger
from forgereg.traces import NOTHING, Build, Span

_log = logger(__name__)

#: How many pulls are remembered, and how long, in seconds.
_MOST_PULLS, _PULL_SECONDS = 1000, 600
#: How long the end of the registry may wait for the collector, in seconds.
_STOP_SECONDS = 3
#: How often it is told that the collector cannot be reached, in seconds.
_SILENT_SECONDS = 600
#: How long a name or a text may be, in characters.
_MOST = 1024

_ROUTE = re.compile(r"/v2/(.+)/(manifests|blobs)/([^/]+)")
#: State of a build → span.
_STEPS = {
    "queued": "queue",
    "locking": "lock",
    "evaluating": "evaluate",
    "building": "build",
    "reading": "read",
}
_PROPAGATOR = TraceContextTextMapPropagator()


@frozen
class _Request:
    """A request that is traced."""

    _span: trace.Span

    @property
    def marks(self) -> Mapping[str, str]:
        found = self._span.get_span_context()
        return {
            "trace_id": trace.format_trace_id(found.trace_id),
            "span_id": trace.format_span_id(found.span_id),
        }

    def work(self) -> AbstractContextManager[object]:
        return trace.use_span(
            self._span, record_exception=False, set_status_on_exception=False
        )

    def end(self, status: int, sent_bytes: int, *, has_left: bool = False) -> None:
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("http.response.body.size", sent_bytes)
        if has_left:
            self._span.set_attribute("error.type", "client_left")
        elif status >= 500:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


@define
class _Pull:
    """A build: its span, and that of the state it is in."""

    span: trace.Span
    state: object = None
    step: trace.Span | None = None


@define(eq=False)
class OpenTelemetry:
    """Keeps traces, and sends them in a thread of its own."""

    is_on = True

    _provider: TracerProvider
    _clock: Callable[[], float]
    _tracer: Tracer = field(init=False)
    _builds: dict[str, _Pull] = field(init=False, factory=dict)
    #: client, repository → the request for its manifest, and whether a GET goes on with it
    _pulls: TTLCache[tuple[str, str], tuple[contexts.Context, bool]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tracer = self._provider.get_tracer("forgereg")
        self._pulls = TTLCache(_MOST_PULLS, _PULL_SECONDS, self._clock)

    def request(self, method: str, path: str, client: str, headers: Headers) -> Span:
        found = _ROUTE.fullmatch(path)
        if found is None or len(path) > _MOST:
            return NOTHING
        name, kind, reference = found.groups()
        is_tag, is_head = kind == "manifests" and ":" not in reference, method == "HEAD"
        parent = _told(headers)
        before = self._pulls.get((client, name))
        # Clients ask what a tag means by HEAD, and go on with GET.
        if parent is None and before and (not is_tag or (before[1] and not is_head)):
            parent = before[0]
        route = (
            f"/v2/{{name}}/{kind}/{{{'digest' if kind == 'blobs' else 'reference'}}}"
        )
        span = self._tracer.start_span(
            f"{method} {route}",
            parent if parent is not None else contexts.Context(),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": route,
                "url.path": masked(path),
                "url.scheme": "http",
                "client.address": client,
                "user_agent.original": header_text(
                    headers.getRawHeaders(b"user-agent", [b""])[0]
                )
                or "",
                "forge.repository": name,
            },
        )
        if kind == "manifests":
            known = before[0] if before and parent is before[0] else None
            here = known or trace.set_span_in_context(span, contexts.Context())
            may_go_on = is_head if is_tag else bool(before and before[1])
            self._pulls[client, name] = here, may_go_on
        return _Request(span)

    def moved(self, build: Build) -> None:
        pull = self._builds.get(build.id)
        if pull is None:
            if build.is_over:
                return
            about = {"forge.image": build.image, "forge.build": build.id}
            pull = _Pull(self._tracer.start_span("pull", attributes=about))
            self._builds[build.id] = pull
        if build.state is pull.state:
            return
        pull.state = build.state
        if pull.step is not None:
            self._end(pull.step, build)
        if build.is_over:
            del self._builds[build.id]
            self._end(pull.span, build)
            return
        owner = self._builds.get(build.owner_id or "")
        pull.step = self._tracer.start_span(
            _STEPS[str(build.state and build.state.value)],
            trace.set_span_in_context(pull.span),
            attributes={"forge.image": build.image},
            links=[Link(owner.span.get_span_context())] if owner else [],
        )

    def _end(self, span: trace.Span, build: Build) -> None:
        if build.derivation is not None:
            span.set_attribute("forge.derivation", build.derivation)
        if build.is_over and build.state is not None:
            span.set_attribute("forge.outcome", build.state.value)
            if build.error is not None:
                why = masked(build.error)[:_MOST]
                span.set_attribute("error.type", build.state.value)
                span.add_event("exception", {"exception.message": why})
                span.set_status(Status(StatusCode.ERROR, why))
        span.end()

    def joined(self, build: Build) -> None:
        pull = self._builds.get(build.id)
        if pull is not None:
            trace.get_current_span().add_link(pull.span.get_span_context())

    def sending(self) -> AbstractContextManager[object]:
        return self._tracer.start_as_current_span(
            "send", record_exception=False, set_status_on_exception=False
        )

    def stop(self) -> None:
        # What it waits for by itself may be half a minute.
        last = Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(_STOP_SECONDS)


def _told(headers: Headers) -> contexts.Context | None:
    """Give the trace that a client says its request is of."""
    carrier = {
        name: lines[0].decode("latin-1")
        for name in ("traceparent", "tracestate")
        if (lines := headers.getRawHeaders(name.encode()))
    }
    found = _PROPAGATOR.extract(carrier, contexts.Context())
    is_valid = trace.get_current_span(found).get_span_context().is_valid
    return found if is_valid else None


@define(eq=False)
class _Complaints(logging.Handler):
    """Puts what OpenTelemetry says into our log, but not again and again."""

    _clock: Callable[[], float]
    _again_at: float = field(init=False, default=float("-inf"))

    def __attrs_pre_init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        if self._clock() >= self._again_at:
            self._again_at = self._clock() + _SILENT_SECONDS
            _log.warn(
                "traces are not sent, and are dropped: {why}", why=record.getMessage()
            )


def open_traces(version: str, clock: Callable[[], float]) -> OpenTelemetry:
    """
    Begin to keep traces; the SDK reads ``OTEL_…`` from the environment.

    :param clock: gives seconds that only ever go forwards.
    """
    told = logging.getLogger("opentelemetry")
    told.addHandler(_Complaints(clock))
    told.propagate = False
    about: dict[str, Any] = {
        "service.name": "forge-registry",
        "service.version": version,
        **OTELResourceDetector().detect().attributes,
    }
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetry(provider, clock)
