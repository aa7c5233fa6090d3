"""Tests for `forgereg.web.count`, and that every request is counted once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.web.count import CUT, route_of
from forgereg.web.stream import CHUNK
from tests.registry import ANY_FORM, Served, digest_of
from tests.web.big import PATH, SIZE, serving_big

LATEST = "/v2/packages/hello/manifests/latest"
ROUTES = {
    "/v2": "version",
    "/v2/": "version",
    "/v2/_catalog": "catalogue",
    "/v2/packages/hello/tags/list": "tags",
    "/v2/tags/list/tags/list": "tags",
    LATEST: "manifest",
    "/v2/packages/manifests/blobs/manifests/x": "manifest",
    f"/v2/packages/hello/blobs/{digest_of(b'')}": "blob",
    f"/v2/packages/hello/referrers/{digest_of(b'')}": "referrers",
    "/v2/packages%2Fhello/%6Danifests/latest": "manifest",
    "/v2/manifests/latest": "other",
    "/v2/tags/list": "other",
    "/v2/packages/hello/uploads/": "other",
    "/": "page",
    "/-/images/packages/hello": "page",
    "/-/builds": "page",
    "/-/static/forge.css": "static",
    "/-/api/builds": "api",
    "/-/applications/shop/compose.yaml": "applications",
    "/-/hooks/push": "hooks",
    "/metrics": "metrics",
    "/healthz": "health",
    "/readyz": "health",
    "/favicon.ico": "other",
    "": "other",
    "*": "other",
}


@pytest.mark.parametrize("path", ROUTES)
def test_routes(path: str) -> None:
    """Every path is of the route that answers it."""
    assert route_of(path.encode()) == ROUTES[path]


@given(st.binary(max_size=40), st.binary(max_size=10))
def test_no_route_is_of_a_client_s_making(rest: bytes, word: bytes) -> None:
    """Whatever is asked for, it is of one of the few routes."""
    known = set(ROUTES.values())
    assert route_of(rest) in known
    assert route_of(b"/v2/" + rest + b"/" + word) in known


def value(served: Served, name: str, **labels: str) -> float:
    """Read a metric as it would be scraped now; what is not there is 0."""
    metrics = served.assembly.parts.machine.metrics
    metrics.look()
    return metrics.registry.get_sample_value(f"forge_{name}", labels) or 0


def requests(served: Served) -> dict[tuple[str, str, str], float]:
    """Give how many requests were counted, by route, method and status."""
    family = next(served.assembly.parts.machine.metrics.requests.collect())
    return {
        (labels["route"], labels["method"], labels["status"]): sample.value
        for sample in family.samples
        if (labels := sample.labels)
    }


def test_answers(served: Served) -> None:
    """Each answer is counted by route, method and status, and with its bytes."""
    answer = served.get(LATEST, ANY_FORM)
    served.head("/v2/")
    served.get("/v2/packages/nothing/tags/list")
    assert requests(served) == {
        ("manifest", "GET", "200"): 1,
        ("version", "HEAD", "200"): 1,
        ("tags", "GET", "404"): 1,
    }
    sent = value(served, "http_sent_bytes_total", route="manifest")
    assert sent == len(answer.body)


def test_answers_that_are_given_again(served: Served) -> None:
    """What is answered out of memory is counted as any other answer is."""
    answers = [served.get(LATEST, ANY_FORM) for _ in range(3)]
    assert requests(served) == {("manifest", "GET", "200"): 3}
    sent = value(served, "http_sent_bytes_total", route="manifest")
    assert sent == 3 * len(answers[0].body)
    assert value(served, "http_first_byte_seconds_count", route="manifest") == 3
    assert value(served, "cache_hits_total", cache="answer") == 2
    assert value(served, "cache_misses_total", cache="answer") == 1


def test_how_long(served: Served) -> None:
    """An answer that a build keeps waiting is seen to take as long."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    served.clock.advance(7.0)
    served.nix.resume()
    assert client.answer().status == 200
    for name in ("http_first_byte_seconds_sum", "http_request_seconds_sum"):
        assert value(served, name, route="manifest") == 7.0


def test_clients_that_leave(served: Served) -> None:
    """Whose client leaves before the answer is counted as such, and only once."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    assert value(served, "http_active_requests") == 1
    assert value(served, "http_connections") == 1
    client.hang_up()
    assert requests(served) == {("manifest", "GET", str(CUT)): 1}
    assert value(served, "http_first_byte_seconds_count", route="manifest") == 0
    assert value(served, "http_request_seconds_count", route="manifest") == 1
    assert value(served, "http_active_requests") == 0
    assert value(served, "http_connections") == 0
    served.nix.resume()
    assert sum(requests(served).values()) == 1


@pytest.mark.parametrize("leaves", [False, True])
def test_transfers(tmp_path: Path, leaves: bool) -> None:
    """A blob on its way is seen, with the bytes sent by now, before it has arrived."""

    def sent() -> float:
        return value(served, "http_sent_bytes_total", route="blob") - before

    with serving_big(tmp_path) as served:
        before = 0.0
        before = sent()
        client = served.connect()
        client.wire.slow = True
        client.ask("GET", PATH)
        assert value(served, "http_transfers") == 1
        some = sent()
        assert 0 < some < SIZE
        if leaves:
            client.hang_up()
            assert requests(served)["blob", "GET", str(CUT)] == 1
        else:
            for _ in range(SIZE // CHUNK + 2):
                client.read_on()
        assert sent() == (some if leaves else SIZE)
        assert value(served, "http_transfers") == 0


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"what?\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01", "400"),
        (b"GET /" + b"x" * 200_000, "414"),
        (b"GET / HTTP/1.1\r\n" + (b"A: " + b"x" * 9000 + b"\r\n") * 20, "431"),
    ],
)
def test_what_cannot_be_read(served: Served, data: bytes, status: str) -> None:
    """What cannot even be read is counted, once."""
    client = served.connect()
    client.send(data)
    client.hang_up()
    assert requests(served) == {("other", "other", status): 1}


def test_half_a_request(served: Served) -> None:
    """Who leaves in the middle of a request has asked for nothing."""
    client = served.connect()
    client.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")
    assert value(served, "http_active_requests") == 0
    client.hang_up()
    assert requests(served) == {}


def test_methods_of_a_client_s_making(served: Served) -> None:
    """A method that nobody knows does not become a metric of its own."""
    for method in ("BREW", "PROPFIND", "POST"):
        client = served.connect()
        client.ask(method, "/v2/")
        assert client.answer().status == 405
    assert requests(served) == {
        ("version", "other", "405"): 2,
        ("version", "POST", "405"): 1,
    }
