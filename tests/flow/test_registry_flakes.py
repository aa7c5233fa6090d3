"""Tests for `forgereg.flow.registry`: several flakes, each with its own names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from attrs import frozen

from forgereg.values import FlakeSetting
from tests.archives import Recipe, layer
from tests.client import Answer
from tests.conftest import Log
from tests.doubles import ScriptedNix
from tests.registry import ANY_FORM, TTL_SECONDS, Served, serving

SECRET = "s3cret-token"
PREFIXES = ("", "team", "team/a")


@frozen
class Company:
    """
    A registry of three flakes that have packages of the same names.

    :ivar nixes: by prefix; that of ``team`` is private.
    """

    served: Served
    nixes: Mapping[str, ScriptedNix]
    token_file: Path

    def get(self, name: str, reference: str = "latest") -> Answer:
        """Ask for a manifest."""
        return self.served.get(f"/v2/{name}/manifests/{reference}", ANY_FORM)

    def error(self, name: str, reference: str = "latest") -> str:
        """Give why there is no such manifest."""
        message: str = self.get(name, reference).error[1]
        return message


def named(prefix: str, name: str = "packages/hello") -> str:
    return f"{prefix}/{name}" if prefix else name


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    """Three flakes: github:acme/forge, that of team, which is private, and team/a's."""
    token_file = tmp_path / "token"
    token_file.write_text(f"{SECRET}\n")
    main = ScriptedNix()
    main.others = [
        ScriptedNix(flake="github:team/private"),
        ScriptedNix(flake="git+https://forge.example/a"),
    ]
    nixes = dict(zip(PREFIXES, [main, *main.others], strict=True))
    team, a = main.others
    flakes = (
        FlakeSetting("team", team.flake, ("v*",), str(token_file)),
        FlakeSetting("team/a", a.flake),
    )
    database = f"sqlite:///{tmp_path / 'r.sqlite'}"
    with serving(tmp_path, nix=main, database=database, flakes=flakes) as served:
        for nix in main.others:
            recipe = Recipe((layer(nix.flake),))
            hello = served.store.package("7", recipe, name=nix.flake[-7:])
            nix.packages["hello"] = hello
            nix.refs["refs/tags/v1"] = nix.revision
        yield Company(served, nixes, token_file)


def test_each_has_its_own(company: Company) -> None:
    """Names below a prefix are of its flake, that of the longest prefix first."""
    pulled = [company.served.digests(named(prefix)) for prefix in PREFIXES]
    assert len({digests[0] for digests in pulled}) == 3
    assert [nix.counts for nix in company.nixes.values()] == [(1, 1, 1)] * 3
    calls = [len(nix.argvs) for nix in company.nixes.values()]
    company.served.restart()
    assert [company.served.digests(named(prefix)) for prefix in PREFIXES] == pulled
    assert [len(nix.argvs) for nix in company.nixes.values()] == calls


def test_a_prefix_ends_at_a_slash(company: Company) -> None:
    """A name that merely begins like a prefix is not of its flake."""
    for name in ("teams/packages/hello", "team-a/packages/hello", "team"):
        assert company.get(name).status == 404
    assert company.nixes["team"].argvs == []


def test_digests_are_of_one_flake(company: Company) -> None:
    """What one flake's image holds is not found under another's name."""
    manifest, config, layer_digest = company.served.digests("team/packages/hello")
    for prefix in ("", "team/a"):
        name = named(prefix)
        assert company.get(name, manifest).status == 404
        for digest in (config, layer_digest):
            assert company.served.get(f"/v2/{name}/blobs/{digest}").status == 404


def test_tags_are_of_one_flake(company: Company) -> None:
    """What one flake lets be pulled is not allowed in another."""
    tags = [
        company.served.get(f"/v2/{named(prefix)}/tags/list").json["tags"]
        for prefix in PREFIXES
    ]
    assert tags == [["2.12", "latest"], ["7", "latest", "v1"], ["7", "latest"]]
    assert [company.get(named(p), "v1").status for p in PREFIXES] == [404, 200, 404]


def test_last_good_is_of_one_flake(company: Company) -> None:
    """An image of one flake does not stand in for another's."""
    company.served.pull("team/packages/hello")
    for nix in company.nixes.values():
        nix.fail("metadata", "error: unable to download")
    company.served.clock.advance(TTL_SECONDS)
    answers = [company.get(named(prefix)) for prefix in PREFIXES]
    assert [answer.status for answer in answers] == [422, 200, 422]


def test_errors_name_the_flake(company: Company) -> None:
    """Whoever gets no image reads which flake has none, and what to pull instead."""
    for prefix, nix in company.nixes.items():
        for name, says in {
            "packages/no": f"the flake {nix.flake} has no package 'no'",
            "applications/x": named(prefix, "applications/x/<image>"),
            "other/x": named(prefix, "packages/<package>"),
            "applications/hello/x": f"pull {named(prefix)}",
        }.items():
            assert says in company.error(named(prefix, name))


def test_unreachable_flakes_are_named(company: Company) -> None:
    """Whoever pulls from a flake that is away reads which one it is."""
    for prefix, nix in company.nixes.items():
        nix.fail("metadata", "error: unable to download")
        assert f"flake {nix.flake} failed" in company.error(named(prefix))


