"""Tests for `forgereg.flow.flakes`: what is asked of a forge, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forgereg.flow.flakes import Flake
from forgereg.nix.process import Exit
from tests.archives import Recipe, layer
from tests.client import Connection
from tests.doubles import ScriptedNix
from tests.registry import ANY_FORM, TTL_SECONDS, Served, serving

NAMES = ("hello", "hullo", "hallo")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry of a flake with a tag, and three names for one package."""
    database = f"sqlite:///{tmp_path / 'r.sqlite'}"
    with serving(tmp_path, database=database, tags=("*", "rev:*")) as served:
        served.nix.refs["refs/tags/v1"] = served.nix.revision
        for name in NAMES:
            served.nix.packages[name] = served.nix.packages["hello"]
        yield served


def flake_of(served: Served) -> Flake:
    (flake,) = served.registry.flakes
    return flake


def ask(served: Served, tag: str) -> list[Connection]:
    """Ask for three images at once."""
    path = "/v2/packages/{}/manifests/{}"
    return [served.begin(path.format(name, tag), ANY_FORM) for name in NAMES]


def counts(nix: ScriptedNix) -> tuple[int, int]:
    """How often nix, and git, were asked for what refs mean."""
    return nix.count("metadata"), nix.count("ls-remote")


@pytest.mark.parametrize(
    ("tag", "asked"), [("latest", (1, 0)), ("v1", (2, 1)), (f"{1:040x}", (1, 0))]
)
def test_one_look_for_all(served: Served, tag: str, asked: tuple[int, int]) -> None:
    """Whatever is asked for at the same time, the forge is asked once."""
    served.nix.pause()
    clients = ask(served, tag)
    served.nix.finish()
    assert {client.answer().status for client in clients} == {200}
    assert counts(served.nix) == asked


def test_one_who_leaves(served: Served) -> None:
    """A client who leaves takes nothing from those who wait for the same look."""
    served.nix.pause()
    first, *others = ask(served, "v1")
    first.hang_up()
    served.nix.finish()
    assert {client.answer().status for client in others} == {200}


def test_list_of_refs_lives_as_long_as_a_tag(served: Served) -> None:
    """Tags that are known are not looked up again before their time is over."""
    served.pull("packages/hello", "v1")
    served.clock.advance(TTL_SECONDS - 0.1)
    served.pull("packages/hello", "v1")
    assert counts(served.nix) == (2, 1)
    served.clock.advance(0.1)
    served.pull("packages/hello", "v1")
    assert counts(served.nix) == (3, 2), "its revision needs not be locked again"


def test_a_tag_that_was_just_pushed(served: Served) -> None:
    """A tag that the list lacks is looked for again, but not every second."""
    served.pull("packages/hello", "v1")
    served.nix.refs["refs/tags/v2"] = served.nix.revision
    path = "/v2/packages/hello/manifests/v2"
    served.clock.advance(9.0)
    assert served.get(path, ANY_FORM).status == 404
    assert counts(served.nix)[1] == 1
    served.clock.advance(1.0)
    assert served.get(path, ANY_FORM).status == 200
    assert counts(served.nix)[1] == 2


def test_clock_that_was_set_back(served: Served) -> None:
    """A machine whose clock is set back does not trust an old list for ever."""
    served.pull("packages/hello", "v1")
    served.clock.advance(-1.0)
    served.pull("packages/hello", "v1")
    assert counts(served.nix) == (3, 2)


def test_pushed(served: Served) -> None:
    """When somebody has pushed, flake and refs are looked up at the next pull."""
    served.pull("packages/hello", "v1")
    flake_of(served).expire()
    served.pull("packages/hello", "v1")
    served.pull("packages/hello", "v1")
    assert counts(served.nix) == (3, 2)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_pushed_during_the_look(served: Served, steps: int) -> None:
    """A look that began before a push does not hide what was pushed."""
    served.pull("packages/hello")
    served.clock.advance(TTL_SECONDS)
    served.nix.pause()
    client = served.begin("/v2/packages/hello/manifests/v1", ANY_FORM)
    for _ in range(steps):
        served.nix.step()
    flake_of(served).expire()
    served.nix.finish()
    assert client.answer().status == 200
    before = counts(served.nix)
    served.pull("packages/hello", "v1")
    assert counts(served.nix)[0] > before[0]
    assert counts(served.nix)[1] == before[1] + (steps > 0)


@pytest.mark.parametrize("is_away", [False, True])
def test_a_look_from_before_a_push_ends_last(served: Served, is_away: bool) -> None:
    """What was found after a push is not replaced by who looked before it."""
    served.pull("packages/hello")
    served.clock.advance(TTL_SECONDS)
    served.nix.pause()
    before = served.begin("/v2/packages/hello/manifests/latest", ANY_FORM)
    served.nix.push()
    recipe = Recipe((layer("newer"),))
    served.nix.packages["hello"] = served.store.package("3.0", recipe, name="hello-3")
    flake_of(served).expire()
    after = served.begin("/v2/packages/hello/manifests/3.0", ANY_FORM)
    served.nix.overtake()
    if is_away:
        served.nix.fail("metadata", "error: unable to download")
    served.nix.step()
    served.nix.mend()
    served.nix.finish()
    assert (before.answer().status, after.answer().status) == (200, 200)
    looks = served.nix.count("metadata")
    served.pull("packages/hello", "3.0")
    assert served.nix.count("metadata") == looks


def test_pushed_after_a_restart(served: Served) -> None:
    """What a registry remembers from before its restart does not hide a push."""
    served.pull("packages/hello")
    served.restart()
    flake_of(served).expire()
    served.pull("packages/hello")
    assert served.nix.count("metadata") == 2


@pytest.mark.parametrize("ttl_seconds", [0.0, 1.0, TTL_SECONDS])
def test_left_alone_when_it_was_away(served: Served, ttl_seconds: float) -> None:
    """A forge that does not answer is waited for every half minute, and no oftener."""
    served.set(tag_ttl=ttl_seconds)
    served.pull("packages/hello", "v1")
    served.clock.advance(TTL_SECONDS)
    before = counts(served.nix)
    for verb in ("metadata", "ls-remote"):
        served.nix.fail(verb, exit=Exit(None, timed_out=True))
    served.nix.pause()
    client = served.begin("/v2/packages/hello/manifests/v1", ANY_FORM)
    served.clock.advance(60.0)
    served.nix.step()
    served.clock.advance(20.0)
    served.nix.step()
    assert client.answer().status == 200
    served.clock.advance(9.9)
    for _ in range(3):
        served.pull("packages/hello", "v1")
    after = counts(served.nix)
    assert after == (before[0] + 1, before[1] + 1)


def test_refs_that_were_never_had(served: Served) -> None:
    """Whoever pulls a git tag of a forge that is away reads why, and does not wait."""
    served.pull("packages/hello")
    served.nix.fail("ls-remote", "fatal: unable to connect")
    path = "/v2/packages/hello/manifests/v1"
    for _ in range(3):
        assert "unable to connect" in served.get(path, ANY_FORM).error[1]
    assert served.nix.count("ls-remote") == 1
    served.nix.mend()
    served.clock.advance(30.0)
    assert served.get(path, ANY_FORM).status == 200
