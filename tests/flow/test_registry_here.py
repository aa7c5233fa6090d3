"""Tests for `forgereg.flow.registry`: a flake that somebody is writing at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgereg.nix.process import Exit
from tests.archives import Recipe, layer
from tests.doubles import FLAKE, ScriptedNix
from tests.registry import ANY_FORM, Served, serving

LATEST = "/v2/packages/hello/manifests/latest"
NEW = "/v2/packages/new/manifests/latest"


@pytest.fixture(params=["path:/srv/flake", "git+file:///srv/flake"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A registry of a flake that is a directory of this machine."""
    with serving(tmp_path, nix=ScriptedNix(flake=request.param)) as served:
        yield served


def save(served: Served, name: str) -> None:
    """Write another package, or another version of one, into the flake."""
    recipe = Recipe((layer(f"{name} anew"),))
    served.nix.packages[name] = served.store.package("2", recipe, name=f"{name}-new")
    served.nix.push()


def test_pulls(served: Served) -> None:
    """A flake that is a directory is served as any other."""
    served.pull("packages/hello")
    served.pull("packages/hello")
    assert (served.nix.count("metadata"), served.nix.count("build")) == (1, 1)


def test_new_package(served: Served) -> None:
    """A package that was just written is pulled at once."""
    assert served.get(NEW, ANY_FORM).status == 404
    save(served, "new")
    served.pull("packages/new")


def test_package_that_was_repaired(served: Served) -> None:
    """A build that failed is tried as the flake is now."""
    served.nix.fail("build", "error: it is broken")
    assert served.get(LATEST, ANY_FORM).status == 422
    served.nix.mend()
    save(served, "hello")
    served.pull("packages/hello", "2")


def test_package_that_still_fails(served: Served) -> None:
    """A build that fails in a flake that has not changed is not tried twice."""
    served.nix.fail("build", "error: it is broken")
    answer = served.get(LATEST, ANY_FORM)
    assert (answer.status, served.nix.counts) == (422, (2, 1, 1))
    assert "it is broken" in answer.error[1]


def test_where_it_failed(served: Served) -> None:
    """A failed build says where it failed, not that the flake was looked at again."""
    save(served, "new")
    served.pull("packages/hello")
    served.nix.fail("build", "error: it is broken")
    assert served.get(NEW, ANY_FORM).status == 422
    page = served.get("/-/builds/id-2").body.decode()
    assert re.search(r'class="broke">\s*<span>Building<', page)


def test_package_that_fails_anew(served: Served) -> None:
    """Of a flake that has changed and fails again, the new failure is told."""
    served.pull("packages/hello")
    save(served, "hello")
    served.nix.fail("eval", "error: a typing mistake")
    answer = served.get(NEW, ANY_FORM)
    assert answer.status == 422
    assert "a typing mistake" in answer.error[1]


def test_known_image(served: Served) -> None:
    """An image stays the same for its time to live, but of a git tree in the writing."""
    first = served.pull("packages/hello")
    save(served, "hello")
    is_pure = served.nix.flake.startswith("path:")
    assert (served.pull("packages/hello") == first) == is_pure
    assert served.nix.count("metadata") == 1


def test_timeout_is_told_as_such(served: Served) -> None:
    """Whoever waited for too long a build reads its last lines, not of another try."""
    line = {"action": "result", "type": 101, "fields": ["still compiling"]}
    exit = Exit(None, timed_out=True)
    served.nix.fail("build", f"@nix {json.dumps(line)}", exit=exit)
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    served.nix.step()
    served.nix.step()
    served.clock.advance(3600.0)
    served.nix.finish()
    answer = client.answer()
    assert answer.status == 422
    assert "build of packages/hello:latest timed out" in answer.error[1]
    assert "still compiling" in answer.error[1]


def test_flake_that_is_gone(served: Served) -> None:
    """Whoever pulls what fails reads why, even if the flake cannot be read by now."""
    served.nix.fail("build", "error: it is broken")
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    served.nix.step()
    served.nix.fail("metadata", "error: the flake is gone")
    served.nix.finish()
    answer = client.answer()
    assert answer.status == 422
    assert "it is broken" in answer.error[1] or "flake is gone" in answer.error[1]


