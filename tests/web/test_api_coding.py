"""Tests for `forgereg.web.api`: blobs that are compressed on their way."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
from backports import zstd

from tests.client import Answer, Headers, ask
from tests.registry import Served
from tests.web.big import DATA, DIGEST, PATH, SIZE, serving_big

DECODE = {"gzip": gzip.decompress, "zstd": zstd.decompress}
GZIP: Headers = [("Accept-Encoding", "gzip")]
CONTAINERD: Headers = [("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry that has been asked for a large image and an empty layer."""
    with serving_big(tmp_path_factory.mktemp("blobs")) as served:
        yield served


def is_plain(answer: Answer) -> bool:
    """Say whether an answer is said to be the bytes of the digest."""
    said = answer["Content-Encoding"], answer["ETag"], answer["Vary"]
    return said == (None, f'"{DIGEST}"', "Accept-Encoding")


@pytest.mark.parametrize(
    ("headers", "coding"), [(GZIP, "gzip"), (CONTAINERD, "zstd")], ids=["gzip", "zstd"]
)
def test_compressed(served: Served, headers: Headers, coding: str) -> None:
    """A blob comes compressed while that is made, then with its length."""
    served.readers.pause()
    connection = served.begin(PATH, headers)
    served.readers.resume()
    first, second = connection.answer(), served.get(PATH, headers)
    assert first["Transfer-Encoding"] == "chunked"
    assert second["Content-Length"] == str(len(first.body))
    for answer in (first, second):
        assert answer.status == 200
        assert answer["Content-Encoding"] == coding
        assert answer["Docker-Content-Digest"] == DIGEST
        assert answer["ETag"] == f'W/"{DIGEST}"'
        assert answer["Vary"] == "Accept-Encoding"
        assert len(answer.body) < SIZE
        assert DECODE[coding](answer.body) == DATA


def test_not_offered(served: Served) -> None:
    """Whoever offers no coding is sent the bytes of the digest."""
    answer = served.get(PATH)
    assert is_plain(answer) and answer.body == DATA


def test_near(served: Served) -> None:
    """A client in a fast network is sent the bytes of the digest."""
    answer = ask(served.site, "GET", PATH, CONTAINERD, address="192.168.1.2")
    assert is_plain(answer) and answer.body == DATA


def test_resuming(served: Served) -> None:
    """Whoever asks for the rest of what it decoded is sent just that."""
    answer = served.get(PATH, [*CONTAINERD, ("Range", "bytes=1000-")])
    assert is_plain(answer)
    assert (answer.status, answer.body) == (206, DATA[1000:])


def test_resuming_what_is_compressed(served: Served) -> None:
    """Whoever counts compressed bytes is sent all anew, not the rest of others."""
    told = [("If-Range", f'W/"{DIGEST}"'), ("Range", "bytes=1000-")]
    answer = served.get(PATH, [*CONTAINERD, *told])
    assert is_plain(answer)
    assert (answer.status, answer.body) == (200, DATA)


def test_head(served: Served) -> None:
    """The size that is told is that of the bytes of the digest."""
    answer = served.head(PATH, CONTAINERD)
    assert is_plain(answer) and answer["Content-Length"] == str(SIZE)


@pytest.mark.parametrize("etag", [f'"{DIGEST}"', f'W/"{DIGEST}"'])
def test_known(served: Served, etag: str) -> None:
    """Who has a blob, in whatever form, is not sent it again."""
    answer = served.get(PATH, [*CONTAINERD, ("If-None-Match", etag)])
    assert answer.status == 304 and is_plain(answer)
