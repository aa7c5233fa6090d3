"""
How `forgereg.archive.scan` refuses what is made to do harm: bombs, and ways out.

`refused` checks, each time, that nothing is left on the disk and no thread goes on.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from forgereg.archive import forward, members, seekable
from tests.archive.headers import header
from tests.archive.reading import (
    ARCHIVE,
    ENTRIES,
    FOUND,
    RECIPE,
    A,
    read,
    refused,
)
from tests.archives import (
    PACKS,
    Entry,
    Layer,
    Pack,
    Recipe,
    build_layered_image,
    config_in,
    gz,
    hard_link,
    image_of,
    json_entry,
    symlink,
    tar,
    zst,
)

packs = pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())


def test_json_may_be_as_large_as_clients_take_and_no_larger() -> None:
    """A config of four megabytes is served, and a larger one is refused."""
    config = ENTRIES[-2]
    assert config.data == config_in(ENTRIES)
    for size, taken in ((members.MAX_JSON, True), (members.MAX_JSON + 1, False)):
        large = Entry(config.name, config.data.ljust(size))
        archive = tar([*ENTRIES[:-2], large, ENTRIES[-1]])
        if taken:
            assert read(archive).images == [image_of(RECIPE, large.data)]
        else:
            assert "is not JSON, or too large" in refused(archive)


def test_too_much_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive full of JSON does not fill the memory."""
    stray = [json_entry(f"{n}.json", {"stray": "x" * 1000}) for n in range(20)]
    assert read(tar([*stray, *ENTRIES])) == FOUND
    monkeypatch.setattr(forward, "MAX_JSON_IN_ALL", 10_000)
    assert "too much JSON" in refused(gz(tar([*stray, *ENTRIES])))
    monkeypatch.setattr(seekable, "MAX_JSON_IN_ALL", 500)
    assert "too much JSON" in refused(tar(ENTRIES))


OUTSIDE = [
    f"{way}/forgereg-evil"
    for way in (
        "",
        "..",
        "/..",
        "a/../..",
        "../../../../../..",
        "../../../../../../tmp",
    )
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_member_with_a_name_that_leads_out_of_the_archive(name: str) -> None:
    """A member's name is only a name: nothing is ever written under it."""
    listed = json.loads(ENTRIES[-1].data)
    listed[0]["Layers"][0] = name
    entries = [
        Entry(name, A.blob),
        *ENTRIES[1:-1],
        json_entry("manifest.json", listed),
    ]
    assert read(tar(entries)) == FOUND
    assert not Path("/forgereg-evil").exists()
    assert not Path("/tmp/forgereg-evil").exists()


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../../../etc/passwd", *OUTSIDE]
)
def test_link_out_of_the_archive(target: str) -> None:
    """A link to a file of the registry's machine leads to nothing."""
    for link in (symlink(ENTRIES[0].name, target), hard_link(ENTRIES[0].name, target)):
        reason = refused(tar([link, *ENTRIES[1:]]))
        assert f"{ENTRIES[0].name!r} is not in the archive" in reason


def test_links_in_a_ring() -> None:
    """Links that lead to one another are given up."""
    name = ENTRIES[0].name
    rings: list[list[Entry]] = [
        [symlink(name, "layer.tar")],
        [hard_link(name, name)],
        [symlink(name, "../ring"), hard_link("ring", name)],
        [symlink(name, "../0"), *(symlink(f"{n}", f"{n + 1}") for n in range(50))],
    ]
    for ring in rings:
        assert "leads nowhere" in refused(tar([*ring, *ENTRIES[1:]]))


def test_manifest_json_that_is_a_link_to_itself() -> None:
    """A manifest.json that is a link to itself is refused."""
    loop = symlink("manifest.json", "manifest.json")
    assert "leads nowhere" in refused(tar([*ENTRIES, loop]))


@packs
@pytest.mark.parametrize("size", [100 * 10**9, 2**62, 2**80])
def test_member_that_claims_to_be_huge(size: int, pack: Pack) -> None:
    """A member that says it has 100 GB is refused before a byte of it is read."""
    archive = header("huge", tarfile.REGTYPE, size, b"x" * 1000) + ARCHIVE
    assert "more than the" in refused(pack(archive))
    if size < 2**40:
        assert "truncated" in refused(pack(archive), max_bytes=2**50)


@packs
@pytest.mark.parametrize("size", [100 * 10**9, 2**62, 2**80])
@pytest.mark.parametrize("type", [b"Z", tarfile.CONTTYPE])
def test_unknown_member_that_claims_to_be_huge(
    type: bytes, size: int, pack: Pack
) -> None:
    """A member of unknown type that says it has 100 GB is refused, too."""
    archive = header("huge", type, size, b"x" * 1000) + ARCHIVE
    refused(pack(archive))
    refused(pack(archive), max_bytes=2**50)


@pytest.mark.parametrize("pack", [gz, zst])
def test_archive_that_unpacks_to_zeros_without_end(pack: Pack) -> None:
    """A few kilobytes that unpack to a gigabyte are given up at the limit."""
    bomb = pack(bytes(2**22)) * 256
    assert "more than the 1048576 bytes" in refused(bomb, max_bytes=2**20)
    assert "more than the 1048576 bytes" in refused(pack(ARCHIVE) + bomb, 2**20)


@pytest.mark.parametrize("pack", [gz, zst])
def test_layer_that_unpacks_to_zeros_without_end(pack: Pack) -> None:
    """A layer that unpacks to more than an image may have is given up at the limit."""
    bomb = pack(bytes(2**22)) * 256
    recipe = Recipe((Layer(A.diff_id, bomb),))
    reason = refused(tar(build_layered_image(recipe)), max_bytes=2**22)
    assert "more than the 4194304 bytes" in reason


@pytest.mark.parametrize("pack", [gz, zst])
def test_many_layers_that_unpack_to_zeros(pack: Pack) -> None:
    """The limit holds for what all layers together unpack to, not for each alone."""
    bomb = pack(bytes(2**20))
    stray = [Entry(f"{n}", bomb) for n in range(20)]
    reason = refused(gz(tar([*stray, *ENTRIES])), max_bytes=2**22)
    assert "more than the 4194304 bytes" in reason
