"""Tests for `forgereg.flow.inspection`, with the records that it looks into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from forgereg.flow.inspected import Inspected
from forgereg.flow.inspection import Inspection
from forgereg.oci.errors import NameUnknown
from forgereg.oci.media import OCI_INDEX
from forgereg.oci.reference import Digest, Name, Tag, parse_digest
from forgereg.records.pulls import Pulls
from forgereg.records.revisions import Revisions
from tests.archives import Layout, Recipe, layer
from tests.deferreds import result_of
from tests.doubles import ScriptedNix
from tests.flow.packing import NAME, put_folder
from tests.registry import BEGIN, Served, serving

HELLO, LATEST = Name("packages/hello"), Tag("latest")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, tags=("v*",)) as served:
        yield served


def inspection_of(served: Served) -> Inspection:
    return Inspection(
        served.registry,
        served.records,
        Revisions(served.records.engine),
        Pulls(served.records.engine),
        lambda: BEGIN + served.clock.seconds(),
        served.threads,
    )


def look(
    served: Served,
    reference: Tag | Digest | None = None,
    platform: str = "",
    name: Name = HELLO,
) -> Inspected:
    found = inspection_of(served).image(name, reference, platform)
    return result_of(found)


def push(served: Served, text: str = "newer") -> None:
    """Give the flake another hello, and let it be looked at again."""
    recipe = Recipe((layer("lower"), layer(text)))
    served.nix.push()
    package = served.store.package("2.12", recipe, name=f"hello-{text}")
    served.nix.packages["hello"] = package
    served.clock.advance(3600.0)


def test_past_of_a_tag(served: Served) -> None:
    """What a tag has meant is told from the newest on, each compared with the next."""
    digests = [served.digests("packages/hello")]
    for text in ("second", "third"):
        push(served, text)
        digests.append(served.digests("packages/hello"))
    found = look(served)
    assert found.tag == LATEST
    assert [str(step.digest) for step in found.steps] == [
        each[0] for each in reversed(digests)
    ]
    for step, each in zip(found.steps, reversed(digests[1:]), strict=False):
        assert step.change is not None
        assert [str(part.digest) for part in step.change.added] == [each[-1]]
        assert step.change.kept == 1
    assert found.steps[-1].change is None
    assert [step.since for step in found.steps] == [
        BEGIN + 7200.0,
        BEGIN + 3600.0,
        BEGIN,
    ]


def test_older_image(served: Served) -> None:
    """An older image is told with what came before it, and not with what came after."""
    first = served.digests("packages/hello")[0]
    push(served, "second")
    second = parse_digest(served.digests("packages/hello")[0])
    push(served, "third")
    served.pull("packages/hello")
    found = look(served, second)
    assert found.tag is None and found.image is not None
    assert found.image.digest == second
    assert [str(step.digest) for step in found.steps] == [str(second), first]


def test_same_image_of_another_commit(served: Served) -> None:
    """A flake that moves without changing the image adds nothing to its past."""
    served.pull("packages/hello")
    served.nix.push()
    served.clock.advance(3600.0)
    served.pull("packages/hello")
    assert len(look(served).steps) == 1


def test_where_it_comes_from(served: Served) -> None:
    """The commit that an image was built from can be read at its forge."""
    served.pull("packages/hello")
    image = look(served).image
    assert image is not None and image.commit is not None
    assert image.commit.revision == served.nix.revision
    assert image.commit.url is not None
    assert image.commit.url.endswith(f"/commit/{served.nix.revision}")


def test_when_and_how_long(served: Served) -> None:
    """It is known when an image was built, how long nix took, and by which build."""
    served.nix.pause()
    served.begin("/v2/packages/hello/manifests/latest", [("Accept", "*/*")])
    served.nix.step()
    served.nix.step()
    served.clock.advance(7.5)
    served.nix.finish()
    image = look(served).image
    assert image is not None and image.making is not None
    assert image.making.build_seconds == 7.5
    assert image.making.seen_at == BEGIN + 7.5
    assert image.making.build == "id-1"


def test_git_tags(served: Served) -> None:
    """A git tag that was pulled is shown; it is past once git has it no more."""
    revision = served.nix.revision
    served.nix.refs = {"refs/tags/v1": revision, "refs/tags/v2": revision}
    served.pull("packages/hello", "v1")
    served.pull("packages/hello")
    tags = {line.tag.text: line for line in look(served).tags}
    assert [*tags] == ["latest", "2.12", "v1", "v2"]
    assert tags["v1"].digest is not None and not tags["v1"].is_past
    assert tags["v2"].digest is None
    del served.nix.refs["refs/tags/v1"]
    served.clock.advance(3600.0)
    served.get("/v2/packages/hello/tags/list")
    assert look(served, Tag("v1")).is_past


def test_thousands_of_git_tags(served: Served) -> None:
    """Of very many tags some are listed, and the one that is asked for is among them."""
    revision = served.nix.revision
    served.nix.refs = {f"refs/tags/v{n:04}": revision for n in range(3000)}
    served.pull("packages/hello")
    served.get("/v2/packages/hello/tags/list")
    tags = [line.tag.text for line in look(served, Tag("v2999")).tags]
    assert tags[:3] == ["latest", "2.12", "v0000"] and tags[-1] == "v2999"
    assert len(tags) < 300


def test_image_that_was_let_go_of(served: Served) -> None:
    """An image that a sweep let go of is told of as one that was never built."""
    served.pull("packages/hello")
    served.clock.advance(100 * 86400.0)
    served.set(sweep_days=30.0)
    result_of(served.assembly.parts.works.sweep(dry_run=False))
    found = look(served)
    assert found.image is None and found.steps == ()
    assert found.pulls.last is None


def test_platforms(tmp_path: Path) -> None:
    """Of an index each platform can be looked at, and compared with the same before."""
    with serving(tmp_path) as served:
        seen = []
        for text in ("old", "new"):
            layout = Layout()
            platforms = [
                layout.image(
                    Recipe((layer("base"), layer(f"{text} {machine}"))),
                    platform={"os": "linux", "architecture": machine},
                )
                for machine in ("amd64", "arm64")
            ]
            layout.heads.append(layout.index(*platforms))
            served.nix.push()
            put_folder(served, layout.entries(), text)
            served.clock.advance(3600.0)
            answer = served.get(f"/v2/{NAME}/manifests/latest", [("Accept", OCI_INDEX)])
            assert answer.status == 200
            seen.append([each["digest"] for each in platforms])
        name = Name(NAME)
        for label, number in (("linux/amd64", 0), ("linux/arm64", 1), ("x", 0)):
            found = look(served, None, label, name)
            assert found.image is not None
            assert str(found.image.manifest) == seen[-1][number]
            assert found.image.config is not None
            change = found.steps[0].change
            assert change is not None and change.kept == 1
            assert len(change.added) == len(change.removed) == 1


def test_nothing_is_known_yet(served: Served) -> None:
    """Before the flake was read once, nobody can say what it has."""
    with pytest.raises(NameUnknown, match="not known yet"):
        look(served)
    assert served.nix.argvs == []


def test_flake_that_changed_since_it_was_read(tmp_path: Path) -> None:
    """Until it is read anew, a flake that has changed is told of as it was."""
    database = f"sqlite:///{tmp_path}/db"
    with serving(tmp_path, database=database) as served:
        package = served.store.package("1", Recipe((layer("x"),)), name="other")
        served.nix.packages["other"] = attrs.evolve(
            package, meta={"description": "Old."}
        )
        served.get("/")
        served.pull("packages/hello")
        push(served)
        served.pull("packages/hello")
        counts = served.nix.counts
        for _ in range(2):
            found = look(served, name=Name("packages/other"))
            assert found.is_unread and found.description == "Old."
            assert not look(served).is_unread
            with pytest.raises(NameUnknown, match="changed since"):
                look(served, name=Name("packages/new"))
            served.restart()
        served.nix.packages["new"] = package
        assert served.nix.counts == counts
        served.get("/")
        assert not look(served, name=Name("packages/other")).is_unread


def test_tree_that_is_not_committed(tmp_path: Path) -> None:
    """What a tree with changes has is known as long as it is the same."""
    nix = ScriptedNix(flake="git+file:///src")
    with serving(tmp_path, nix=nix) as served:
        served.get("/")
        assert not look(served).is_unread
        served.nix.push()
        served.clock.advance(3600.0)
        served.get("/v2/packages/hello/tags/list")
        assert look(served).image is None


def test_names_that_are_near(served: Served) -> None:
    """A name with a slip in it leads to the one that was meant."""
    served.get("/v2/_catalog")
    near = inspection_of(served).near
    assert result_of(near("packages/helo")) == ["packages/hello"]
    assert result_of(near("x" * 10_000)) == ["packages/hello"]


def test_secrets(tmp_path: Path) -> None:
    """A password in the ref of a flake is in nothing that is told."""
    flake = "git+https://me:s3cret@forgejo.example/a/b"
    with serving(tmp_path, flake=flake) as served:
        served.nix.flake = flake
        served.pull("packages/hello")
        found = look(served)
        assert found.image is not None and found.image.commit is not None
        assert "s3cret" not in f"{found.flake} {found.image.commit} {found.steps}"
        page = served.get("/-/images/packages/hello")
        assert page.status == 200 and b"s3cret" not in page.body