def test_archive_that_cannot_come_back(served: Served) -> None:
    """A blob of a state that the flake is no longer in is refused, and that is said."""
    digest = served.digests("packages/hello")[2]
    served.store.real(served.nix.packages["hello"].outputs["image"].path).unlink()
    for blob in (served.state / "blobs").rglob("*/*/*"):
        blob.unlink()
    save(served, "hello")
    answer = served.get(f"/v2/packages/hello/blobs/{digest}")
    assert (answer.status, answer.error[0]) == (422, "MANIFEST_UNKNOWN")


def test_looked_at_again_soon(served: Served) -> None:
    """Whoever has just changed an image of theirs pulls the new one a moment later."""
    first = served.pull("packages/hello")
    save(served, "hello")
    served.clock.advance(6.0)
    assert served.pull("packages/hello") != first


def test_nothing_and_broken(served: Served) -> None:
    """What is missing may be in what was just written, and cannot be read: that is told."""
    served.pull("packages/hello")
    served.nix.fail("metadata", "error: a syntax error")
    assert "a syntax error" in served.get(NEW, ANY_FORM).error[1]


def test_flakes_elsewhere(tmp_path: Path) -> None:
    """A flake that is elsewhere is not looked up for each mistake of a client."""
    with serving(tmp_path) as served:
        assert served.nix.flake == FLAKE
        for _ in range(3):
            assert served.get(NEW, ANY_FORM).status == 404
        assert served.nix.count("metadata") == 1


def test_flake_that_is_away(served: Served) -> None:
    """What a flake on this machine had is served while its directory is away."""
    before = served.pull("packages/hello")
    served.get("/v2/_catalog")
    is_pure = served.nix.flake.startswith("path:")
    served.nix.fail("metadata", "error: getting status of '/srv': No such file")
    served.clock.advance(6.0)
    answer = served.get(LATEST, ANY_FORM)
    assert answer.status == 200 and "No such file" in (answer["Warning"] or "")
    assert served.pull("packages/hello") == before
    if is_pure:  # else nix is asked each time what is in it
        assert served.get("/v2/packages/hello/tags/list").status == 200
        assert served.get("/v2/_catalog").json["repositories"] == ["packages/hello"]
    served.nix.mend()
    save(served, "new")
    served.clock.advance(6.0)
    served.pull("packages/new")


def test_failures_that_are_remembered(served: Served) -> None:
    """However often a node asks for what has failed, one build has failed."""
    served.nix.fail("build", "error: it is broken")
    for seconds in range(5):
        message = served.get(LATEST, ANY_FORM).error[1]
        assert "it is broken" in message
        assert ("may be tried again in" in message) == (seconds > 0)
        served.clock.advance(1.0)
    (build,) = served.get("/-/api/builds").json["builds"]
    assert build["state"] == "failed"
    assert len(list((served.state / "logs").iterdir())) == 1


def test_change_during_a_build(served: Served) -> None:
    """Who has changed a package while the last change is built pulls the newer one."""
    before = served.store.package("1", Recipe((layer("before"),)), name="before")
    served.nix.packages["hello"] = before
    served.nix.pause()
    first = served.begin(LATEST, ANY_FORM)
    for _ in range(2):
        served.nix.step()  # to where it is built
    save(served, "hello")
    served.clock.advance(6.0)
    later = [served.begin(LATEST, ANY_FORM) for _ in range(2)]
    served.nix.finish()
    assert first.answer().status == 200
    newest = served.pull("packages/hello")["layers"]
    assert [client.answer().json["layers"] for client in later] == [newest] * 2


def test_no_change_during_a_build(served: Served) -> None:
    """Whoever comes later, while a build runs, joins it."""
    served.nix.pause()
    first = served.begin(LATEST, ANY_FORM)
    for _ in range(2):
        served.nix.step()
    served.clock.advance(6.0)
    second = served.begin(LATEST, ANY_FORM)
    served.nix.finish()
    assert first.answer().body == second.answer().body
    assert served.nix.count("build") == 1
    assert len(served.get("/-/api/builds").json["builds"]) == 1
