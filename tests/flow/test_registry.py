"""Tests for `forgereg.flow.registry`: what is pulled, and what is done once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from forgereg.oci.errors import ManifestUnknown
from forgereg.oci.media import DOCKER_MANIFEST, MANIFESTS, OCI_MANIFEST
from forgereg.oci.reference import Name, Tag, parse_digest
from tests.archives import Recipe, layer, zst
from tests.client import Answer, Connection
from tests.deferreds import result_of
from tests.doubles import Package
from tests.registry import ANY_FORM, HELLO, Served, digest_of

LATEST = "/v2/packages/hello/manifests/latest"
HELLO_NAME = Name("packages/hello")


def answers(connections: Sequence[Connection]) -> list[Answer]:
    return [connection.answer() for connection in connections]


def test_a_pull(served: Served) -> None:
    """A pull builds the image, and gives its config and its layers as they are."""
    manifest = served.pull("packages/hello")
    wanted = [digest_of(one.blob) for one in HELLO.layers]
    assert [one["digest"] for one in manifest["layers"]] == wanted
    assert served.nix.counts == (1, 1, 1)


def test_the_second_pull_needs_no_nix(served: Served) -> None:
    """An image that was pulled before is served without nix and without reading."""
    first = served.pull("packages/hello")
    calls = len(served.nix.argvs)
    assert served.pull("packages/hello") == first
    assert len(served.nix.argvs) == calls
    assert served.readers.calls == ["_scan"]


def test_two_tags_share_one_read(served: Served) -> None:
    """The version and latest are one image, built and read once."""
    assert served.pull("packages/hello", "2.12") == served.pull("packages/hello")
    assert served.nix.count("build") == 1
    assert served.readers.calls == ["_scan"]


@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
def test_two_clients_at_once(served: Served, verb: str) -> None:
    """Two clients who pull the same at once wait for one nix."""
    served.nix.pause()
    first = served.begin(LATEST, ANY_FORM)
    while not served.nix.count(verb):
        served.nix.step()
    second = served.begin(LATEST, ANY_FORM)
    assert first.silent and second.silent
    served.nix.resume()
    bodies = {answer.body for answer in answers([first, second])}
    assert len(bodies) == 1
    assert served.nix.counts == (1, 1, 1)


def test_two_tags_at_once(served: Served) -> None:
    """Two clients who pull two tags of one image wait for one build and one read."""
    served.nix.pause()
    served.readers.pause()
    clients = [
        served.begin(LATEST, ANY_FORM),
        served.begin("/v2/packages/hello/manifests/2.12", ANY_FORM),
    ]
    served.nix.finish()
    assert served.readers.calls == ["_scan"]
    served.readers.resume()
    assert len({answer.body for answer in answers(clients)}) == 1
    assert served.nix.count("build") == 1


def test_two_names_of_one_build(served: Served) -> None:
    """Two packages that are the same build are built and read once."""
    served.nix.packages["hullo"] = served.nix.packages["hello"]
    served.nix.pause()
    served.readers.pause()
    clients = [
        served.begin(LATEST, ANY_FORM),
        served.begin("/v2/packages/hullo/manifests/latest", ANY_FORM),
    ]
    served.nix.finish()
    served.readers.resume()
    assert len({answer.body for answer in answers(clients)}) == 1
    assert served.nix.count("build") == 1
    assert served.readers.calls == ["_scan"]
    served.pull("packages/hullo")


def test_others_do_not_wait(served: Served) -> None:
    """While one image is built, those that were pulled before are served."""
    served.pull("packages/hello")
    recipe = Recipe((layer("slow"),))
    served.nix.packages["slow"] = served.store.package("1", recipe, name="slow")
    served.nix.pause()
    slow = served.begin("/v2/packages/slow/manifests/latest", ANY_FORM)
    served.pull("packages/hello")
    assert slow.silent
    served.nix.finish()
    assert slow.answer().status == 200


@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
def test_a_client_who_leaves(served: Served, verb: str) -> None:
    """A build goes on when its client hangs up, and the next pull finds it."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    while not served.nix.count(verb):
        served.nix.step()
    client.hang_up()
    served.nix.resume()
    calls = len(served.nix.argvs)
    served.pull("packages/hello")
    assert len(served.nix.argvs) == calls == 3
    assert served.readers.calls == ["_scan"]


