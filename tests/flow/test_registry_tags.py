"""Tests for `forgereg.flow.registry`: tags that are git refs of the flake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archives import Recipe, layer
from tests.doubles import ScriptedNix
from tests.registry import ANY_FORM, TTL_SECONDS, Served, serving

HTTPS = "git+https://forge.example/acme"


def push(served: Served, version: str, *refs: str) -> str:
    """Give the flake another hello, and what refers to it; give its revision."""
    nix = served.nix
    nix.push()
    recipe = Recipe((layer(version),))
    nix.packages["hello"] = served.store.package(version, recipe, name=f"v{version}")
    nix.refs.update(dict.fromkeys(refs, nix.revision))
    return nix.revision


def status(served: Served, tag: str) -> int:
    return served.get(f"/v2/packages/hello/manifests/{tag}", ANY_FORM).status


def tags(served: Served, query: str = "") -> list[str]:
    answer = served.get(f"/v2/packages/hello/tags/list{query}")
    assert answer.status == 200, answer.body
    listed: list[str] = answer.json["tags"]
    return listed


@pytest.fixture(params=["github:acme/forge", HTTPS])
def forge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """
    A registry of a flake that has a history, and whose records are in a file.

    2.12 is ``v1``, 3.0 is ``v2`` with a text, 4.0 is the newest.
    """
    nix = ScriptedNix(flake=request.param)
    with serving(
        tmp_path,
        nix=nix,
        database=f"sqlite:///{tmp_path / 'r.sqlite'}",
        tags=("v*", "branch:main", "branch:2.*", "rev:*"),
    ) as served:
        nix.refs["refs/tags/v1"] = nix.revision
        push(served, "3.0", "refs/tags/v2^{}")
        nix.refs["refs/tags/v2"] = "f" * 40
        push(served, "4.0", "refs/heads/main", "refs/heads/side", "refs/heads/2.x")
        yield served


def test_each_tag_is_another_image(forge: Served) -> None:
    """A git tag, with or without a text, a branch and latest mean what they are of."""
    pulled = {tag: forge.digests("packages/hello", tag) for tag in ("v1", "v2", "main")}
    assert len({digests[0] for digests in pulled.values()}) == 3
    assert pulled["main"][2:] == forge.digests("packages/hello")[2:]


def test_what_no_pattern_allows(forge: Served) -> None:
    """A branch that no pattern allows is not there, and nothing of it is evaluated."""
    forge.pull("packages/hello")
    evaluated = forge.nix.count("eval")
    assert status(forge, "side") == 404
    assert forge.nix.count("eval") == evaluated
    forge.set(tags=("branch:s*",))
    forge.pull("packages/hello", "side")
    assert status(forge, "v1") == 404


def test_without_patterns(forge: Served) -> None:
    """Unless the operator allows some, no git ref can be pulled or is looked for."""
    forge.set(tags=())
    for tag in ("v1", "main", forge.nix.revision):
        assert status(forge, tag) == 404
    assert tags(forge) == ["4.0", "latest"]
    assert forge.nix.count("ls-remote") == 0


def test_what_was_allowed_once(forge: Served) -> None:
    """A tag that was pulled is no longer there when no pattern allows it any more."""
    forge.pull("packages/hello", "v1")
    forge.set(tags=("branch:*",))
    assert status(forge, "v1") == 404


def test_a_star_is_no_revision(forge: Served) -> None:
    """Whoever allows every tag and branch has not allowed anybody's commits."""
    forge.set(tags=("*", "tag:*", "branch:*"))
    answer = forge.get(f"/v2/packages/hello/manifests/{forge.nix.revision}", ANY_FORM)
    assert answer.status == 404
    assert "no pattern lets revisions" in answer.error[1]
    assert forge.nix.argvs == []


def test_own_version_comes_first(forge: Served) -> None:
    """Where the package's version is the name of a git ref, it means the package."""
    forge.nix.refs["refs/heads/4.0"] = forge.nix.refs["refs/tags/v1"]
    forge.set(tags=("*",))
    newest = forge.digests("packages/hello")
    assert forge.digests("packages/hello", "4.0")[2:] == newest[2:]


def test_a_version_that_is_new(forge: Served) -> None:
    """A git ref gives way when the package has a version of its name."""
    ref = forge.digests("packages/hello", "2.x")
    assert forge.digests("packages/hello", "2.x") == ref
    push(forge, "2.x")
    forge.clock.advance(TTL_SECONDS)
    assert forge.digests("packages/hello", "2.x")[2:] != ref[2:]


def test_a_version_that_is_new_meanwhile(forge: Served) -> None:
    """A git ref that was built while the package got such a version gives way, too."""
    forge.readers.pause()
    client = forge.begin("/v2/packages/hello/manifests/2.x", ANY_FORM)
    push(forge, "2.x")
    forge.registry.flakes[-1].expire()
    assert "2.x" in tags(forge)
    forge.readers.resume()
    assert client.answer().status == 200
    latest = forge.digests("packages/hello")
    assert forge.digests("packages/hello", "2.x")[2:] == latest[2:]


def test_tag_before_branch(forge: Served) -> None:
    """Of a tag and a branch that are called the same, the tag is meant."""
    forge.nix.refs["refs/heads/v1"] = forge.nix.revision
    v1 = forge.digests("packages/hello", "v1")
    assert v1[2:] != forge.digests("packages/hello")[2:]


