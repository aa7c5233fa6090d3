"""Tests for `forgereg.flow.registry`: the last image that worked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archives import Recipe, layer
from tests.client import Answer
from tests.conftest import Log
from tests.doubles import ScriptedNix
from tests.registry import ANY_FORM, TTL_SECONDS, Served, serving

TAGS = ("latest", "2.12", "v1", "main")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry of a flake with a tag and a branch; its records are in a file."""
    database = f"sqlite:///{tmp_path / 'r.sqlite'}"
    with serving(tmp_path, database=database, tags=("*",)) as served:
        for ref in ("refs/tags/v1", "refs/heads/main"):
            served.nix.refs[ref] = served.nix.revision
        yield served


def get(served: Served, tag: str = "latest") -> Answer:
    return served.get(f"/v2/packages/hello/manifests/{tag}", ANY_FORM)


def warning(answer: Answer) -> str:
    """Give the warning of an image that was served."""
    assert answer.status == 200, answer.body
    return answer["Warning"] or ""


def push(served: Served) -> None:
    """Give the flake a newer hello, and let the time of what is known be over."""
    recipe = Recipe((layer("newer"),))
    served.nix.push()
    served.nix.packages["hello"] = served.store.package("3", recipe, name="newer")
    served.nix.refs["refs/heads/main"] = served.nix.revision
    served.clock.advance(TTL_SECONDS)


def unplug(nix: ScriptedNix) -> None:
    """Let nobody reach the forge."""
    nix.fail("metadata", "error: unable to download")
    nix.fail("ls-remote", "fatal: unable to connect")


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("restarts", [False, True])
def test_unreachable(served: Served, log: Log, tag: str, restarts: bool) -> None:
    """While the forge is away a tag means what it meant; client and log are warned."""
    before = get(served, tag)
    assert warning(before) == ""
    push(served)
    unplug(served.nix)
    if restarts:
        served.restart()
    for _ in range(3):
        answer = get(served, tag)
        assert warning(answer).startswith('299 forge-registry "the last image that')
        assert "unable to" in warning(answer)
        assert answer.body == before.body
    assert "going on" in log.text or "goes on" in log.text
    served.nix.mend()
    served.clock.advance(30.0)
    assert warning(get(served)) == ""


@pytest.mark.parametrize("tag", TAGS)
def test_switched_off(served: Served, tag: str) -> None:
    """An operator who wants no old images has them refused, with the reason."""
    served.set(last_known_good="off")
    get(served, tag)
    push(served)
    unplug(served.nix)
    answer = get(served, tag)
    assert answer.status == 422
    assert "unable to" in answer.error[1]


def test_directory_that_is_gone(tmp_path: Path) -> None:
    """Images of a directory that somebody has moved away are served on, and say so."""
    nix = ScriptedNix(flake="path:/srv/flake")
    with serving(tmp_path, nix=nix) as served:
        get(served)
        served.clock.advance(TTL_SECONDS)
        nix.fail("metadata", "error: getting status of '/srv/flake': no such file")
        assert "no such file" in warning(get(served))


@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
def test_broken_revision(served: Served, verb: str) -> None:
    """A new revision that is broken is told, rather than that the old one be served."""
    get(served)
    push(served)
    served.nix.fail(verb, "error: syntax error")
    answer = get(served)
    assert answer.status == 422
    assert "syntax error" in answer.error[1]


@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
@pytest.mark.parametrize("tag", ["latest", "main"])
@pytest.mark.parametrize("restarts", [False, True])
def test_always(served: Served, verb: str, tag: str, restarts: bool) -> None:
    """An operator can have the last image served when a new revision is broken."""
    served.set(last_known_good="always")
    before = get(served, tag)
    push(served)
    served.nix.fail(verb, "error: syntax error")
    if restarts:
        served.restart()
    answer = get(served, tag)
    assert "syntax error" in warning(answer)
    assert answer.body == before.body
    served.nix.mend()
    served.clock.advance(60.0)
    after = get(served, tag)
    assert warning(after) == ""
    assert after.body != before.body


@pytest.mark.parametrize("policy", ["off", "unreachable", "always"])
def test_what_was_removed_is_gone(served: Served, policy: str) -> None:
    """A package, a version or a git tag that was removed is not served any longer."""
    served.set(last_known_good=policy)
    for tag in TAGS:
        get(served, tag)
    push(served)
    del served.nix.refs["refs/tags/v1"]
    assert [get(served, tag).status for tag in TAGS] == [200, 404, 404, 200]
    served.nix.push()
    del served.nix.packages["hello"]
    served.clock.advance(TTL_SECONDS)
    assert get(served).status == 404


@pytest.mark.parametrize("policy", ["off", "unreachable", "always"])
@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
def test_nothing_is_known(served: Served, verb: str, policy: str) -> None:
    """Where no image ever worked, the reason is told."""
    served.set(last_known_good=policy)
    served.nix.fail(verb, "error: it is broken")
    for tag in ("latest", "main"):
        answer = get(served, tag)
        assert answer.status == 422
        assert "it is broken" in answer.error[1]


def test_another_tag_never_worked(served: Served) -> None:
    """The last image of one tag is not taken for another's."""
    get(served)
    served.nix.fail("ls-remote", "fatal: unable to connect")
    assert get(served, "v1").status == 422