def test_a_client_who_leaves_during_the_read(served: Served) -> None:
    """Reading goes on when its client hangs up, and the next pull finds it."""
    served.readers.pause()
    served.begin(LATEST, ANY_FORM).hang_up()
    served.readers.resume()
    served.pull("packages/hello")
    assert served.readers.calls == ["_scan"]


def test_one_leaves_and_the_other_gets_it(served: Served) -> None:
    """A client who hangs up takes nothing from another one who waits."""
    served.nix.pause()
    first, second = served.begin(LATEST, ANY_FORM), served.begin(LATEST, ANY_FORM)
    first.hang_up()
    served.nix.resume()
    assert second.answer().status == 200
    assert first.silent


@pytest.mark.parametrize("verb", ["metadata", "eval", "build"])
def test_failure_is_told_to_all_and_forgotten(served: Served, verb: str) -> None:
    """All who wait read why it failed; who asks again has it tried again."""
    served.nix.pause()
    served.nix.fail(verb, "error: it is broken")
    clients = [served.begin(LATEST, ANY_FORM) for _ in range(3)]
    served.nix.resume()
    for answer in answers(clients):
        assert answer.status == 422
        assert "it is broken" in answer.error[1]
    served.nix.mend()
    served.clock.advance(60.0)
    served.pull("packages/hello")
    assert served.nix.count(verb) == 2


def test_a_failed_build_is_not_tried_twice_in_a_row(served: Served) -> None:
    """Who asks with HEAD and then with GET, as docker does, has one build fail."""
    served.nix.fail("build", "error: it is broken")
    for _ in range(2):
        assert "it is broken" in served.get(LATEST, ANY_FORM).error[1]
    assert served.nix.count("build") == 1


def test_many_names_at_once(served: Served) -> None:
    """However many names are asked for at once, few evaluations run side by side."""
    served.pull("packages/hello")
    served.nix.pause()
    before = len(served.nix.argvs)
    clients = [
        served.begin(f"/v2/packages/n{n}/manifests/latest", ANY_FORM) for n in range(50)
    ]
    assert len(served.nix.argvs) - before == 2
    served.nix.resume()
    assert {answer.status for answer in answers(clients)} == {404}


