"""Asking a forge for the refs of a private flake, with real git."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgereg.nix.refs import Refs, at_revision, ls_remote, parse_refs, remote_url
from forgereg.nix.tokens import Token, environment
from tests.forge import clean, repository, run, serving

TOKEN = Token("s3cret-token")


def ask(flake: str, env: dict[str, str]) -> tuple[Refs | None, str]:
    """Give the refs of a flake, if there is an answer, and what git said."""
    url = remote_url(flake)
    assert url is not None
    argv = ls_remote(url)
    assert TOKEN.reveal() not in " ".join(argv)
    ended = run(argv, env)
    refs = parse_refs(ended.stdout.encode()) if ended.returncode == 0 else None
    return refs, ended.stderr


def test_refs_of_a_private_flake(tmp_path: Path) -> None:
    """Whoever has the token sees the tags and branches; nobody else does."""
    made = repository(tmp_path / "forge")
    first = made.commit("first")
    made.git("tag", "--annotate", "--message", "the first", "v1")
    second = made.commit("second")
    made.git("tag", "v2")
    made.publish()
    with serving(tmp_path, f"x-access-token:{TOKEN.reveal()}") as url:
        flake = at_revision(f"git+{url}/forge.git?dir=.", first, "refs/tags/v1")
        env = clean(tmp_path)
        assert ask(flake, environment(flake, TOKEN, env))[0] == Refs(
            {"v1": first, "v2": second}, {"main": second}
        )
        elsewhere = environment("github:acme/forge", TOKEN, env)
        for other in (env, elsewhere, environment(flake, Token("wrong"), env)):
            refs, said = ask(flake, other)
            assert refs is None
            assert TOKEN.reveal() not in said


def test_nobody_is_asked_for_a_password(tmp_path: Path) -> None:
    """A forge that wants a password is not waited for: git ends at once."""
    program = tmp_path / "ask"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    program.chmod(0o755)
    env = {**clean(tmp_path), "SSH_ASKPASS": str(program), "DISPLAY": ":0"}
    with serving(tmp_path, "somebody:else") as url:
        refs, said = ask(f"git+{url}/forge.git", env)
    assert refs is None
    assert "could not read Username" in said
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("bare", [True, False])
def test_refs_of_a_local_flake(tmp_path: Path, bare: bool) -> None:
    """The tags and branches of a repository of this machine are seen."""
    made = repository(tmp_path / "my forge")
    revision = made.commit("first")
    made.git("tag", "v1")
    made.publish()
    place = str(made.bare if bare else made.root).replace(" ", "%20")
    refs, _ = ask(f"git+file://{place}?ref=main", clean(tmp_path))
    assert refs == Refs({"v1": revision}, {"main": revision})
