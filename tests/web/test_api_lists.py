"""Tests for `forgereg.web.api`: lists, in pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client import Answer
from tests.doubles import Package
from tests.registry import Served, serving

NAMES = ["a", "b", "b-1", "c", "d.1", "e", "f_1"]
TAGS = "/v2/packages/a/tags/list"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry that has several packages, each of a version."""
    with serving(tmp_path_factory.mktemp("lists")) as served:
        outputs = served.nix.packages.pop("hello").outputs
        for name in NAMES:
            served.nix.packages[name] = Package("1.0", outputs)
        yield served


def entries(answer: Answer) -> list[str]:
    """Give what a page lists."""
    assert answer.status == 200
    assert answer["Content-Type"] == "application/json"
    (found,) = (value for value in answer.json.values() if isinstance(value, list))
    return found


def next_page(answer: Answer) -> str | None:
    """Give the path of the next page, if there is one."""
    link = answer["Link"]
    if link is None:
        return None
    match = re.fullmatch(r'<(/v2/[^>]*)>; rel="next"', link)
    assert match is not None, link
    return match[1]


def pages(served: Served, path: str | None) -> list[list[str]]:
    """Follow the links from page to page."""
    found = []
    while path is not None:
        answer = served.get(path)
        found.append(entries(answer))
        path = next_page(answer)
        assert len(found) < 20
    return found


def test_tags(served: Served) -> None:
    """The tags of an image are listed, sorted, without building it."""
    answer = served.get(TAGS)
    assert answer.json == {"name": "packages/a", "tags": ["1.0", "latest"]}
    assert next_page(answer) is None
    assert served.nix.count("build") == 0


def test_catalogue(served: Served) -> None:
    """The repositories are listed, sorted."""
    answer = served.get("/v2/_catalog")
    assert answer.json == {"repositories": [f"packages/{name}" for name in NAMES]}
    assert next_page(answer) is None


@pytest.mark.parametrize("size", range(1, 9))
def test_page_by_page(served: Served, size: int) -> None:
    """Whoever follows the links sees each repository once, in pages of that size."""
    found = pages(served, f"/v2/_catalog?n={size}")
    assert [name for page in found for name in page] == [f"packages/{n}" for n in NAMES]
    assert {len(page) for page in found[:-1]} <= {size}
    assert 0 < len(found[-1]) <= size


def test_tags_page_by_page(served: Served) -> None:
    """Tags come in pages, too."""
    assert pages(served, f"{TAGS}?n=1") == [["1.0"], ["latest"]]


def test_link(served: Served) -> None:
    """The link to the next page says after what it begins, and how long it is."""
    answer = served.get("/v2/_catalog?n=2")
    assert next_page(answer) == "/v2/_catalog?last=packages%2Fb&n=2"
    assert next_page(served.get(f"{TAGS}?n=1")) == f"{TAGS}?last=1.0&n=1"


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ("packages/a", "packages/b"),
        ("packages/b", "packages/b-1"),
        ("packages/ba", "packages/c"),
        ("", "packages/a"),
        ("a", "packages/a"),
        ("packages/f_0", "packages/f_1"),
        ("\0", "packages/a"),
    ],
)
def test_after(served: Served, last: str, first: str) -> None:
    """A list begins after what is given, whether or not that is there."""
    assert entries(served.get(f"/v2/_catalog?last={quote(last)}"))[0] == first


@pytest.mark.parametrize("last", ["packages/f_1", "z", "%F0%9F%92%A5", "%FF"])
def test_after_the_end(served: Served, last: str) -> None:
    """After the last entry there is nothing, and no link."""
    answer = served.get(f"/v2/_catalog?n=1&last={last}")
    assert entries(answer) == []
    assert next_page(answer) is None


def test_page_of_none(served: Served) -> None:
    """A page of no entries is empty, and leads nowhere."""
    for path in ("/v2/_catalog", TAGS):
        answer = served.get(f"{path}?n=0")
        assert entries(answer) == []
        assert next_page(answer) is None


@pytest.mark.parametrize(
    "size",
    [
        "",
        "x",
        "-1",
        "1.5",
        "1e3",
        "0x1",
        "%20",
        "1%20",
        "%D9%A1",
        "%C2%B2",
        "%FF",
        "9" * 10,
    ],
)
def test_sizes_that_are_no_number(served: Served, size: str) -> None:
    """A page whose size is no number is refused as such."""
    for path in ("/v2/_catalog", TAGS):
        answer = served.get(f"{path}?n={size}")
        assert (answer.status, answer.error[0]) == (400, "PAGINATION_NUMBER_INVALID")
        assert "it must be a number" in answer.error[1]
        assert next_page(answer) is None


def test_long_sizes_are_cut(served: Served) -> None:
    """Whatever nonsense is sent as a size, little of it comes back."""
    answer = served.get(f"/v2/_catalog?n={'x' * 10_000}")
    assert answer.status == 400
    assert len(answer.body) < 300


def test_large_pages(served: Served) -> None:
    """A page may be longer than the list, and leading zeros are no matter."""
    for size in ("999999999", "7", "000000008"):
        answer = served.get(f"/v2/_catalog?n={size}")
        assert len(entries(answer)) == 7
        assert next_page(answer) is None


def test_repeated_parameters(served: Served) -> None:
    """Of a parameter that is given twice the first counts."""
    answer = served.get("/v2/_catalog?n=1&n=x&last=packages/a&last=packages/c")
    assert entries(answer) == ["packages/b"]


@settings(max_examples=50)
@given(size=st.integers(0, 10**9 - 1), last=st.text(max_size=20))
def test_any_page(served: Served, size: int, last: str) -> None:
    """Whichever page is asked for, it is the right stretch of the sorted list."""
    encoded = quote(last.encode("utf-8", "surrogatepass"), safe="")
    answer = served.get(f"/v2/_catalog?n={size}&last={encoded}")
    everything = [f"packages/{name}" for name in NAMES]
    read = last.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    rest = [name for name in everything if name > read]
    assert entries(answer) == rest[:size]
    assert (next_page(answer) is not None) == (0 < size < len(rest))


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("packages/nothing", 404),
        ("library/a", 404),
        ("applications/a", 404),
        ("A", 400),
    ],
)
def test_tags_of_nothing(served: Served, name: str, status: int) -> None:
    """What is not there has no list of tags."""
    answer = served.get(f"/v2/{name}/tags/list")
    assert answer.status == status
    assert answer.error[0] in ("NAME_UNKNOWN", "NAME_INVALID")


def test_broken_flake(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever lists what cannot be evaluated reads why."""
    with serving(tmp_path_factory.mktemp("broken")) as served:
        served.nix.fail("eval", "error: it is broken")
        for path in ("/v2/_catalog", "/v2/packages/hello/tags/list"):
            answer = served.get(path)
            assert answer.status == 422
            assert "it is broken" in answer.reason
