"""Tests for `forgereg.web.api`: blobs whose files are gone, and are brought back."""

from __future__ import annotations

import shutil

import pytest

from forgereg.nix.process import Exit
from forgereg.oci.media import OCTETS
from tests.client import Connection, Headers
from tests.conftest import Log
from tests.registry import Served, digest_of, files_open_below

FETCH: Headers = [("Accept", f"{OCTETS}, */*")]
RANGE = ("Range", "bytes=5-9")


@pytest.fixture
def path(served: Served) -> str:
    """Where a layer is whose file, and what it came from, is gone."""
    digest = served.digests("packages/hello")[-2]
    path = f"/v2/packages/hello/blobs/{digest}"
    shutil.rmtree(served.state / "blobs")
    served.blobs.prepare()
    output = served.nix.packages["hello"].outputs["image"]
    served.store.real(output.path).unlink()
    served.nix.pause()
    return path


def wait(served: Served, path: str, seconds: float, headers: Headers) -> Connection:
    client = served.begin(path, headers)
    served.clock.pump([1.0] * int(seconds))
    return client


@pytest.mark.parametrize("seconds", [0, 19, 20, 600])
def test_containerd_waits(served: Served, path: str, seconds: float) -> None:
    """containerd's answer begins after 20 s, and the layer follows when it is back."""
    client = wait(served, path, seconds, FETCH)
    head = client.wire.value()
    assert bool(head) == (seconds >= 20)
    assert b"\r\nContent-Length: " in head or not head
    served.nix.finish()
    answer = client.answer()
    assert answer.status == 200
    assert digest_of(answer.body) == path.rpartition("/")[2]
    assert not files_open_below(served.state)


def test_stretches(served: Served, path: str) -> None:
    """A stretch of a layer is as early."""
    client = wait(served, path, 20, [*FETCH, RANGE])
    assert client.wire.value().startswith(b"HTTP/1.1 206 ")
    served.nix.finish()
    answer = client.answer()
    assert (answer.status, len(answer.body)) == (206, 5)


def test_begun_plain(served: Served, path: str) -> None:
    """What was begun before the layer was there goes on as it was begun: plain."""
    client = wait(served, path, 20, [*FETCH, ("Accept-Encoding", "zstd, gzip")])
    served.nix.finish()
    answer = client.answer()
    assert answer["Content-Encoding"] is None
    assert digest_of(answer.body) == path.rpartition("/")[2]
    assert not files_open_below(served.state)


def test_head(served: Served, path: str) -> None:
    """HEAD tells the length that is known, and waits no longer than containerd bears."""
    client = served.connect()
    client.ask("HEAD", path, FETCH)
    assert client.silent
    served.clock.advance(20.0)
    answer = client.answer()
    length = answer["Content-Length"]
    assert answer.status == 200
    served.nix.finish()
    assert served.head(path)["Content-Length"] == length


def test_others_wait(served: Served, path: str) -> None:
    """All others are kept in silence, and read why when it cannot be had."""
    client = wait(served, path, 3000, ())
    assert client.silent
    served.nix.fail("build", "error: gone")
    served.nix.finish()
    assert client.answer().status == 422


def test_failure_after_the_header(served: Served, path: str, log: Log) -> None:
    """A layer that does not come back breaks the answer off; asked again, it says why."""
    client = wait(served, path, 20, FETCH)
    served.nix.fail("build", "error: gone")
    served.nix.finish()
    assert client.aborted
    assert "gone" in log.text
    answer = served.get(path, FETCH)
    assert answer.status == 422 and "gone" in answer.error[1]


def test_handing_over(served: Served, path: str) -> None:
    """Who waits for a layer while the registry restarts is sent to the next one."""
    served.api.hands_over = True
    served.nix.fail("build", exit=Exit(None, stopped=True))
    client = wait(served, path, 10, FETCH)
    served.nix.finish()
    answer = client.answer()
    assert (answer.status, answer["Location"]) == (307, f"{path}?hop=1")
    assert answer["Connection"] == "close"


@pytest.mark.parametrize("seconds", [0, 10, 20, 600])
@pytest.mark.parametrize("headers", [FETCH, ()])
def test_client_that_leaves(
    served: Served, path: str, seconds: float, headers: Headers
) -> None:
    """Who leaves leaves nothing behind, and the layer comes back all the same."""
    wait(served, path, seconds, headers).hang_up()
    served.nix.finish()
    assert not files_open_below(served.state)
    count = served.nix.count("build")
    assert served.get(path).status == 200
    assert served.nix.count("build") == count