def test_catalogue(company: Company) -> None:
    """The catalogue has the images of every flake under their whole names."""
    listed = company.served.get("/v2/_catalog").json["repositories"]
    assert listed == [named(p) for p in ("", "team/a", "team")]


@pytest.mark.parametrize("verb", ["metadata", "eval"])
@pytest.mark.parametrize("broken", PREFIXES)
def test_one_is_broken(company: Company, log: Log, verb: str, broken: str) -> None:
    """A flake that cannot be listed hides no other, and is told in the log."""
    company.nixes[broken].fail(verb, "error: it is broken")
    listed = company.served.get("/v2/_catalog").json["repositories"]
    assert listed == [named(p) for p in ("", "team/a", "team") if p != broken]
    assert f"{company.nixes[broken].flake} is not listed" in log.text


def test_all_are_broken(company: Company) -> None:
    """Where nothing can be listed, the reason is told."""
    for nix in company.nixes.values():
        nix.fail("eval", "error: it is broken")
    answer = company.served.get("/v2/_catalog")
    assert answer.status == 422
    assert "it is broken" in answer.error[1]


def test_all_are_listed_at_once(company: Company) -> None:
    """A flake that does not answer keeps no other from being looked at."""
    for nix in company.nixes.values():
        nix.pause()
    client = company.served.begin("/v2/_catalog")
    assert [nix.count("metadata") for nix in company.nixes.values()] == [1, 1, 1]
    for nix in company.nixes.values():
        nix.finish()
    assert len(client.answer().json["repositories"]) == 3


def uses(nix: ScriptedNix, token: str) -> list[bool]:
    """Say of each child whether it was shown a token in its environment."""
    return [token in " ".join(env.values()) for env in nix.envs]


def test_a_token_is_for_its_flake_alone(company: Company) -> None:
    """Nix and git have the token of a private flake in their environment, for that one."""
    for prefix in PREFIXES:
        company.served.pull(named(prefix))
    company.served.pull("team/packages/hello", "v1")
    main, team, a = company.nixes.values()
    assert set(uses(team, SECRET)) == {True}
    assert set(uses(main, SECRET) + uses(a, SECRET)) == {False}
    assert team.count("ls-remote") == 1
    assert SECRET not in str(team.argvs)


def test_a_token_is_not_for_another_that_builds_the_same(company: Company) -> None:
    """What two flakes have in common comes back from either, with the right token."""
    main, team, _ = company.nixes.values()
    main.packages["hello"] = team.packages["hello"]
    for prefix in ("team", ""):
        layer_digest = company.served.digests(named(prefix))[-1]
    rmtree(company.served.state / "blobs")
    rmtree(company.served.store.root)
    company.served.blobs.prepare()
    blob = company.served.get(f"/v2/team/packages/hello/blobs/{layer_digest}")
    assert blob.status == 200
    assert (main.count("build"), team.count("build")) == (2, 1)
    assert set(uses(main, SECRET)) == {False}


def secrets_in_files(folder: Path, token: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if token.encode() in path.read_bytes()]


@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
def test_a_token_is_told_to_nobody(
    company: Company, log: Log, tmp_path: Path, verb: str
) -> None:
    """What nix says of a token reaches neither client nor log nor disk."""
    company.nixes["team"].fail(verb, f"error: access with {SECRET} denied")
    assert SECRET not in company.error("team/packages/hello")
    assert SECRET not in log.text
    company.served.stop()
    company.served.start()
    assert secrets_in_files(tmp_path, SECRET) == [company.token_file]


def test_a_token_that_changes(company: Company, log: Log) -> None:
    """A new token is used from the next command on, and both are kept secret."""
    nix = company.nixes["team"]
    company.served.pull("team/packages/hello")
    company.token_file.write_text("an0ther-token")
    company.served.get("/v2/_catalog")
    assert uses(nix, "an0ther-token") == [False] * 3 + [True]
    nix.push()
    nix.fail("metadata", f"error: neither {SECRET} nor an0ther-token")
    company.served.clock.advance(TTL_SECONDS)
    answer = company.get("team/packages/hello")
    for text in (log.text, str(answer["Warning"])):
        assert "neither *** nor ***" in text
        assert SECRET not in text and "an0ther" not in text


@pytest.mark.parametrize("content", [None, "", "two words", "#"])
def test_a_token_that_is_gone(company: Company, log: Log, content: Any) -> None:
    """When a token's file makes no sense any more, the token that is known goes on."""
    company.served.pull("team/packages/hello")
    if content is None:
        company.token_file.unlink()
    else:
        company.token_file.write_text(content)
    company.served.clock.advance(TTL_SECONDS)
    company.served.pull("team/packages/hello")
    assert uses(company.nixes["team"], SECRET) == [True] * 4
    assert str(company.token_file) in log.text
    assert SECRET not in log.text


def test_pushed(company: Company) -> None:
    """A push to one flake has that one looked at again, and no other."""
    for prefix in PREFIXES:
        company.served.pull(named(prefix))
    company.served.registry.flakes[-1].expire()
    for prefix in PREFIXES:
        company.served.pull(named(prefix))
    assert [n.count("metadata") for n in company.nixes.values()] == [2, 1, 1]