def test_a_version_that_does_not_build(forge: Served) -> None:
    """Whose package fails to build reads so, rather than get what a git tag means."""
    forge.nix.refs["refs/tags/4.0"] = forge.nix.refs["refs/tags/v1"]
    forge.set(tags=("*",))
    forge.nix.fail("build", "error: it is broken")
    answer = forge.get("/v2/packages/hello/manifests/4.0", ANY_FORM)
    assert "it is broken" in answer.error[1]
    assert forge.nix.count("ls-remote") == 0


def test_package_that_was_removed(forge: Served) -> None:
    """What the newest revision no longer has can be pulled by an older one's tag."""
    forge.nix.push()
    del forge.nix.packages["hello"]
    forge.pull("packages/hello", "v1")
    assert status(forge, "latest") == 404


@pytest.mark.parametrize("verb", ["eval", "metadata"])
def test_newest_revision_is_broken(forge: Served, verb: str) -> None:
    """A git tag can be pulled although the newest revision cannot."""
    forge.nix.fail(verb, "error: it is broken")
    assert status(forge, "v1") == 422
    forge.nix.mend()
    forge.clock.advance(60.0)
    forge.pull("packages/hello", "v1")


def test_revision(forge: Served) -> None:
    """A full revision is the image as it was then, whatever leads to it."""
    for ref in ("refs/tags/v1", "refs/tags/v2^{}", "refs/heads/main"):
        tag = ref.rpartition("/")[2].removesuffix("^{}")
        by_revision = forge.digests("packages/hello", forge.nix.refs[ref])
        assert by_revision[2:] == forge.digests("packages/hello", tag)[2:]


def test_revision_is_resolved_once(forge: Served) -> None:
    """A revision that was pulled needs neither git nor nix again, nor the newest one."""
    revision = forge.nix.refs["refs/tags/v1"]
    first = forge.digests("packages/hello", revision)
    calls = len(forge.nix.argvs)
    forge.nix.fail("metadata", "error: unable to download")
    forge.nix.fail("ls-remote", "error: unable to download")
    forge.clock.advance(TTL_SECONDS * 1000)
    assert forge.digests("packages/hello", revision) == first
    forge.restart()
    assert forge.digests("packages/hello", revision) == first
    assert len(forge.nix.argvs) == calls


def test_revision_is_known_in_memory(forge: Served) -> None:
    """A revision that was pulled is answered at once, without looking at the records."""
    revision = forge.nix.refs["refs/tags/v1"]
    forge.pull("packages/hello")
    forge.pull("packages/hello", revision)
    forge.threads.calls.clear()
    assert status(forge, revision) == 200
    assert forge.threads.calls == []


def test_unknown_revision(forge: Served) -> None:
    """Whoever asks for a revision that is not there reads that it is not."""
    answer = forge.get(f"/v2/packages/hello/manifests/{'e' * 40}", ANY_FORM)
    assert answer.status == 422
    assert "cannot be found there" in answer.error[1]


def test_branch_that_moves(forge: Served) -> None:
    """After its time a branch means its new commit, and its old digest stays."""
    old = forge.digests("packages/hello", "main")
    push(forge, "5.0", "refs/heads/main")
    forge.clock.advance(TTL_SECONDS - 0.1)
    assert forge.digests("packages/hello", "main") == old
    forge.clock.advance(0.1)
    assert forge.digests("packages/hello", "main") != old
    assert forge.digests("packages/hello", old[0]) == old


def test_tag_that_is_deleted(forge: Served) -> None:
    """A git tag that was deleted is gone after its time; its digest is not."""
    old = forge.digests("packages/hello", "v1")
    del forge.nix.refs["refs/tags/v1"]
    forge.clock.advance(TTL_SECONDS)
    assert status(forge, "v1") == 404
    assert forge.digests("packages/hello", old[0]) == old


def test_list(forge: Served) -> None:
    """The list has versions and allowed refs, page by page, and nothing is built."""
    assert tags(forge) == ["2.x", "4.0", "latest", "main", "v1", "v2"]
    assert tags(forge, "?n=2") == ["2.x", "4.0"]
    assert tags(forge, "?n=9&last=main") == ["v1", "v2"]
    assert forge.nix.count("build") == 0
    assert forge.nix.count("ls-remote") == 1


def test_list_while_git_is_away(forge: Served) -> None:
    """While the refs cannot be had, the list has what is known without them."""
    forge.nix.fail("ls-remote", "error: unable to connect")
    assert tags(forge) == ["4.0", "latest"]


def test_a_directory_has_no_refs(tmp_path: Path) -> None:
    """A flake that is a mere directory has no git refs, whatever is allowed."""
    nix = ScriptedNix(flake="path:/srv/flake")
    with serving(tmp_path, nix=nix, tags=("*", "rev:*")) as served:
        for tag in ("v1", "0" * 40):
            assert status(served, tag) == 404
        assert tags(served) == ["2.12", "latest"]
        assert nix.count("ls-remote") == 0


def test_list_while_the_flake_cannot_be_read(forge: Served) -> None:
    """Where the newest revision cannot be had, the git refs are listed all the same."""
    forge.nix.fail("metadata", "error: couldn't find remote ref refs/heads/master")
    assert tags(forge) == ["2.x", "main", "v1", "v2"]
    forge.set(tags=())
    answer = forge.get("/v2/packages/hello/tags/list")
    assert answer.status == 422 and "as in ?ref=main" in answer.error[1]
