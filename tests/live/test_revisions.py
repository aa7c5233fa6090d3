"""Fetching a flake at a git ref, with real nix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from forgereg.nix.flake import Command
from forgereg.nix.refs import at_revision
from forgereg.nix.tokens import Token, environment
from tests.daemon import NIX_CONFIG
from tests.forge import Repository, clean, repository, run, serving

TOKEN = Token("s3cret-token")


@frozen
class Forge:
    """
    A repository in each way that nix has of fetching it.

    :ivar flakes: by how it is fetched.
    :ivar revisions: full, by what leads to them.
    """

    flakes: dict[str, str]
    revisions: dict[str, str]
    env: dict[str, str]


def _history(made: Repository) -> dict[str, str]:
    revisions = {"refs/tags/v1": made.commit("1")}
    made.git("tag", "--annotate", "--message", "the first", "v1")
    revisions["refs/tags/light"] = made.commit("2")
    made.git("tag", "light")
    revisions[""] = made.commit("3")
    made.git("checkout", "--quiet", "-b", "side")
    revisions["refs/heads/side"] = made.commit("4")
    made.git("checkout", "--quiet", "--detach")
    revisions["refs/tags/off"] = made.commit("5")
    made.git("tag", "off")
    made.git("checkout", "--quiet", "main")
    revisions["refs/heads/main"] = made.commit("6")
    made.publish()
    return revisions


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """A repository with tags, branches, and a commit that is neither."""
    root = tmp_path_factory.mktemp("forge")
    made = repository(root / "forge")
    revisions = _history(made)
    with serving(root, f"x-access-token:{TOKEN.reveal()}") as url:
        flakes = {
            "bare": f"git+file://{made.bare}",
            "local": f"git+file://{made.root}",
            "private": f"git+{url}/forge.git",
        }
        yield Forge(flakes, revisions, {**clean(root), "NIX_CONFIG": NIX_CONFIG})


def lock(flake: str, env: dict[str, str]) -> tuple[str | None, str]:
    """Give the revision of a flake, if nix finds it, and all that nix said."""
    argv = Command("x86_64-linux").lock(flake)
    ended = run(argv, env)
    revision = json.loads(ended.stdout)["revision"] if ended.returncode == 0 else None
    return revision, ended.stdout + ended.stderr


@pytest.mark.parametrize("how", ["bare", "local", "private"])
@pytest.mark.parametrize(
    "ref",
    [
        "refs/tags/v1", "refs/tags/light", "refs/tags/off", "refs/heads/main",
        "refs/heads/side", "",
    ],
)  # fmt: skip
def test_a_flake_at_a_ref(forge: Forge, how: str, ref: str, tmp_path: Path) -> None:
    """Nix fetches the commit of a tag, of a branch, or one before a branch's last."""
    revision = forge.revisions[ref]
    flake = at_revision(forge.flakes[how], revision, ref or None)
    env = {**forge.env, "XDG_CACHE_HOME": str(tmp_path)}
    found, said = lock(flake, environment(flake, TOKEN, env))
    assert found == revision, said
    assert TOKEN.reveal() not in said


def test_a_private_flake_needs_its_token(forge: Forge, tmp_path: Path) -> None:
    """Without the token, a private flake is not fetched."""
    flake = forge.flakes["private"] + "?ref=main"
    found, said = lock(flake, {**forge.env, "XDG_CACHE_HOME": str(tmp_path)})
    assert found is None
    assert "could not read Username" in said
