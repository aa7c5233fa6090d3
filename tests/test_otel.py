"""Tests for `forgereg.otel`, with what it would send."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forgereg.otel import OpenTelemetry
from tests.client import ask
from tests.registry import ANY_FORM, Served, serving

LATEST = "/v2/packages/hello/manifests/latest"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")


class Sent(InMemorySpanExporter):
    """What would have been sent to a collector."""

    def named(self, name: str) -> list[ReadableSpan]:
        """Give the spans of a name, in the order in which they ended."""
        return [span for span in self.get_finished_spans() if span.name == name]

    @property
    def traces(self) -> list[set[str]]:
        """The names of the spans of each trace."""
        found: dict[int, set[str]] = {}
        for span in self.get_finished_spans():
            assert span.context is not None
            found.setdefault(span.context.trace_id, set()).add(span.name)
        return list(found.values())


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def traced(tmp_path: Path, sent: Sent) -> Iterator[Served]:
    """A registry whose traces are kept."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(sent))
    with serving(tmp_path, tracer=OpenTelemetry(provider, lambda: 0.0)) as served:
        yield served


def test_a_pull_is_one_trace(traced: Served, sent: Sent) -> None:
    """From the manifest to the last blob, all that a pull takes is one trace."""
    traced.pull("packages/hello")
    (names,) = sent.traces
    assert {"pull", "lock", "evaluate", "build", "read", "send"} < names
    assert {
        "GET /v2/{name}/manifests/{reference}",
        "GET /v2/{name}/blobs/{digest}",
    } < names


def test_what_is_told(traced: Served, sent: Sent) -> None:
    """Spans say what was asked, by whom, and what came of it."""
    traced.get(f"{LATEST}?token=sesame", [*ANY_FORM, ("User-Agent", "podman/5")])
    (asked,) = sent.named("GET /v2/{name}/manifests/{reference}")
    assert asked.attributes is not None
    assert asked.attributes["http.request.method"] == "GET"
    assert asked.attributes["url.path"] == LATEST
    assert asked.attributes["http.response.status_code"] == 200
    assert asked.attributes["client.address"] == "192.0.2.1"
    assert asked.attributes["user_agent.original"] == "podman/5"
    (pull,) = sent.named("pull")
    assert pull.attributes is not None
    assert pull.attributes["forge.image"] == "packages/hello:latest"
    assert pull.attributes["forge.outcome"] == "done"
    assert "sesame" not in "".join(s.to_json() for s in sent.get_finished_spans())


def test_head_then_get(traced: Served, sent: Sent) -> None:
    """Docker's HEAD by tag, GET by digest and blobs are one pull, and the next another."""
    for _ in range(2):
        digest = traced.head(LATEST, ANY_FORM)["Docker-Content-Digest"]
        traced.get(f"/v2/packages/hello/manifests/{digest}", ANY_FORM)
        traced.get(LATEST, ANY_FORM)
    assert len(sent.traces) == 2


def test_other_clients(traced: Served, sent: Sent) -> None:
    """The pulls of two clients are two traces, also where the answer is remembered."""
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        ask(traced.site, "GET", LATEST, ANY_FORM, address=address)
    assert len(sent.traces) == 3


def test_a_trace_that_a_client_names(traced: Served, sent: Sent) -> None:
    """Who says which trace a request is of has it there, and nowhere else."""
    for _ in range(3):
        traced.get(LATEST, [*ANY_FORM, PARENT])
    traced.get(LATEST, [*ANY_FORM, ("traceparent", "nonsense")])
    found = {
        f"{s.context.trace_id:032x}" for s in sent.get_finished_spans() if s.context
    }
    assert TRACE in found and len(found) == 2


def test_who_joins_a_build(traced: Served, sent: Sent) -> None:
    """Who waits for what another one's pull builds is linked to that pull."""
    traced.nix.pause()
    first = traced.begin(LATEST, ANY_FORM)
    second = traced.begin(LATEST, [*ANY_FORM, PARENT])
    traced.nix.resume()
    assert first.answer().status == second.answer().status == 200
    (pull,) = sent.named("pull")
    asked = sent.named("GET /v2/{name}/manifests/{reference}")
    (joined,) = (span for span in asked if span.links)
    assert pull.context and joined.context
    assert joined.links[0].context.trace_id == pull.context.trace_id
    assert f"{joined.context.trace_id:032x}" == TRACE


def test_a_build_that_fails(traced: Served, sent: Sent) -> None:
    """A failure is told with its reason, without secrets."""
    traced.nix.fail("build", "error: https://me:sesame@host is gone")
    assert traced.get(LATEST, ANY_FORM).status == 422
    (pull,) = sent.named("pull")
    assert pull.attributes and pull.attributes["forge.outcome"] == "failed"
    assert not pull.status.is_ok and pull.events
    assert "sesame" not in pull.to_json()


def test_a_client_that_leaves(traced: Served, sent: Sent) -> None:
    """Who leaves has the span ended, and the build goes on in the trace."""
    traced.nix.pause()
    traced.begin(LATEST, ANY_FORM).hang_up()
    (asked,) = sent.named("GET /v2/{name}/manifests/{reference}")
    assert asked.attributes and asked.attributes["error.type"] == "client_left"
    traced.nix.resume()
    (names,) = sent.traces
    assert {"build", "read"} < names


def test_what_is_no_pull(traced: Served, sent: Sent) -> None:
    """What machines ask all the time is not traced."""
    for path in ("/v2/", "/metrics", "/healthz", "/v2/packages/hello/tags/list"):
        traced.get(path)
    assert sent.named("GET") == [] and len(sent.get_finished_spans()) == 0
