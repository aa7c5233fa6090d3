"""Tests for `forgereg.flow.registry`: what it knows later, and after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forgereg.flow.report import State
from forgereg.nix.process import Exit
from tests.archives import Recipe, layer
from tests.conftest import Log
from tests.deferreds import result_of
from tests.doubles import FLAKE
from tests.flow.stages import add, hold, pull
from tests.registry import ANY_FORM, BEGIN, TTL_SECONDS, Served, serving

LATEST = "/v2/packages/hello/manifests/latest"
NEWER = Recipe((layer("newer"),))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry whose records are in a file."""
    with serving(tmp_path, database=f"sqlite:///{tmp_path / 'r.sqlite'}") as served:
        yield served


def push(served: Served) -> None:
    """Give the flake a newer hello."""
    served.nix.push()
    served.nix.packages["hello"] = served.store.package("3.0", NEWER, name="hello-3")


def test_within_the_time_to_live(served: Served) -> None:
    """What a tag means is not looked up again before its time is over."""
    first = served.digests("packages/hello")
    push(served)
    served.clock.advance(TTL_SECONDS - 0.1)
    assert served.digests("packages/hello") == first
    assert served.nix.count("metadata") == 1


def test_after_the_time_to_live(served: Served) -> None:
    """After its time a tag means what the flake says by then."""
    first = served.digests("packages/hello")
    push(served)
    served.clock.advance(TTL_SECONDS)
    assert served.digests("packages/hello") != first
    assert served.nix.count("metadata") == 2
    assert served.get("/v2/packages/hello/manifests/2.12", ANY_FORM).status == 404
    served.pull("packages/hello", "3.0")


def test_unchanged_flake(served: Served) -> None:
    """A flake that has not changed is looked up, but neither evaluated nor built."""
    first = served.digests("packages/hello")
    served.clock.advance(TTL_SECONDS)
    assert served.digests("packages/hello") == first
    assert served.nix.counts == (2, 1, 1)


def test_unchanged_package(served: Served) -> None:
    """A package that a push has not changed is not built again."""
    first = served.digests("packages/hello")
    served.nix.push()
    served.clock.advance(TTL_SECONDS)
    assert served.digests("packages/hello") == first
    assert served.nix.counts == (2, 2, 1)


def test_pulls_while_something_is_forgotten(served: Served) -> None:
    """A pull from before something was forgotten makes no other be asked again."""
    (bye,) = add(served, "bye")
    (before,) = hold(served, State.READING)
    served.registry.forget()
    served.nix.finish()
    after = pull(served, bye)
    served.readers.resume()
    assert result_of(before) and result_of(after)
    asked = len(served.threads.calls)
    assert result_of(pull(served, bye))
    assert len(served.threads.calls) == asked


def test_no_time_to_live(served: Served) -> None:
    """With a time to live of nought, each pull by tag sees what was pushed last."""
    served.set(tag_ttl=0.0)
    served.get(LATEST, ANY_FORM)
    served.get(LATEST, ANY_FORM)
    assert served.nix.count("metadata") == 2


def test_clock_that_was_set_back(served: Served) -> None:
    """A machine whose clock is set back does not trust an old tag for ever."""
    served.pull("packages/hello")
    served.clock.advance(-1.0)
    served.get(LATEST, ANY_FORM)
    assert served.nix.count("metadata") == 2


def test_old_digests_stay(served: Served) -> None:
    """A running deployment finds its image by digest when the tag has moved on."""
    old = served.digests("packages/hello")
    push(served)
    served.clock.advance(TTL_SECONDS)
    served.pull("packages/hello")
    calls = len(served.nix.argvs)
    assert served.digests("packages/hello", old[0]) == old
    assert len(served.nix.argvs) == calls


def test_unreachable_flake(served: Served) -> None:
    """While the flake cannot be reached, what is known of it is served."""
    digests = served.digests("packages/hello")
    served.clock.advance(TTL_SECONDS)
    served.nix.fail("metadata", "error: unable to download")
    for _ in range(3):
        assert served.digests("packages/hello") == digests
    assert served.nix.count("metadata") == 2, "it is left alone for a while"
    served.clock.advance(30.0)
    served.nix.mend()
    served.pull("packages/hello")
    assert served.nix.count("metadata") == 3


