"""Tests for `forgereg.web.probes`: what those read who look after the registry."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgereg.nix.process import Exit
from tests.client import Answer, ask
from tests.doubles import FLAKE
from tests.registry import Served, serving

PROBES = ("/healthz", "/readyz")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry whose records are a file, as they are at home."""
    (tmp_path / "state").mkdir()
    database = f"sqlite:///{tmp_path}/state/registry.sqlite"
    with serving(tmp_path, database=database) as served:
        yield served


def failed(answer: Answer) -> dict[str, str]:
    """Give what is not well, and why."""
    checks = answer.json["checks"]
    return {each["name"]: each["detail"] for each in checks if not each["is_ok"]}


def look(served: Served) -> Answer:
    """Look whether it is ready, after a while in which nobody has looked."""
    served.clock.advance(100.0)
    connection = served.begin("/readyz?format=json")
    served.clock.advance(5.0)
    return connection.answer()


@pytest.mark.parametrize("path", PROBES)
def test_well(served: Served, path: str) -> None:
    """Both probes answer before any flake was looked at, and nobody keeps the answer."""
    answer = served.get(path)
    assert answer.status == 200, answer.body
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer["Cache-Control"] == "no-store"
    assert not served.nix.count("metadata")


def test_text(served: Served) -> None:
    """A person reads one line for each check."""
    first, *lines = served.get("/readyz").body.decode().splitlines()
    assert first == "ready"
    assert [line.split()[:2] for line in lines] == [
        ["ok", "database"],
        ["ok", "disk"],
        ["ok", "nix"],
        ["warning", "blobs"],
        ["ok", "flake"],
    ]


@pytest.mark.parametrize(
    ("query", "accept", "is_json"),
    [
        ("", "application/json", True),
        ("", "text/html,application/json;q=0.9", True),
        ("", "text/plain, application/json;q=0.5", False),
        ("", "*/*", False),
        ("", "nonsense;;q=x,,", False),
        ("?format=json", "text/plain", True),
        ("?format=text", "application/json", False),
        ("?format=brief", "*/*", False),
    ],
)
@pytest.mark.parametrize("path", PROBES)
def test_forms(
    running: Served, path: str, query: str, accept: str, is_json: bool
) -> None:
    """Who wants JSON says so in Accept or in the address; all others read text."""
    answer = running.get(path + query, [("Accept", accept)])
    assert (answer["Content-Type"] == "application/json") == is_json
    assert not is_json or answer.json["status"] in ("alive", "ready")


@pytest.mark.parametrize("path", PROBES)
def test_methods(running: Served, path: str) -> None:
    """HEAD is answered without a body; nothing can be sent here."""
    head, got = running.head(path), running.get(path)
    assert (head.status, head.body) == (200, b"")
    assert head["Content-Length"] == str(len(got.body))
    refused = ask(running.site, "POST", path, body=b"x")
    assert (refused.status, refused["Allow"]) == (405, "GET, HEAD")


def test_alive_whatever_happens(served: Served) -> None:
    """/healthz asks neither disk nor nix, so that what hangs there is no reason to die."""
    served.threads.pause()
    served.readers.pause()
    served.nix.pause()
    assert served.get("/healthz").status == 200
    assert not served.nix.argvs and not served.readers.calls


def test_disk_that_hangs(served: Served) -> None:
    """A disk that hangs is told by name within five seconds."""
    served.readers.pause()
    answer = look(served)
    assert answer.status == 503
    assert failed(answer)["disk"] == "no answer for 5 s"
    served.readers.resume()
    assert look(served).status == 200


def test_disk_that_is_gone(served: Served) -> None:
    """A state directory that is gone is told, and where it was is not."""
    shutil.rmtree(served.state)
    answer = look(served)
    assert answer.status == 503
    assert failed(answer)["disk"].startswith("the state directory cannot be written")
    assert str(served.state).encode() not in answer.body


def test_records_that_cannot_be_written(served: Served) -> None:
    """Records that somebody else holds are told, and those who can only read them."""
    with served.records.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.commit()
    assert failed(look(served))["database"].startswith(
        "the registry cannot write its records: attempt to write a readonly"
    )


def test_nix_that_fails(served: Served) -> None:
    """A nix that has stopped working makes the registry unready, until it works again."""
    served.nix.fail("eval", "error: cannot connect to /nix/var/nix/daemon-socket")
    answer = look(served)
    assert answer.status == 503
    assert failed(answer)["nix"] == "nix does not work; the log says why"
    served.nix.fail("eval", exit=Exit(None, timed_out=True))
    assert failed(look(served))["nix"] == "nix has not answered for 30 s"
    served.nix.mend()
    assert look(served).status == 200


def test_nix_is_left_alone(served: Served) -> None:
    """However often somebody looks, nix is asked every thirty seconds."""
    for _ in range(60):
        served.get("/readyz")
        served.clock.advance(1.0)
    assert served.nix.count("eval") == 2


def test_flake_that_cannot_be_reached(served: Served) -> None:
    """A flake that cannot be reached is a warning: what is known is served."""
    served.nix.fail("metadata", f"error: unable to download '{FLAKE}'")
    assert served.get("/v2/packages/hello/manifests/latest").status == 422
    answer = look(served)
    assert answer.status == 200
    assert "unable to download" in failed(answer)["flake"]
    served.nix.mend()
    served.clock.advance(100.0)
    served.pull("packages/hello")
    assert "flake" not in failed(look(served))


def test_stopping(served: Served) -> None:
    """Load balancers are told to leave a registry that stops, which is alive still."""
    client = served.connect()
    late = served.connect()
    served.assembly.stop()
    served.site.drain()
    client.ask("GET", "/readyz")
    assert client.answer().status == 503
    late.ask("GET", "/healthz")
    assert late.answer().status == 200
