"""Tests for `forgereg.flow.families`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.flow.families import (
    ENDINGS,
    Wanted,
    image_name,
    images_in,
    parse_application,
    parse_wanted,
)
from forgereg.oci.errors import NameUnknown
from forgereg.oci.reference import parse_name


def test_packages() -> None:
    """A package's image is one attribute of it."""
    assert parse_wanted(parse_name("packages/hello")) == Wanted("hello", "image")


def test_applications() -> None:
    """An application's images lie together in another attribute."""
    assert parse_wanted(parse_name("applications/shop/web")) == Wanted(
        "shop", "containers", "web"
    )


def test_application_without_image() -> None:
    """Whoever pulls an application is told to name one of its images."""
    with pytest.raises(NameUnknown, match="applications/shop/<image>"):
        parse_wanted(parse_name("applications/shop"))


def test_names_of_one_of_several_flakes() -> None:
    """What a name asks for stands behind its prefix; whoever errs reads it as well."""
    name = parse_name("acme/team/packages/hello")
    assert parse_wanted(name, "acme/team") == Wanted("hello", "image")
    with pytest.raises(NameUnknown, match="acme/team/applications/shop/<image>"):
        parse_wanted(parse_name("acme/team/applications/shop"), "acme/team")
    with pytest.raises(NameUnknown, match="acme/team/x is .* acme/team/packages/<"):
        parse_wanted(parse_name("acme/team/x"), "acme/team")


@pytest.mark.parametrize(
    "name",
    ["hello", "library/hello", "packages", "packages/a/b", "applications/a/b/c", "v2"],
)
def test_other_families(name: str) -> None:
    """Whoever pulls a name of no family is told which there are."""
    with pytest.raises(NameUnknown) as unknown:
        parse_wanted(parse_name(name))
    assert name in str(unknown.value)
    assert "packages/<package>" in str(unknown.value)
    assert "applications/<application>/<image>" in str(unknown.value)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("web.tar.gz", "web"),
        ("web.tar.zst", "web"),
        ("web.tar", "web"),
        ("web.tar.tar.gz", "web.tar"),
        ("web.tar.xz", "web"),
        ("web.oci", "web"),
        ("web.json", "web"),
        ("Web.tgz", "web"),
        ("web", "web"),
        ("stream-web", "stream-web"),
        ("web.oci.tar", "web.oci"),
        ("README", None),
        ("Web", None),
        ("compose.yaml", None),
        ("docker-compose.yml", None),
        ("web.2", None),
        ("we ird.tar", None),
        (".tar.gz", None),
        ("", None),
    ],
)
def test_images_of_an_application(entry: str, name: str | None) -> None:
    """An application's image is called by its entry's name less the ending."""
    assert image_name(entry) == name


def test_the_longest_ending_counts() -> None:
    """No ending hides another one."""
    assert [image_name(f"a{ending}") for ending in ENDINGS] == ["a"] * len(ENDINGS)


@given(st.permutations([f"web{ending}" for ending in ENDINGS] + ["WEB.tar.gz", "x.md"]))
def test_several_entries_for_one_name(entries: list[str]) -> None:
    """Of several entries for one image, the first ending counts, in lower case first."""
    assert images_in(entries) == {"web": "web.tar.gz"}
    assert images_in(["web", "web.json", "WEB.oci"]) == {"web": "WEB.oci"}


def test_whole_applications() -> None:
    """All of an application lies in one attribute; what is none is said to be none."""
    wanted = Wanted("shop", "containers")
    assert parse_application(parse_name("applications/shop")) == wanted
    assert parse_application(parse_name("a/b/applications/shop"), "a/b") == wanted
    assert wanted.is_directory
    for name in ("a/applications/shop", "packages/shop", "applications/shop/web"):
        with pytest.raises(NameUnknown, match=f"called {name}"):
            parse_application(parse_name(name))
