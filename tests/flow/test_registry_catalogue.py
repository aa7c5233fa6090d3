"""Tests for `forgereg.flow.registry`: what is listed without being built."""

from __future__ import annotations

import pytest

from forgereg.oci.errors import EvaluationFailed, NameUnknown
from forgereg.oci.reference import Name, parse_name
from tests.archives import Recipe, layer
from tests.deferreds import result_of
from tests.doubles import Package
from tests.registry import TTL_SECONDS, Served, archive


def catalogue(served: Served) -> list[str]:
    return result_of(served.registry.catalogue())


def add_shop(served: Served, *entries: str) -> None:
    """Give the flake an application, and what is known of it unbuilt."""
    containers = served.store.folder(
        "shop",
        {f"{name}.tar.gz": archive(Recipe((layer(name),))) for name in ("web", "db")},
    )
    served.nix.packages["Shop"] = Package("1", {"containers": containers}, entries)


def test_packages(served: Served) -> None:
    """Every package that has an image is listed, in lower case and sorted."""
    image = served.nix.packages["hello"].outputs
    served.nix.packages["Apple"] = Package("1", image)
    served.nix.packages["plain"] = Package("1")
    assert catalogue(served) == ["packages/apple", "packages/hello"]
    assert served.nix.count("build") == 0


def test_empty_flake(served: Served) -> None:
    """A flake without packages has an empty list."""
    served.nix.packages.clear()
    assert catalogue(served) == []


def test_applications_whose_images_are_known(served: Served) -> None:
    """An application that was made by linkFarm is listed image by image."""
    add_shop(served, "web.tar.gz", "db.tar.zst", "README")
    assert catalogue(served) == [
        "applications/shop/db",
        "applications/shop/web",
        "packages/hello",
    ]


def test_applications_whose_images_are_unknown(served: Served) -> None:
    """Another application is listed as a whole, beside those images that were pulled."""
    add_shop(served)
    assert catalogue(served) == ["applications/shop", "packages/hello"]
    served.pull("applications/shop/web")
    assert catalogue(served) == [
        "applications/shop",
        "applications/shop/web",
        "packages/hello",
    ]


def test_package_and_application(served: Served) -> None:
    """What is both is listed as both."""
    add_shop(served, "web.tar.gz")
    outputs = {
        **served.nix.packages["Shop"].outputs,
        "image": served.nix.packages["hello"].outputs["image"],
    }
    served.nix.packages["Shop"] = Package("1", outputs, ["web.tar.gz"])
    assert catalogue(served) == [
        "applications/shop/web",
        "packages/hello",
        "packages/shop",
    ]


def test_names_that_cannot_be_pulled(served: Served) -> None:
    """What no client could ask for is not listed."""
    image = served.nix.packages["hello"].outputs
    for name in ("gtk+", "-x", "a b", "ü", "a..b", "x" * 300):
        served.nix.packages[name] = Package("1", image)
    listed = catalogue(served)
    assert listed == ["packages/hello"]
    assert all(parse_name(name) for name in listed)


def test_asked_once(served: Served) -> None:
    """The list of a revision is asked of nix once."""
    assert catalogue(served) == catalogue(served)
    assert served.nix.counts == (1, 1, 0)


def test_newer_revision(served: Served) -> None:
    """A push changes the list when the time to live is over."""
    catalogue(served)
    served.nix.push()
    served.nix.packages["new"] = served.nix.packages["hello"]
    assert "packages/new" not in catalogue(served)
    served.clock.advance(TTL_SECONDS)
    assert "packages/new" in catalogue(served)


def test_broken_flake(served: Served) -> None:
    """Whoever lists a flake that cannot be evaluated reads why."""
    served.nix.fail("eval", "error: it is broken")
    with pytest.raises(EvaluationFailed, match="it is broken"):
        catalogue(served)


def test_tags_of_an_application(served: Served) -> None:
    """The tags of an application's image are known without building it."""
    add_shop(served)
    assert result_of(served.registry.tags(Name("applications/shop/web"))) == [
        "1",
        "latest",
    ]
    assert served.nix.count("build") == 0


@pytest.mark.parametrize("name", ["packages/nothing", "library/hello"])
def test_tags_of_nothing(served: Served, name: str) -> None:
    """What is not there has no tags."""
    with pytest.raises(NameUnknown):
        result_of(served.registry.tags(Name(name)))
