"""Tests for `forgereg.web.api`: stretches of blobs."""

from __future__ import annotations

import email
from collections.abc import Iterator
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.oci.media import OCTETS
from forgereg.web.stream import CHUNK
from tests.client import Answer
from tests.registry import Served
from tests.web.big import DATA, DIGEST, PATH, SIZE, serving_big


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry that has been asked for a large image and an empty layer."""
    with serving_big(tmp_path_factory.mktemp("blobs")) as served:
        yield served


def ranged(served: Served, value: str, *more: tuple[str, str]) -> Answer:
    return served.get(PATH, [("Range", value), *more])


def parts(answer: Answer) -> list[Message]:
    """Take the body of an answer in several parts apart."""
    kind = answer["Content-Type"]
    assert kind is not None and kind.startswith("multipart/byteranges; boundary=")
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.body)
    assert message.is_multipart() and not message.defects
    return [part for part in message.walk() if part is not message]


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-199", 100, 200),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=5-", 5, SIZE),
        ("bytes=0-", 0, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=-{SIZE}", 0, SIZE),
        (f"bytes=-{SIZE * 9}", 0, SIZE),
        (f"bytes={SIZE - 5}-{SIZE + 5}", SIZE - 5, SIZE),
        (f"bytes=0-{10**19}", 0, SIZE),
        (f"bytes={CHUNK - 1}-{CHUNK}", CHUNK - 1, CHUNK + 1),
        (f"bytes=10-19,{SIZE}-", 10, 20),
        (" bytes=1-2 ", 1, 3),
    ],
)
def test_one_stretch(served: Served, value: str, start: int, stop: int) -> None:
    """A client that resumes gets the stretch that it asked for, and where it lies."""
    answer = ranged(served, value)
    assert answer.status == 206
    assert answer.body == DATA[start:stop]
    assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer["Content-Type"] == OCTETS
    assert answer["Docker-Content-Digest"] == DIGEST


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=5-1",
        "bytes=-",
        "bytes=1",
        "bytes=--1",
        "bytes=0-1,",
        "lines=0-1",
        "Bytes = 1-2",
        "bytes=0-1;2-3",
        "bytes=1-2-3",
        f"bytes={'9' * 30}-",
        "\xff",
        f"bytes=0-{SIZE - 1},0-{SIZE - 1}",
    ],
)
def test_ranges_that_are_ignored(served: Served, value: str) -> None:
    """A range that makes no sense, or asks for more than all, gives the whole blob."""
    answer = ranged(served, value)
    assert (answer.status, answer.body) == (200, DATA)


@pytest.mark.parametrize(
    "value", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 9}", "bytes=-0"]
)
def test_stretches_past_the_end(served: Served, value: str) -> None:
    """A client that has all the bytes already is told how many there are."""
    answer = ranged(served, value)
    assert (answer.status, answer.error[0]) == (416, "RANGE_INVALID")
    assert answer["Content-Range"] == f"bytes */{SIZE}"
    assert answer["Cache-Control"] is None


def test_several_stretches(served: Served) -> None:
    """A client that pulls chunks gets each of them once, in the order asked for."""
    wanted = [(500, 600), (0, 10), (SIZE - 3, SIZE)]
    value = "bytes=" + ", ".join(f"{start}-{stop - 1}" for start, stop in wanted)
    answer = ranged(served, value)
    assert answer.status == 206
    assert answer["Content-Range"] is None
    got = parts(answer)
    assert len(got) == 3
    for part, (start, stop) in zip(got, wanted, strict=True):
        assert part["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert part["Content-Type"] == OCTETS
        assert part.get_payload(decode=True) == DATA[start:stop]


def test_stretches_on_several_lines(served: Served) -> None:
    """A header that a client has split is read as one."""
    answer = ranged(served, "bytes=0-9", ("Range", "20-29"))
    assert [part["Content-Range"] for part in parts(answer)] == [
        f"bytes 0-9/{SIZE}",
        f"bytes 20-29/{SIZE}",
    ]


RANGES = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, 999)), min_size=2, max_size=9
)


@settings(max_examples=25)
@given(wanted=RANGES)
def test_any_stretches(served: Served, wanted: list[tuple[int, int]]) -> None:
    """Whichever stretches are asked for, each comes in a part of its own."""
    stretches = [(start, min(start + size, SIZE)) for start, size in wanted]
    value = ",".join(f"{start}-{start + size - 1}" for start, size in wanted)
    got = parts(ranged(served, f"bytes={value}"))
    assert [part.get_payload(decode=True) for part in got] == [
        DATA[start:stop] for start, stop in stretches
    ]


def test_header_of_64_kilobytes(served: Served) -> None:
    """A client may ask for as many stretches as fit into 64 kB of header."""
    starts = range(0, 1000 * 100, 100)
    value = ",".join(f"{'0' * 12}{start:08}-{'0' * 12}{start:08}" for start in starts)
    padding = [(f"X-Padding-{n}", "x" * 7000) for n in range(4)]
    connection = served.connect()
    connection.ask("GET", PATH, [("Range", f"bytes={value}"), *padding])
    answer = connection.answer()
    assert len(value) + 4 * 7000 > 2**16
    assert answer.status == 206
    assert len(parts(answer)) == 1000


def test_too_many_stretches(served: Served) -> None:
    """Whoever asks for more stretches than any client does gets the whole blob."""
    value = "bytes=" + ",".join(["0-0"] * 1025)
    answer = ranged(served, value)
    assert (answer.status, answer.body) == (200, DATA)


@pytest.mark.parametrize("condition", [f'"{DIGEST}"', f' "{DIGEST}" '])
def test_resumes_the_same_blob(served: Served, condition: str) -> None:
    """A client that resumes only what has not changed is served the stretch."""
    answer = ranged(served, "bytes=1-2", ("If-Range", condition))
    assert (answer.status, answer.body) == (206, DATA[1:3])


@pytest.mark.parametrize(
    "condition",
    ['"other"', f'W/"{DIGEST}"', DIGEST, "Sat, 01 Jan 2000 00:00:00 GMT", ""],
)
def test_resumes_another_blob(served: Served, condition: str) -> None:
    """A client that would resume something else gets the whole blob."""
    answer = ranged(served, "bytes=1-2", ("If-Range", condition))
    assert (answer.status, answer.body) == (200, DATA)


def test_unsatisfiable_under_a_condition(served: Served) -> None:
    """A range past the end of something else gives the whole blob, not an error."""
    answer = ranged(served, f"bytes={SIZE}-", ("If-Range", '"other"'))
    assert answer.status == 200
