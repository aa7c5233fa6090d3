"""Tests for `forgereg.flow.families`."""

from __future__ import annotations

import pytest

from forgereg.flow.families import ENDINGS, Wanted, image_name, parse_wanted
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
        ("web.tar.xz", None),
        ("README", None),
        (".tar.gz", None),
        ("", None),
    ],
)
def test_images_of_an_application(entry: str, name: str | None) -> None:
    """An application's archive is called by its file's name less the ending."""
    assert image_name(entry) == name


def test_the_longest_ending_counts() -> None:
    """No ending hides another one."""
    assert [image_name(f"a{ending}") for ending in ENDINGS] == ["a"] * len(ENDINGS)
