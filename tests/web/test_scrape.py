"""Tests for `forgereg.web.scrape`: ``/metrics``."""

from __future__ import annotations

import pytest

from forgereg.flow.report import State
from tests.client import ask
from tests.flow.stages import add, go_on, hold
from tests.registry import Served

#: What Prometheus 2.42 asks with.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
    "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, TEXT),
        ("*/*", TEXT),
        ("text/html,*/*", TEXT),
        ("text/plain;version=x;escaping=\x7f,;;=", TEXT),
        (PROMETHEUS, OPENMETRICS),
        ("application/openmetrics-text;version=99;;;=", OPENMETRICS),
    ],
)
def test_forms(running: Served, accept: str | None, media_type: str) -> None:
    """A scraper is given the form that it reads, whatever nonsense it says beside."""
    headers = [("Accept", accept)] if accept else []
    answer = running.get("/metrics", headers)
    assert (answer.status, answer["Content-Type"]) == (200, media_type)
    assert answer.body.endswith(b"# EOF\n") == (media_type == OPENMETRICS)
    assert b"# TYPE forge_builds" in answer.body
    head = running.head("/metrics", headers)
    assert (head.status, head["Content-Type"], head.body) == (200, media_type, b"")


@pytest.mark.parametrize("method", ["POST", "DELETE", "BREW"])
def test_other_methods(running: Served, method: str) -> None:
    """Metrics can be read, and nothing else."""
    answer = ask(running.site, method, "/metrics")
    assert (answer.status, answer["Allow"]) == (405, "GET, HEAD")
    assert answer.error[0] == "UNSUPPORTED"


def test_no_name_of_a_client_s_making(served: Served) -> None:
    """What clients ask for does not show: neither names, nor tags, nor addresses."""
    served.pull("packages/hello")
    served.get("/v2/packages/evil/manifests/strange", [("User-Agent", "curious")])
    text = served.get("/metrics").body.decode()
    for word in ("hello", "evil", "strange", "curious", "192.0.2.1"):
        assert word not in text


def test_what_is_going_on(served: Served) -> None:
    """A build that waits, one that runs, and the room for blobs can be seen."""
    served.set(max_builds=1, max_evaluations=9, blobs_size=10**9)
    images = ["packages/hello:latest", *add(served, "a", "b")]
    hold(served, State.BUILDING, images)
    text = served.get("/metrics").body.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
    assert lines['forge_active_builds{state="building"}'] == "1.0"
    assert lines['forge_active_builds{state="queued"}'] == "2.0"
    assert lines['forge_slots{work="build"}'] == "1.0"
    assert lines['forge_slots_taken{work="build"}'] == "1.0"
    assert lines['forge_queue_length{work="build"}'] == "2.0"
    assert lines['forge_queue_length{work="evaluate"}'] == "0.0"
    assert lines["forge_blob_store_limit_bytes"] == "1e+09"
    go_on(served)
    served.set(blobs_size=0)
    assert b"forge_blob_store_limit_bytes +Inf" in served.get("/metrics").body
