"""Which image of several `forgereg.archive.layout` chooses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.archive.layout import choose
from forgereg.archive.reading import Packed
from forgereg.oci.manifest import Manifest, sha256
from forgereg.oci.reference import Name, Tag


def packed(word: str, *tags: str) -> Packed:
    body = word.encode()
    return Packed(tags, (Manifest("text/plain", body, sha256(body)),), frozenset())


FIRST = packed("first", "other:1", "other:latest")
OURS = packed("ours", "hello:1")
NAMED = packed("named", "docker.io/library/hello:2.12")
TAGGED = packed("tagged", "other:2.12")
BOTH = packed("both", "x:y", "localhost:5000/hello:2.13", "z:z")


@pytest.mark.parametrize(
    ("tag", "chosen"),
    [("2.12", NAMED), ("2.13", BOTH), ("1", OURS), ("latest", OURS)],
)
def test_image_is_chosen_by_name_and_tag(tag: str, chosen: Packed) -> None:
    """Of several images the one is served that has both the name and the tag."""
    several = (FIRST, TAGGED, OURS, NAMED, BOTH)
    assert choose(several, Name("packages/hello"), Tag(tag)) is chosen


def test_name_counts_for_more_than_the_tag() -> None:
    """An image of the name comes before an image that has only the tag."""
    name = Name("packages/hello")
    assert choose((TAGGED, OURS), name, Tag("2.12")) is OURS
    assert choose((OURS, TAGGED), name, Tag("2.12")) is OURS


def test_image_is_chosen_by_tag_where_none_has_the_name() -> None:
    """Where no image has the name, the one with the tag is served."""
    assert choose((FIRST, TAGGED), Name("packages/hello"), Tag("2.12")) is TAGGED


def test_first_image_is_chosen_where_nothing_fits() -> None:
    """Where neither name nor tag fits, the first image is served."""
    several = (packed("untagged"), FIRST, TAGGED)
    assert choose(several, Name("packages/hello"), Tag("9")) is several[0]


def test_first_of_equals_is_chosen() -> None:
    """Of two images that fit equally well, the first is served."""
    twins = (packed("one", "hello:1"), packed("two", "hello:1"))
    assert choose(twins, Name("hello"), Tag("1")) is twins[0]


def test_name_and_tag_of_two_references_do_not_add_up() -> None:
    """Name and tag count together only where one reference has both."""
    mixed = packed("mixed", "hello:1", "other:2.12")
    exact = packed("exact", "hello:2.12")
    assert choose((mixed, exact), Name("hello"), Tag("2.12")) is exact


def test_only_the_last_component_of_a_name_counts() -> None:
    """An image is known by the last component of its name, wherever it is kept."""
    several = (packed("part", "packages:1"), packed("ours", "a.b/c/hello:1"))
    chosen = choose(several, Name("packages/hello"), Tag("1"))
    assert chosen is several[1]


@pytest.mark.parametrize(
    "reference",
    ["", ":", "hello", "/", ":::", "hello@sha256:0", "localhost:5000/hello"],
)
def test_odd_reference_in_an_archive_does_no_harm(reference: str) -> None:
    """A reference that is not name and tag is only less likely to be chosen."""
    odd = packed("odd", reference)
    assert choose((odd,), Name("hello"), Tag("1")) is odd
    assert choose((odd, OURS), Name("hello"), Tag("1")) is OURS


@given(st.lists(st.lists(st.text("ab:/", max_size=6), max_size=3), min_size=1))
def test_some_image_is_always_chosen(tags: list[list[str]]) -> None:
    """Whatever references an archive has, one of its images is served."""
    several = tuple(packed(str(n), *refs) for n, refs in enumerate(tags))
    chosen = choose(several, Name("a/b"), Tag("a"))
    assert chosen in several
