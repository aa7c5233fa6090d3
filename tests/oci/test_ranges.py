"""Which stretches `forgereg.oci.ranges` reads out of a ``Range`` header."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.oci.errors import RangeNotSatisfiable
from forgereg.oci.ranges import MAX_RANGES, parse_range

_numbers = st.integers(0, 120).map(str)
_stretches = st.one_of(
    st.tuples(_numbers, _numbers).map("-".join),
    _numbers.map("{}-".format),
    _numbers.map("-{}".format),
)
_padded = st.tuples(st.sampled_from(["", " ", "\t"]), _stretches).map("".join)
headers = st.lists(_padded, min_size=1, max_size=6).map(
    lambda s: f"bytes={','.join(s)}"
)


@given(st.one_of(headers, st.text(), st.text("bytes=0123456789-, \t")), st.integers(0))
def test_stretch_never_leaves_the_blob(header: str, size: int) -> None:
    """Whatever a client asks for, it gets bytes of the blob and no more of them."""
    try:
        stretches = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    if stretches is not None:
        assert stretches
        assert all(0 <= start < stop <= size for start, stop in stretches)
        assert sum(stop - start for start, stop in stretches) <= size


@given(st.binary(min_size=1, max_size=40), st.integers(0, 50), st.integers(0, 50))
def test_single_stretch_is_what_python_slices(data: bytes, one: int, two: int) -> None:
    """A stretch holds the bytes from its first to its last, both included."""
    first, last = sorted((one, two))
    wanted = data[first : last + 1]
    if not wanted:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(f"bytes={first}-{last}", len(data))
        return
    stretches = parse_range(f"bytes={first}-{last}", len(data))
    assert stretches is not None
    assert [data[start:stop] for start, stop in stretches] == [wanted]


@pytest.mark.parametrize(
    ("header", "stretches"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-99", [(0, 100)]),
        ("bytes=10-19", [(10, 20)]),
        ("bytes=99-99", [(99, 100)]),
        ("bytes=0-", [(0, 100)]),
        ("bytes=99-", [(99, 100)]),
        ("bytes=-1", [(99, 100)]),
        ("bytes=-100", [(0, 100)]),
        ("bytes=90-1000", [(90, 100)]),
        ("bytes=0-99999999999999999999", [(0, 100)]),
        ("bytes=-1000", [(0, 100)]),
        ("bytes=00000000000000000001-2", [(1, 3)]),
        ("bytes=0-9,20-29", [(0, 10), (20, 30)]),
        ("bytes=20-29,0-9", [(20, 30), (0, 10)]),
        ("bytes=0-9,5-14", [(0, 10), (5, 15)]),
        ("bytes=0-9,-10", [(0, 10), (90, 100)]),
        ("bytes=0-9,100-,200-300", [(0, 10)]),
        ("bytes=-0,0-9", [(0, 10)]),
        ("bytes=0-49,50-99", [(0, 50), (50, 100)]),
        (" \tbytes=0-9\t ", [(0, 10)]),
        ("bytes= 0-9 , \t20-29 ", [(0, 10), (20, 30)]),
        ("BYTES=0-9", [(0, 10)]),
        ("Bytes=0-9", [(0, 10)]),
    ],
)
def test_range_that_is_read(header: str, stretches: list[tuple[int, int]]) -> None:
    """A range is cut at the blob's end, and keeps the client's order."""
    assert parse_range(header, 100) == stretches


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=--1",
        "bytes=a-b",
        "bytes=0-9;20-29",
        "bytes 0-9/100",
        "bytes =0-9",
        "bytes=0 - 9",
        "bytes=0-9,",
        "bytes=,0-9",
        "bytes=0-9,,20-29",
        "bytes=0-9-19",
        "bytes=+0-9",
        "bytes=0x0-9",
        "bytes=0-1_0",
        "bytes=\u0660-9",  # a digit, but not of ours
        "bytes=0-\u00b2",
        "bytes=0-9\n",
        "bytes=0-9\r\nX: y",
        "bytes=0-9\0",
        "bytes=9-0",
        "bytes=0-9,9-0",
        "items=0-9",
        "xbytes=0-9",
        "lines=0-9",
        "bytes=0-9 20-29",
        "none",
    ],
)
def test_range_that_is_ignored(header: str) -> None:
    """A header in another unit, or that breaks the grammar, gets the whole blob."""
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-199", "bytes=-0"])
def test_range_past_the_end(header: str) -> None:
    """A client that asks only for what is not there is told the blob's size."""
    with pytest.raises(RangeNotSatisfiable, match="the blob has 100 bytes"):
        parse_range(header, 100)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"])
def test_range_of_an_empty_blob(header: str) -> None:
    """Nothing can be asked for of an empty blob."""
    with pytest.raises(RangeNotSatisfiable, match="0 bytes"):
        parse_range(header, 0)


@pytest.mark.parametrize(
    "header", ["bytes=0-99,0-99", "bytes=0-,0-", "bytes=0-60,40-99", "bytes=0-99,-1"]
)
def test_range_that_asks_for_more_than_the_blob_has(header: str) -> None:
    """Asking for the same bytes again and again does not multiply the answer."""
    assert parse_range(header, 100) is None


def test_as_many_stretches_as_a_client_that_pulls_chunks_asks_for() -> None:
    """A thousand stretches are served, and a header with more of them is ignored."""
    stretches = [(2 * n, 2 * n + 1) for n in range(MAX_RANGES)]
    parts = [f"{start}-{start}" for start, _ in stretches]
    assert parse_range(f"bytes={','.join(parts)}", 10_000) == stretches
    assert parse_range(f"bytes={','.join([*parts, '0-0'])}", 10_000) is None


@pytest.mark.parametrize(
    "header",
    [
        f"bytes={'9' * 5000}-",
        f"bytes=0-{'9' * 5000}",
        f"bytes=-{'9' * 5000}",
        f"bytes={'0' * 5000}-9",
        "bytes=0-" + "9" * 21,
    ],
)
def test_number_that_is_longer_than_any_size(header: str) -> None:
    """A number of thousands of digits is not even read."""
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    "header",
    [
        "bytes=" + "," * 65_536,
        "bytes=" + "0-0," * 16_384,
        "bytes=" + " " * 65_536,
        "bytes=" + " " * 65_536 + "0",
        "bytes=" + "0" * 65_536,
        "bytes=0-" + "0" * 65_536 + "x",
        "bytes=0-0" + "\t" * 65_536 + "x",
        " " * 65_536,
        "bytes=" * 11_000,
    ],
)
def test_huge_header_is_ignored_at_once(header: str) -> None:
    """A header of 64 kB that is made to confuse the grammar costs no time."""
    start = time.thread_time()
    assert parse_range(header, 100) is None
    assert time.thread_time() - start < 5
