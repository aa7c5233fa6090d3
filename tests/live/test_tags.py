"""Pulling git tags, branches and revisions of a flake, with real nix, git and clients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from forgereg.oci.media import MANIFESTS
from tests import daemon
from tests.daemon import ROOT, Answer, Daemon
from tests.forge import Repository, repository
from tests.live.clients import Podman, Skopeo

GREETING = "Hello, world!"


@define
class Forge:
    """
    A registry of a bare git repository.

    :ivar revisions: by what the image of each says.
    """

    repository: Repository
    registry: Daemon
    revisions: dict[str, str]

    def manifest(self, tag: str) -> Answer:
        """Ask for a manifest."""
        path = f"/v2/packages/hello/manifests/{tag}"
        return self.registry.ask(path, Accept=", ".join(MANIFESTS))

    def push(self, old: str, new: str) -> None:
        """Have the image say something else, and push that."""
        _write(self.repository, old, new)
        self.revisions[new] = self.repository.commit_all(new)
        self.repository.push()


def _write(made: Repository, old: str, new: str) -> None:
    flake = made.root / "flake.nix"
    text = flake.read_text()
    assert old in text
    flake.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Forge]:
    """A registry of a repository whose tag ``v1`` is older than its branch ``main``."""
    tmp = tmp_path_factory.mktemp("tags")
    made = repository(tmp / "forge")
    daemon.flake(ROOT / "examples" / "forge", tmp / "example")
    shutil.copytree(tmp / "example", made.root, dirs_exist_ok=True)
    _write(made, GREETING, "the first")
    revisions = {"the first": made.commit_all("the first")}
    made.git("tag", "--annotate", "--message", "the first", "v1")
    _write(made, "the first", "the second")
    revisions["the second"] = made.commit_all("the second")
    made.git("branch", "secret")
    made.publish()
    options = ("--store", str(store), "--tag-ttl", "0")
    patterns = ("--tags", "v* branch:main rev:*")
    flake = f"git+file://{made.bare}?ref=main"
    with daemon.registry(tmp, flake, *options, *patterns) as running:
        assert running.ask("/v2/_catalog").status == 200
        yield Forge(made, running, revisions)


def test_podman_runs_what_was_tagged(forge: Forge, podman: Podman) -> None:
    """A person runs an image as it was when it was tagged, or at a commit."""
    revision = forge.revisions["the first"]
    for tag, says in {"v1": "the first", revision: "the first"}.items():
        outcome = podman.run(forge.registry.ref(f"packages/hello:{tag}"))
        assert outcome.status == 0, outcome.text
        assert says in outcome.out


def test_what_can_be_pulled(forge: Forge, skopeo: Skopeo) -> None:
    """A person sees which tags there are, and no others can be pulled."""
    inspected = skopeo.inspect(forge.registry.ref("packages/hello:main"))
    assert inspected.status == 0, inspected.text
    tags = forge.registry.ask("/v2/packages/hello/tags/list").json["tags"]
    assert {"latest", "main", "v1"} <= set(tags)
    assert "secret" not in tags
    assert skopeo.inspect(forge.registry.ref("packages/hello:secret")).status != 0


def test_a_branch_moves(forge: Forge, podman: Podman) -> None:
    """Whoever pulls a branch after a push runs what was pushed; the tag stays."""
    before = [forge.manifest(tag).body for tag in ("main", "v1")]
    forge.push("the second", "the third")
    reference = forge.registry.ref("packages/hello:main")
    assert podman.pull(reference).status == 0
    outcome = podman.run(reference)
    assert outcome.status == 0, outcome.text
    assert "the third" in outcome.out
    after = [forge.manifest(tag).body for tag in ("main", "v1")]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_commit_that_is_broken(forge: Forge) -> None:
    """Whoever pulls a broken commit reads what is wrong; other tags can be pulled."""
    _write(forge.repository, "{ self }", "{ self ")
    revision = forge.repository.commit_all("broken")
    forge.repository.push()
    for tag in ("latest", "main", revision):
        refused = forge.manifest(tag)
        assert refused.status == 422, (tag, refused.headers)
        assert "syntax error" in refused.message
    assert forge.manifest("v1").status == 200
    _write(forge.repository, "{ self ", "{ self }")
    forge.repository.commit_all("mended")
    forge.repository.push()
    assert forge.manifest("main").status == 200


def test_the_forge_is_away(forge: Forge, skopeo: Skopeo) -> None:
    """While the repository is away, its tags can be pulled, and that is said."""
    names = ("main", "v1")
    before = [forge.manifest(tag) for tag in names]
    assert "warning" not in before[0].headers
    assert "warning" not in before[1].headers
    away = forge.repository.bare.rename(forge.repository.bare.with_suffix(".away"))
    try:
        for tag, answer in zip(names, before, strict=True):
            stale = forge.manifest(tag)
            assert (stale.status, stale.body) == (200, answer.body)
            assert stale.headers["warning"].startswith("299 forge-registry ")
            inspected = skopeo.inspect(forge.registry.ref(f"packages/hello:{tag}"))
            assert inspected.status == 0, inspected.text
        revision = forge.revisions["the first"]
        assert forge.manifest(revision).status == 200
    finally:
        away.rename(forge.repository.bare)
    assert "going on with the git refs" in forge.registry.logged()
