"""
How `forgereg.archive.scan` refuses what is cut, damaged, incomplete or no archive.

`refused` checks, each time, that nothing is left on the disk and no thread goes on.
"""

from __future__ import annotations

import bz2
import lzma
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.oci.errors import ArchiveInvalid
from tests.archive.reading import (
    ARCHIVE,
    ENTRIES,
    FOUND,
    RECIPE,
    A,
    read,
    read_or_refuse,
    refused,
)
from tests.archives import (
    PACKS,
    WRITERS,
    Entry,
    Layer,
    Pack,
    Recipe,
    build_layered_image,
    gz,
    layer,
    tar,
    xz,
    zst,
)

OTHER = layer("other").blob

packs = pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"#!/bin/sh\nexec tar c .\n", "an executable script: it would be run if"),
        (b"\x7fELF\x02\x01\x01" + bytes(5000), "an executable program"),
        (lzma.compress(ARCHIVE)[:-9], "damaged"),
        (bz2.compress(ARCHIVE), "not of a kind that is known"),
        (b'{"version":1,"image-config":{}}', "JSON: a docker-archive or an OCI"),
        (b"garbage" * 1000, "not of a kind that is known"),
        (bytes(10240), "not of a kind that is known"),
        (b"\x1f\x8b", "damaged"),
        (b"\x1f\x8b" + b"garbage" * 1000, "damaged"),
        (b"\x28\xb5\x2f\xfd", "damaged"),
        (b"\x28\xb5\x2f\xfd" + b"garbage" * 1000, "damaged"),
        (gz(b""), "not a tar archive"),
        (zst(b""), "not a tar archive"),
        (gz(b"garbage" * 1000), "not a tar archive"),
        (zst(b"short"), "not a tar archive"),
        (gz(gz(ARCHIVE)), "not a tar archive"),
        (gz(zst(ARCHIVE)), "not a tar archive"),
        (gz(bytes(10240)), "no manifest.json"),
        (tar([]) + ARCHIVE, "not of a kind that is known"),
        (A.blob, "no manifest.json: is it a root file system?"),
        (gz(A.blob), "no manifest.json: is it a root file system?"),
        (bytes(257) + b"ustar" + bytes(5000), "not a tar archive"),
    ],
    ids=range(23),
)
def test_file_that_is_no_archive(data: bytes, reason: str) -> None:
    """What is no docker-archive at all is refused by what it is."""
    with pytest.raises(ArchiveInvalid, match=reason):
        read(data)


@settings(max_examples=40)
@given(st.binary(max_size=2000), st.sampled_from(["raw", "ustar", *PACKS]))
def test_garbage(data: bytes, wrapped: str) -> None:
    """Garbage is refused, packed or not."""
    if wrapped in PACKS:
        data = PACKS[wrapped](data)
    elif wrapped == "ustar":
        data = data[:257].ljust(257) + b"ustar" + data
    refused(data)


@pytest.mark.parametrize("pack", [gz, zst, xz])
def test_packed_archive_that_was_cut(pack: Pack) -> None:
    """A packed archive that was cut anywhere is refused."""
    archive = pack(ARCHIVE)
    ends = {*range(30), *range(len(archive) - 20, len(archive))}
    for length in sorted(ends | {*range(0, len(archive), 17)}):
        refused(archive[:length])


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_plain_archive_that_was_cut(write: Any) -> None:
    """An archive that was cut is refused, unless nothing of an image is missing."""
    archive = tar(write(RECIPE))
    whole = read(archive)
    manifest = archive.index(b"manifest.json")
    needed = max(manifest + 512, archive.index(b'"rootfs"'))
    blocks = range(0, len(archive), 5 * 512)
    for length in (n + shift for n in blocks for shift in (-1, 0, 1, 700)):
        found = read_or_refuse(archive[: max(0, length)])
        assert found is None or found == whole
        assert found is None or length > needed


@settings(max_examples=40)
@given(st.integers(0, len(ARCHIVE) - 1), st.sampled_from(sorted(PACKS)))
def test_archive_that_was_cut_somewhere(length: int, pack: str) -> None:
    """An archive that was cut before it was packed is refused or is whole."""
    assert read_or_refuse(PACKS[pack](ARCHIVE[:length])) in (None, FOUND)


@settings(max_examples=40)
@given(st.data(), st.sampled_from([gz, zst, xz]))
def test_bits_that_flip_in_a_packed_archive(data: st.DataObject, pack: Pack) -> None:
    """The checksum tells a packed archive in which a bit is wrong."""
    archive = flipped(data, pack(ARCHIVE))
    assert read_or_refuse(archive) in (None, FOUND)


