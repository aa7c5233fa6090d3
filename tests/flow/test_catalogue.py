"""Tests for `forgereg.flow.catalogue`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.flow.catalogue import Catalogue, Standing, View
from forgereg.flow.entries import Entry, Kind, read_entries
from forgereg.flow.flakes import Flake
from forgereg.values import FlakeSetting
from tests.deferreds import begin, result_of
from tests.doubles import Output, Package, ScriptedNix
from tests.registry import HELLO, TTL_SECONDS, Served, archive

OTHER = "github:acme/other"


def catalogue(served: Served) -> Catalogue:
    return Catalogue(
        served.registry,
        served.records,
        served.clock,
        lambda: 1_700_000_000.0 + served.clock.seconds(),
        served.threads,
    )


def view(served: Served) -> View:
    return result_of(catalogue(served).view())


def main_flake(served: Served) -> Flake:
    return served.registry.flakes[-1]


def standings(found: View) -> dict[str, Standing]:
    return {entry.path: found.standing(entry.path) for entry in found.entries}


def names(found: View, text: str) -> list[str]:
    return [entry.name for entry in found.search(text, None, None).entries]


def describe(served: Served, name: str, **meta: Any) -> None:
    served.nix.packages[name] = Package("1", {"image": image(served, name)}, meta=meta)


def image(served: Served, name: str) -> Output:
    return served.store.package("1", HELLO, name=name).outputs["image"]


def add_shop(served: Served, *entries: str) -> None:
    folder = served.store.folder("shop", {"web.tar.gz": archive(HELLO)})
    served.nix.packages["shop"] = Package("2", {"containers": folder}, entries)


def test_what_a_package_says_of_itself(served: Served) -> None:
    """A package is shown as its flake describes it."""
    describe(
        served,
        "Shown",
        description="It  shows\nthings.",
        licences=["MIT", "GPL-3.0"],
        homepages=["ftp://example.org", "https://example.org/x"],
    )
    entry = next(e for e in view(served).entries if e.attribute == "Shown")
    assert entry.path == "packages/shown"
    assert (entry.kind, entry.version) == (Kind.PACKAGE, "1")
    assert entry.description == "It shows things."
    assert entry.licences == ("MIT", "GPL-3.0")
    assert entry.homepage == "https://example.org/x"


def test_package_that_says_nothing(served: Served) -> None:
    """A package without a description is listed all the same."""
    (entry,) = view(served).entries
    assert (entry.description, entry.licences, entry.homepage) == ("", (), None)


def test_where_images_stand(served: Served) -> None:
    """An image is not built at first, ready when it was pulled, older after a push."""
    served.nix.packages["other"] = served.store.package("1", HELLO, name="other")
    assert set(standings(view(served)).values()) == {Standing.UNBUILT}
    served.pull("packages/hello")
    assert standings(view(served)) == {
        "packages/hello": Standing.READY,
        "packages/other": Standing.UNBUILT,
    }
    served.nix.push()
    served.clock.advance(TTL_SECONDS)
    assert view(served).standing("packages/hello") is Standing.OLDER


def test_image_that_is_built(served: Served) -> None:
    """While an image is built, its build can be found."""
    shown = catalogue(served)
    result_of(shown.view())
    served.nix.pause()
    served.begin("/v2/packages/hello/manifests/latest")
    served.nix.step()
    found = result_of(shown.view())
    assert found.standing("packages/hello") is Standing.BUILDING
    assert found.build("packages/hello") == served.builds.under_way[0].id
    served.nix.finish()
    assert result_of(shown.view()).standing("packages/hello") is Standing.READY


def test_nothing_is_built_or_evaluated_for_it(served: Served) -> None:
    """Looking costs one evaluation for each revision, however many look."""
    for number in range(20):
        describe(served, f"x{number}")
    shown = catalogue(served)
    for _ in range(3):
        assert len(result_of(shown.view()).entries) == 21
    assert served.nix.counts == (1, 1, 0)


def test_application(served: Served) -> None:
    """An application is ready when one of its images is: they are built together."""
    add_shop(served, "web.tar.gz", "db.tar.gz", "README")
    found = view(served)
    (shop,) = (e for e in found.entries if e.kind is Kind.APPLICATION)
    assert found.images(shop) == ("applications/shop/db", "applications/shop/web")
    assert found.standing("applications/shop") is Standing.UNBUILT
    served.pull("applications/shop/web")
    found = view(served)
    assert found.standing("applications/shop/db") is Standing.UNBUILT
    assert found.standing("applications/shop") is Standing.READY


def test_application_whose_images_are_unknown(served: Served) -> None:
    """Of an application that does not tell, those images are known that were pulled."""
    add_shop(served)
    found = view(served)
    shop = next(e for e in found.entries if e.kind is Kind.APPLICATION)
    assert found.images(shop) == ()
    served.pull("applications/shop/web")
    found = view(served)
    assert found.images(shop) == ["applications/shop/web"]
    assert found.standing("applications/shop/web") is Standing.READY
    assert found.standing("applications/shop") is Standing.READY


def test_nobody_waits_for_nix(served: Served) -> None:
    """A catalogue that is not read yet is shown without it, and read once meanwhile."""
    served.nix.pause()
    shown = catalogue(served)
    first, second = begin(shown.view()), begin(shown.view())
    served.clock.advance(1)
    for each in map(result_of, (first, second)):
        assert each.entries == []
        assert each.shelves[0].is_reading
    served.nix.finish()
    assert len(result_of(shown.view()).entries) == 1
    assert served.nix.counts == (1, 1, 0)


def test_old_is_shown_while_new_is_read(served: Served) -> None:
    """Once it was read, nobody waits at all: what was there is shown meanwhile."""
    shown = catalogue(served)
    result_of(shown.view())
    describe(served, "new")
    served.nix.push()
    served.nix.pause()
    served.clock.advance(TTL_SECONDS)
    found = result_of(shown.view())
    assert [entry.name for entry in found.entries] == ["hello"]
    assert found.shelves[0].is_reading
    served.nix.finish()
    assert len(result_of(shown.view()).entries) == 2


def test_restart(served: Served) -> None:
    """After a restart nix need not evaluate what it evaluated before."""
    view(served)
    again = view(served)
    assert len(again.entries) == 1
    assert served.nix.count("eval") == 1


def test_flake_that_cannot_be_read(tmp_path: Path) -> None:
    """A flake that cannot be read says why, and does not hide the others."""
    other = ScriptedNix(flake=OTHER)
    nix = ScriptedNix(others=[other])
    served = Served.below(tmp_path, nix, flakes=(FlakeSetting("team", OTHER),))
    nix.packages["hello"] = served.store.package("1", HELLO, name="hello")
    other.fail("metadata", "error: it is gone")
    shown = catalogue(served)
    found = result_of(shown.view())
    main, team = found.shelves
    assert [entry.path for entry in found.entries] == ["packages/hello"]
    assert (main.prefix, main.trouble) == ("", None)
    assert team.prefix == "team"
    assert "it is gone" in (team.trouble or "")
    assert not team.is_read
    asked = other.counts
    result_of(shown.view())
    assert other.counts == asked
    other.mend()
    other.packages["theirs"] = served.store.package("1", HELLO, name="theirs")
    served.clock.advance(60)
    found = result_of(shown.view())
    assert [e.path for e in found.entries] == [
        "packages/hello",
        "team/packages/theirs",
    ]
    assert found.entries[1].prefix == "team"
    served.stop()


def test_flake_that_is_broken_later(served: Served) -> None:
    """What was read before stays when the flake can no longer be evaluated."""
    shown = catalogue(served)
    result_of(shown.view())
    served.nix.push()
    served.nix.fail("eval", "error: a typo")
    served.clock.advance(TTL_SECONDS)
    result_of(shown.view())
    found = result_of(shown.view())
    assert len(found.entries) == 1
    assert "a typo" in (found.shelves[0].trouble or "")


def test_metadata_that_break_the_evaluation(served: Served) -> None:
    """Where descriptions cannot be evaluated, the names are listed without them."""
    describe(served, "x", description="It is lost.")
    served.nix.fail("meta", "error: infinite recursion encountered")
    found = view(served)
    assert [entry.description for entry in found.entries] == ["", ""]
    assert "infinite recursion" in (found.shelves[0].lack or "")
    assert found.shelves[0].trouble is None


ROWS = {
    "hello": "Says hello",
    "hello-oci": "As a layout",
    "othello": "A game",
    "game": "Another one, that says hello",
    "Größe": "No image can be called so",
}


def row(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": True,
        "containers": False,
        "entries": [],
        "description": description,
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hello", ["hello", "hello-oci", "othello", "game"]),
        ("  HELLO ", ["hello", "hello-oci", "othello", "game"]),
        ("packages/hello", ["hello", "hello-oci"]),
        ("packages/ hello", ["game", "hello", "hello-oci", "othello"]),
        ("packages", []),
        ("game", ["game", "othello"]),
        ("says hello", ["game", "hello"]),
        ("größe", []),
        ("nothing", []),
        ("", ["game", "hello", "hello-oci", "othello"]),
    ],
)
def test_search(served: Served, text: str, found: list[str]) -> None:
    """The exact name comes first, then names that begin so, then any that match."""
    assert names(of_rows(served, *ROWS.items()), text) == found


def of_rows(served: Served, *rows: tuple[str, str]) -> View:
    listed = read_entries([row(*each) for each in rows], main_flake(served))
    in_order = sorted(listed, key=lambda entry: entry.name)
    return View(in_order, [], {"packages/hello": Standing.READY}, {}, {})


def test_filters_are_counted(served: Served) -> None:
    """Each choice tells how much it would leave."""
    found = of_rows(served, *ROWS.items())
    hits = found.search("hello", None, Standing.READY)
    assert [entry.name for entry in hits.entries] == ["hello"]
    assert hits.kinds == {Kind.PACKAGE: 1}
    assert hits.standings == {Standing.READY: 1, Standing.UNBUILT: 3}
    assert found.search("", Kind.APPLICATION, None).entries == []


def test_one_name_in_lower_case(served: Served) -> None:
    """Of packages whose names are one in lower case, that is shown which is pulled."""
    for rows in (["Hello", "hello"], ["hello", "Hello"]):
        (entry,) = of_rows(served, *((name, name) for name in rows)).entries
        assert entry.attribute == "hello"


@given(st.lists(st.tuples(st.text(), st.text())), st.text())
def test_any_words(rows: list[tuple[str, str]], text: str) -> None:
    """Whatever a flake says and somebody looks for, the best of it is found first."""

    class Alone:
        prefix, path = "", ""

        def question(self, wanted: object) -> str:
            return ""

    listed = read_entries([row(*each) for each in rows], Alone())  # type: ignore[arg-type]
    found = View(listed, [], {}, {}, {}).search(text, None, None).entries
    words = " ".join(text.casefold().split())
    ranks = [entry.rank(words) for entry in found]
    assert None not in ranks
    assert ranks == sorted(ranks, key=lambda rank: rank or 0)
    for entry in listed:
        assert len(entry.description) <= 300
        assert (
            entry
            in View(listed, [], {}, {}, {}).search(entry.name, None, None).entries[:1]
        )


def test_entries_are_compared_by_what_they_show(served: Served) -> None:
    """What is read twice is the same."""
    first: list[Entry] = list(view(served).entries)
    assert first == list(view(served).entries)
