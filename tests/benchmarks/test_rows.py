"""Tests for how rows are measured, without measuring."""

from __future__ import annotations

import gzip
import itertools
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from benchmarks import images
from benchmarks.clients import read_report
from benchmarks.rows.records import multiply, other
from benchmarks.timing import in_turns, percentile
from forgereg.records.database import open_engine
from forgereg.records.schema import blobs, sources

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
SOURCE = {
    "locked": "path:/flake?narHash=sha256-x",
    "attribute": "packages.x86_64-linux.counted.image",
    "flake": "",
    "derivation": f"/nix/store/{'a' * 32}-counted.drv",
    "archive": f"/nix/store/{'b' * 32}-counted",
}


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0.01, 1))
def test_percentile(values: list[float], share: float) -> None:
    """No more than the rest of all values is above a percentile."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_in_turns() -> None:
    """Both sides are measured in turns, and each gives its median."""
    order: list[str] = []
    ours, theirs = iter([3.0, 1.0, 2.0]), iter([6.0, 4.0, 5.0])

    def measure(side: str) -> float:
        order.append(side)
        return next(ours if side == "ours" else theirs)

    medians = in_turns(lambda: measure("ours"), lambda: measure("theirs"), 3)
    assert medians == (2.0, 5.0)
    assert order == ["ours", "theirs"] * 3


def test_what_curl_got() -> None:
    """An error page is no measurement."""
    assert read_report('{"status":200,"size":7,"seconds":0.5}').size == 7
    with pytest.raises(RuntimeError, match="404"):
        read_report('{"status":404,"size":7,"seconds":0.5}')


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_other_image(one: int, two: int) -> None:
    """Two images have neither a digest, a store path nor a name in common."""
    for text in (DIGEST, SOURCE["archive"], "packages/counted"):
        assert (other(text, one) == other(text, two)) == (one == two)
    assert len(other(DIGEST, one)) == len(DIGEST)


def test_records_of_many(tmp_path: Path) -> None:
    """Records of one image are written down for as many as are asked for."""
    path = tmp_path / "registry.sqlite"
    engine = open_engine(f"sqlite:///{path}")
    blob = {"name": "packages/counted", "digest": DIGEST, "size": 1, "source": 1}
    with engine.begin() as connection:
        for table, row in ((sources, {"id": 1, **SOURCE}), (blobs, blob)):
            whole = {column.name: row.get(column.name, "") for column in table.columns}
            connection.execute(insert(table).values(whole))
    multiply(path, 3)
    with engine.connect() as connection:
        names = set(connection.execute(select(blobs.c.name)).scalars())
        joined = select(func.count()).join_from(blobs, sources)
        assert connection.execute(joined).scalar_one() == 3
    engine.dispose()
    assert names == {
        "packages/counted",
        *(other("packages/counted", n) for n in (1, 2)),
    }


@pytest.mark.parametrize("packed", [False, True])
def test_archives(tmp_path: Path, packed: bool) -> None:
    """Archives to measure with have the size, the layers and members asked for."""
    path = tmp_path / "archive"
    program = itertools.repeat(Path(__file__))
    fills = [images.of_noise(1000), images.of_programs(program, 10_000)]
    size = images.write_archive(path, "a:1", fills, members=3, packed=packed)
    with tarfile.open(path) as archive:
        names = archive.getnames()
    opened = gzip.open if packed else open
    with opened(path, "rb") as file:
        assert len(file.read()) == size
    assert sum(name.endswith("/layer.tar") for name in names) == 2
    assert sum(name.startswith("member/") for name in names) == 3
    assert names[-1] == "manifest.json"
    assert list(tmp_path.iterdir()) == [path]