@settings(max_examples=40)
@given(st.data())
def test_bits_that_flip_in_a_plain_archive(data: st.DataObject) -> None:
    """No layer in which a bit is wrong is ever served."""
    found = read_or_refuse(flipped(data, ARCHIVE))
    if found is not None:
        (image,) = found.images
        assert image.layers == FOUND.images[0].layers


def flipped(data: st.DataObject, archive: bytes) -> bytes:
    changed = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(archive) - 1))] ^= 1 << data.draw(
            st.integers(0, 7)
        )
    return bytes(changed)


@pytest.mark.parametrize("position", [10, 600, 5000])
def test_bit_that_flips_in_a_layer(position: int) -> None:
    """A layer in which one bit is wrong is told by the config's diff_id."""
    changed = bytearray(ARCHIVE)
    changed[ARCHIVE.index(A.blob) + position] ^= 1
    assert "but the image's config says" in refused(bytes(changed))


@pytest.mark.parametrize("pack", [gz, zst, xz])
def test_garbage_after_a_packed_archive(pack: Pack) -> None:
    """Garbage after the compressed bytes means that something went wrong."""
    assert "damaged" in refused(pack(ARCHIVE) + b"garbage")


@pytest.mark.parametrize(
    "blob",
    [
        b"\x1f\x8b",
        b"\x1f\x8b garbage",
        gz(A.blob)[:-1],
        gz(A.blob)[:-9],
        gz(A.blob)[:20],
        gz(A.blob) + b"garbage",
        gz(A.blob)[:-8] + bytes(8),
        zst(A.blob)[:-1],
        zst(A.blob)[:20],
        zst(A.blob) + b"garbage",
        b"\x28\xb5\x2f\xfd garbage",
    ],
    ids=range(11),
)
def test_packed_layer_that_is_broken(blob: bytes) -> None:
    """A packed layer that is cut or damaged is refused."""
    recipe = Recipe((Layer(A.diff_id, blob),))
    for pack in PACKS.values():
        reason = refused(pack(tar(build_layered_image(recipe))))
        assert "damaged: it cannot be unpacked" in reason


@pytest.mark.parametrize(
    "blob",
    [gz(OTHER), zst(OTHER), OTHER, b"", lzma.compress(A.blob), gz(gz(A.blob))],
    ids=range(6),
)
def test_layer_that_is_not_what_the_config_says(blob: bytes) -> None:
    """A layer that unpacks to something else than the config says is refused."""
    recipe = Recipe((Layer(A.diff_id, blob),))
    reason = refused(gz(tar(build_layered_image(recipe))))
    assert "but the image's config says" in reason


@pytest.mark.parametrize("position", range(len(ENTRIES)))
@packs
def test_member_that_is_missing(position: int, pack: Pack) -> None:
    """An archive that lacks a layer, a config or its manifest.json is refused."""
    entries = [*ENTRIES[:position], *ENTRIES[position + 1 :]]
    reason = refused(pack(tar(entries)))
    if position == len(ENTRIES) - 1:
        assert "no manifest.json" in reason
    else:
        assert f"{ENTRIES[position].name!r} is not in the archive" in reason


@pytest.mark.parametrize("type", [tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("position", range(len(ENTRIES)))
def test_member_that_is_no_file(position: int, type: bytes) -> None:
    """A folder, pipe or device is no layer, no config and no manifest.json."""
    entries = [*ENTRIES]
    entries[position] = Entry(entries[position].name, type=type)
    refused(tar(entries))


def test_image_of_several_that_is_broken() -> None:
    """Where one image of an archive is broken, none of them is kept."""
    entries = build_layered_image(RECIPE, Recipe((layer("c"),)))
    broken = [e for e in entries if e.name != f"{layer('c').hex}/layer.tar"]
    refused(tar(broken))


def test_second_manifest_json_that_is_broken() -> None:
    """A second manifest.json counts, as it does when tar unpacks it."""
    again = Entry("./manifest.json", b"[]")
    assert "not a list of images" in refused(tar([*ENTRIES, again]))
    assert read(tar([again, *ENTRIES])) == FOUND


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"[", b"{}", b"[]", b"[1]", b"[" * 100_000, b'[{"Config":1}]'],
    ids=range(8),
)
def test_manifest_json_that_is_broken(data: bytes) -> None:
    """A manifest.json that is no list of images is refused, however it is broken."""
    assert "manifest.json" in refused(gz(tar([*ENTRIES, Entry("manifest.json", data)])))
