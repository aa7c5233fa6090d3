"""Tests for `forgereg.flow.encodings`: blobs compressed on their way."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from backports import zstd

from forgereg.blobs.stage import Partial
from forgereg.flow import cutting, encodings
from tests.archives import Recipe, build_layered_image, gz, layer_of, tar
from tests.client import Headers
from tests.conftest import Log
from tests.doubles import Part
from tests.flow.packing import (
    DATA,
    ENTRIES,
    NAME,
    SMALL,
    STEP,
    delete_blobs,
    put,
    put_script,
    url,
)
from tests.registry import Served, digest_of, files_below, files_open_below

DECODE = {"gzip": gzip.decompress, "zstd": zstd.decompress}
GZIP: Headers = [("Accept-Encoding", "gzip")]
NOISE = random.Random(1).randbytes(len(DATA))


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "STEP", STEP)
    monkeypatch.setattr(encodings, "_STEP", STEP)


@pytest.fixture(autouse=True)
def _all_closed(tmp_path: Path, served: Served) -> Iterator[None]:
    yield
    assert files_open_below(tmp_path) == []
    assert files_below(served.state / "partial") == 0


def encoded(served: Served) -> int:
    """Count the encoded forms that are kept."""
    return len(list((served.state / "blobs").rglob("*.*")))


@pytest.mark.parametrize("coding", DECODE)
@pytest.mark.parametrize("is_there", [True, False], ids=["there", "evicted"])
def test_made_once_for_many(served: Served, coding: str, is_there: bool) -> None:
    """Clients share one encoding, in chunks while it is made, then with its length."""
    headers = [("Accept-Encoding", coding)]
    put(served, gz(tar(ENTRIES)))
    served.pull(NAME)
    if not is_there:
        delete_blobs(served)
    served.readers.pause()
    clients = [served.begin(url(), headers) for _ in range(3)]
    served.readers.resume()
    answers = [client.answer() for client in clients]
    for answer in answers:
        assert answer["Transfer-Encoding"] == "chunked"
        assert answer["Content-Encoding"] == coding
        assert DECODE[coding](answer.body) == DATA
    assert served.readers.calls.count("_write") == len(DATA) // STEP
    later = served.get(url(), headers)
    assert later.body == answers[0].body
    assert later["Content-Length"] == str(len(later.body))


def test_plain_bytes_are_gone(served: Served) -> None:
    """A client who reads gzip needs no more than the encoded form."""
    path = put(served, gz(tar(ENTRIES)))
    served.pull(NAME)
    first = served.get(url(), GZIP)
    for file in (served.state / "blobs").rglob("*"):
        if file.is_file() and not file.suffix:
            file.unlink()
    served.store.real(path).unlink()
    assert served.get(url(), GZIP).body == first.body
    assert served.nix.count("build") == 1


@pytest.mark.parametrize(
    "data", [b"x" * 99, b"", gz(DATA), NOISE], ids=["small", "empty", "packed", "noise"]
)
def test_not_worth_it(served: Served, data: bytes) -> None:
    """What does not get smaller is sent as it is, the second time at the latest."""
    recipe = Recipe((layer_of(data),)) if data[:2] != b"\x1f\x8b" else None
    recipe = recipe or Recipe((layer_of(DATA, gz),))
    put(served, gz(tar(build_layered_image(recipe))))
    served.pull(NAME)
    first = served.get(url(digest_of(data)), GZIP)
    assert data == (gzip.decompress(first.body) if data is NOISE else first.body)
    second = served.get(url(digest_of(data)), GZIP)
    assert (second["Content-Encoding"], second.body) == (None, data)
    assert encoded(served) == 0


def test_no_room(served: Served) -> None:
    """Where no encoded form can be kept, the plain bytes are sent."""
    served.set(blobs_size=STEP)
    put(served, tar(ENTRIES))
    served.pull(NAME)
    answer = served.get(url(), GZIP)
    assert (answer["Content-Encoding"], answer.body) == (None, DATA)


def test_plain_bytes_that_fail(served: Served, log: Log) -> None:
    """An encoded form whose plain bytes turn out wrong does not end well."""
    path = put_script(served, tar(ENTRIES))
    served.pull(NAME)
    delete_blobs(served)
    other = Recipe((layer_of(SMALL), layer_of(DATA[::-1])))
    served.scripts.parts[path] = Part(tar(build_layered_image(other)))
    client = served.begin(url(), GZIP)
    assert client.aborted
    assert not client.wire.value().endswith(b"0\r\n\r\n")
    assert encoded(served) == 0
    answer = served.get(url(), GZIP)
    assert answer.status == 422 and "pull it by tag" in answer.error[1]


def test_disk_that_fills_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fills up in the midst, the connection breaks, and plain comes."""
    put(served, tar(ENTRIES))
    served.pull(NAME)
    served.readers.pause()
    client = served.begin(url(), GZIP)
    while b"\r\n\r\n" not in client.wire.value():
        assert served.readers.step()
    monkeypatch.setattr(Partial, "write", lambda partial, data: partial._lose())
    served.readers.resume()
    assert client.aborted
    assert served.get(url(), GZIP).body == DATA


def test_script_runs_once(served: Served) -> None:
    """To encode what a script writes, and nothing keeps, it is run just once."""
    put_script(served, tar(ENTRIES))
    served.pull(NAME)
    delete_blobs(served)
    answer = served.get(url(), GZIP)
    assert gzip.decompress(answer.body) == DATA
    assert len(served.scripts.argvs) == 2


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "evicted"])
def test_clients_who_leave(served: Served, is_there: bool) -> None:
    """An encoding is finished though everybody has left, and nothing stays open."""
    put(served, gz(tar(ENTRIES)))
    served.pull(NAME)
    for steps in range(12):
        delete_blobs(served) if not is_there else None
        served.readers.pause()
        client = served.begin(url(), GZIP)
        for _ in range(steps):
            served.readers.step()
        client.hang_up()
        served.readers.resume()
        assert encoded(served) == 1
        for file in (served.state / "blobs").rglob("*.gzip"):
            file.unlink()


def test_bugs_do_not_hang_anyone(
    served: Served, monkeypatch: pytest.MonkeyPatch, logged_failures: list[object]
) -> None:
    """Where encoding itself fails, the plain bytes are sent, and the log has it."""
    put(served, gz(tar(ENTRIES)))
    served.pull(NAME)
    monkeypatch.setattr(encodings, "Encoder", lambda coding: 1 / 0)
    assert served.get(url(), GZIP).body == DATA
    assert logged_failures
    logged_failures.clear()
