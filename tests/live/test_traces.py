"""A pull as a collector sees it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.daemon import registry


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Run a collector; give its URL and what comes."""
    came: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            came.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", came
    server.shutdown()
    thread.join()
    server.server_close()


def spans(came: list[ExportTraceServiceRequest]) -> dict[bytes, list[Span]]:
    """Give the spans of each trace."""
    found: dict[bytes, list[Span]] = defaultdict(list)
    for request in came:
        for resource in request.resource_spans:
            names = {each.key: each.value for each in resource.resource.attributes}
            assert names["service.name"].string_value == "forge-registry"
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found[span.trace_id].append(span)
    return found


def test_a_pull(tmp_path: Path, example: str, store: Path) -> None:
    """A pull with a real nix is one trace: lock, evaluate, build, read, send."""
    with collector() as (where, came):
        with registry(
            tmp_path,
            example,
            "--store",
            str(store),
            OTEL_EXPORTER_OTLP_ENDPOINT=where,
            OTEL_BSP_SCHEDULE_DELAY="200",
        ) as running:
            answer = running.ask("/v2/packages/hello/manifests/latest")
            assert answer.status == 200, answer.body
            for layer in answer.json["layers"]:
                path = f"/v2/packages/hello/blobs/{layer['digest']}"
                assert running.ask(path).status == 200
            running.stop()
        pulls = [
            each
            for each in spans(came).values()
            if any("manifests" in span.name for span in each)
        ]
    (pull,) = pulls
    names = [span.name for span in pull]
    assert {"lock", "evaluate", "build", "read", "send"} <= set(names)
    assert names.count("send") == len(answer.json["layers"])
    ids = {span.span_id for span in pull}
    assert [span.name for span in pull if span.parent_span_id not in ids] == [
        "GET /v2/{name}/manifests/{reference}"
    ]