def test_flake_that_does_not_answer(served: Served) -> None:
    """A network that swallows everything holds a known image up for a minute at most."""
    digests = served.digests("packages/hello")
    served.clock.advance(TTL_SECONDS)
    served.nix.fail("metadata", exit=Exit(None, timed_out=True))
    assert served.digests("packages/hello") == digests
    assert served.nix.limits[-1] == 60.0


def test_flake_that_never_was_reached(served: Served) -> None:
    """A flake that could not be reached even once is told as the reason."""
    served.nix.fail("metadata", "error: unable to download")
    refused = served.get(LATEST, ANY_FORM)
    assert refused.status == 422
    assert f"flake {FLAKE} failed: unable to download" in refused.error[1]


def test_restart_within_the_time_to_live(served: Served) -> None:
    """A restarted registry serves tags that it knows without nix."""
    first = served.pull("packages/hello")
    calls = len(served.nix.argvs)
    served.restart()
    assert served.pull("packages/hello") == first
    assert served.pull("packages/hello", "2.12") == first
    assert len(served.nix.argvs) == calls
    assert served.readers.calls == ["_scan"]


def test_restart_after_the_time_to_live(served: Served) -> None:
    """A restarted registry serves digests without nix, however long it was down."""
    digests = served.digests("packages/hello")
    served.clock.advance(TTL_SECONDS * 1000)
    calls = len(served.nix.argvs)
    served.restart()
    assert served.digests("packages/hello", digests[0]) == digests
    assert len(served.nix.argvs) == calls
    served.get(LATEST, ANY_FORM)
    assert served.nix.counts == (2, 1, 1)


def test_restart_on_another_flake(served: Served) -> None:
    """What one flake was resolved to is not taken for another."""
    served.pull("packages/hello")
    served.records.remember_resolution("github:other/flake", "x", BEGIN)
    served.restart()
    served.pull("packages/hello")
    assert served.nix.count("metadata") == 1


def test_restart_for_another_system(served: Served) -> None:
    """What the flake has for one system is not taken for what it has for another."""
    served.pull("packages/hello")
    served.nix.system = "aarch64-linux"
    del served.nix.packages["hello"]
    served.restart()
    assert served.get(LATEST, ANY_FORM).status == 404


def test_lists_after_a_restart(served: Served) -> None:
    """A restarted registry lists what it listed before, without nix."""
    paths = ("/v2/_catalog", "/v2/packages/hello/tags/list")
    before = [served.get(path).body for path in paths]
    calls = len(served.nix.argvs)
    served.restart()
    assert [served.get(path).body for path in paths] == before
    assert len(served.nix.argvs) == calls


def test_restart_during_a_build(served: Served) -> None:
    """A registry that ended in the midst of a build begins again."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    served.nix.step()
    served.nix.step()
    client.hang_up()
    served.nix.die()
    served.restart()
    served.pull("packages/hello")
    assert served.nix.counts == (1, 1, 2)


def test_what_is_not_there_is_not_remembered(served: Served) -> None:
    """Asking for what is not there leaves nothing behind in the records."""
    for _ in range(2):
        answer = served.get("/v2/packages/other/manifests/latest", ANY_FORM)
        assert answer.status == 404
    assert served.nix.count("eval") == 2


def test_every_image_has_its_root(served: Served) -> None:
    """Every image that is served is kept from nix's garbage collector."""
    served.pull("packages/hello")
    push(served)
    served.clock.advance(TTL_SECONDS)
    served.pull("packages/hello")
    assert len(list((served.state / "roots").iterdir())) == 2


def test_the_log_tells_the_story(served: Served, log: Log) -> None:
    """The log says what the flake is now, what is built, and how long it took."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    served.nix.step()
    served.nix.step()
    served.clock.advance(12.0)
    served.nix.resume()
    assert client.answer().status == 200
    derivation = served.nix.packages["hello"].outputs["image"].derivation
    assert f"{FLAKE} is now {served.nix.locked}" in log.text
    assert f"packages/hello:latest: building {derivation}" in log.text
    assert "after 12.0 s" in log.text