def test_one_time_limit_for_all_of_nix(served: Served) -> None:
    """What the evaluation took, of its own time, the build does not have any more."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    for seconds in (100.0, 900.0, 1.0):
        served.clock.advance(seconds)
        served.nix.step()
    assert client.answer().status == 200
    assert served.nix.limits == [3600.0, 600.0, 2700.0]


def test_preferred_form_of_the_client(running: Served) -> None:
    """Of the forms that the client accepts, it gets the one that it likes best."""
    manifest = running.registry.manifest
    for accepted in (MANIFESTS, MANIFESTS[::-1], MANIFESTS[:1], MANIFESTS[1:]):
        found = result_of(manifest(HELLO_NAME, Tag("latest"), accepted))
        assert found.manifest.media_type == accepted[0]


def test_form_that_the_client_does_not_read(served: Served) -> None:
    """A client that reads no form of an image is told which there is."""
    zstd = Recipe((layer("zstd", zst),))
    served.nix.packages["zstd"] = served.store.package(None, zstd, name="zstd")
    manifest = served.registry.manifest
    with pytest.raises(ManifestUnknown) as unknown:
        result_of(manifest(Name("packages/zstd"), Tag("latest"), [DOCKER_MANIFEST]))
    assert f"can only be written as {OCI_MANIFEST}," in str(unknown.value)


def test_client_that_accepts_nothing(running: Served) -> None:
    """A client that accepts no manifest is told so before anything is built."""
    with pytest.raises(ManifestUnknown, match="accepts none of these"):
        result_of(running.registry.manifest(HELLO_NAME, Tag("latest"), []))
    assert running.nix.argvs == []


def test_every_form_is_found_by_its_digest(running: Served) -> None:
    """A digest is answered in the form that it is of, whatever is accepted."""
    manifest = running.registry.manifest
    for form in MANIFESTS:
        tagged = result_of(manifest(HELLO_NAME, Tag("latest"), [form]))
        other = [each for each in MANIFESTS if each != form]
        found = result_of(manifest(HELLO_NAME, tagged.manifest.digest, other))
        assert found.manifest == tagged.manifest


@pytest.mark.parametrize(
    "tag",
    [
        f"sha256-{'0' * 64}",
        f"sha256-{'0' * 64}.sig",
        f"sha256-{'0' * 64}.att",
        f"sha256-{'0' * 64}.sbom",
        f"sha512-{'a' * 128}",
    ],
)
def test_signatures_need_no_nix(running: Served, tag: str) -> None:
    """Whoever looks for signatures is told at once that there are none."""
    with pytest.raises(ManifestUnknown, match="no signatures"):
        result_of(running.registry.manifest(HELLO_NAME, Tag(tag), MANIFESTS))
    assert running.nix.argvs == []


def test_unknown_digests_need_no_nix(running: Served) -> None:
    """A digest that was never answered is unknown, and nothing is built for it."""
    digest = parse_digest(digest_of(b"never"))
    with pytest.raises(ManifestUnknown, match="no manifest"):
        result_of(running.registry.manifest(HELLO_NAME, digest, MANIFESTS))
    assert running.nix.argvs == []


def test_digests_are_of_one_name(served: Served) -> None:
    """What one repository holds is not found under another's name."""
    digest = parse_digest(served.digests("packages/hello")[0])
    with pytest.raises(ManifestUnknown):
        result_of(served.registry.manifest(Name("packages/x"), digest, MANIFESTS))


def test_unknown_tag(served: Served) -> None:
    """Whoever asks for a tag that is not there reads which tags are."""
    with pytest.raises(ManifestUnknown, match="no tag '3.0'; it has: 2.12, latest"):
        result_of(served.registry.manifest(HELLO_NAME, Tag("3.0"), MANIFESTS))
    assert served.nix.count("build") == 0


@pytest.mark.parametrize(
    ("version", "tags"),
    [
        ("2.12", ["2.12", "latest"]),
        ("latest", ["latest"]),
        (None, ["latest"]),
        ("2.12 beta", ["latest"]),
        ("2.12+git", ["latest"]),
        ("x" * 129, ["latest"]),
        ("unstable-2025-01-01", ["latest", "unstable-2025-01-01"]),
    ],
)
def test_tags(served: Served, version: str | None, tags: list[str]) -> None:
    """An image has the tag latest, and its version where that can be a tag."""
    outputs = served.nix.packages["hello"].outputs
    served.nix.packages["hello"] = Package(version, outputs)
    assert result_of(served.registry.tags(HELLO_NAME)) == tags
    assert served.nix.count("build") == 0
    for tag in tags:
        served.pull("packages/hello", tag)


@pytest.mark.parametrize("cache_size", [1, 2])
def test_small_cache(served: Served, cache_size: int) -> None:
    """Images that have no room in memory are served from the records, without nix."""
    served.set(cache_size=cache_size)
    served.restart()
    names = [f"p{n}" for n in range(4)]
    for name in names:
        recipe = Recipe((layer(name),))
        served.nix.packages[name] = served.store.package("1", recipe, name=name)
        served.pull(f"packages/{name}")
    calls = len(served.nix.argvs)
    for name in names:
        served.pull(f"packages/{name}", served.digests(f"packages/{name}", "1")[0])
    assert len(served.nix.argvs) == calls
