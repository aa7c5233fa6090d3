"""Which images `forgereg.archive.scan` finds, and which blobs it keeps."""

from __future__ import annotations

import gzip
import itertools
import json
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.oci.descriptor import Compression
from forgereg.oci.errors import ArchiveInvalid, ShuttingDown
from forgereg.oci.manifest import write_manifests
from tests.archive.reading import read, read_path, refused
from tests.archives import (
    PACKS,
    WRITERS,
    Entry,
    Layer,
    Pack,
    Recipe,
    build_image,
    build_image_from_pulled,
    build_layered_image,
    config_in,
    docker_save_20,
    docker_save_26,
    folder,
    gz,
    image_of,
    json_entry,
    layer,
    layer_of,
    plain,
    podman_save,
    sha256_hex,
    symlink,
    tar,
    zst,
)

A, B, EMPTY = layer("a"), layer("b"), layer_of(tar([]))
HELLO = Recipe((A, EMPTY, B, A), ("hello:2.12", "hello:latest"))
OTHER = Recipe((A, layer("c", gz), layer("d", zst)), None, {"variant": "v8"})
SMALL = Recipe((A,))

writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
packs = pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())


@writers
@packs
def test_images_are_found_in_every_layout(
    write: Callable[..., list[Entry]], pack: Pack
) -> None:
    """Images of every tool are found, with tags, configs, layers and their packing."""
    entries = write(HELLO, OTHER)
    found = read(pack(tar(entries)))
    assert [
        tuple(tag.removeprefix("docker.io/library/") for tag in each.tags)
        for each in found.packed
    ] == [HELLO.tags, ()]
    configs = [config_in(entries, 0), config_in(entries, 1)]
    assert found.images == [image_of(HELLO, configs[0]), image_of(OTHER, configs[1])]
    blobs = [*configs, *(each.blob for each in (*HELLO.layers, *OTHER.layers))]
    assert found.blobs == {sha256_hex(blob): blob for blob in blobs}


@pytest.mark.parametrize(
    "format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
)
def test_archive_may_be_of_any_tar_format(format: int) -> None:
    """The archive may be of GNU's tar format, of POSIX's newer or of its older one."""
    entries = build_image(HELLO)
    assert read(tar(entries, format)).images == [image_of(HELLO, config_in(entries))]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_may_be_long(format: int) -> None:
    """Members and links may have names of thousands of characters, in any script."""
    entries = build_layered_image(SMALL)
    long, longer = f"{'n' * 2000}/läyer.tar", "ö" * 2000
    listed = json.loads(entries[-1].data)
    listed[0]["Layers"] = [long]
    changed = [
        symlink(long, f"../{longer}"),
        *entries[1:-1],
        json_entry("manifest.json", listed),
        Entry(longer, A.blob),
    ]
    found = read(tar(changed, format))
    assert found.images == [image_of(SMALL, config_in(entries))]


def test_extended_headers_are_understood() -> None:
    """Extended headers, and members that are not files, do not get in the way."""
    entries = [
        folder("odd"),
        Entry("odd/pipe", type=tarfile.FIFOTYPE),
        Entry("odd/device", type=tarfile.CHRTYPE),
        Entry("odd/unknown", b"x" * 700, type=b"Z"),
        Entry("odd/old", b"x", type=tarfile.AREGTYPE),
        Entry("odd/xattr", b"x", pax={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
        *build_layered_image(SMALL),
    ]
    layer_entry = entries[6]
    entries[6] = Entry(
        "short.tar",
        layer_entry.data,
        pax={"path": layer_entry.name, "size": str(len(layer_entry.data))},
    )
    assert read(tar(entries)).images == [image_of(SMALL, config_in(entries))]


def test_digests_are_computed_not_believed() -> None:
    """A layer's digest is that of its bytes, whatever the archive calls its file."""
    names = [e.name for e in build_image(HELLO) if e.name.endswith("/layer.tar")]
    found = read(tar(build_image(HELLO)))
    assert all(
        each.digest.encoded == sha256_hex(found.blobs[each.digest.encoded])
        for each in found.images[0].layers
    )
    assert not any(name.split("/")[1] in found.blobs for name in names)


@pytest.mark.parametrize("pack", [plain, gz, zst])
def test_layer_is_served_as_it_lies_in_the_archive(pack: Pack) -> None:
    """A packed layer stays packed, and is called what it is."""
    recipe = Recipe((layer("a", pack),))
    found = read(tar(docker_save_26(recipe)))
    (served,) = found.images[0].layers
    assert found.blobs[served.digest.encoded] == pack(tar([Entry("a.txt", b"a")]))
    (oci, *docker) = write_manifests(found.images[0])
    media_type = json.loads(oci.body)["layers"][0]["mediaType"]
    ending = {"plain": "tar", "gz": "tar+gzip", "zst": "tar+zstd"}[pack.__name__]
    assert media_type == f"application/vnd.oci.image.layer.v1.{ending}"
    assert len(docker) == (0 if pack is zst else 1)


def test_config_is_served_to_the_byte() -> None:
    """The config keeps its spaces, line ends, order of keys and odd extra keys."""
    recipe = Recipe((A,), more={"preferLocalBuild": True, "variant": "", "é": "\u2028"})
    entries = build_image(recipe)
    config = config_in(entries)
    assert config.endswith(b"\n}\n")
    found = read(gz(tar(entries)))
    described = found.images[0].config
    assert found.blobs[described.digest.encoded] == config
    assert (described.digest.encoded, described.size) == (
        sha256_hex(config),
        len(config),
    )
    assert described.compression is Compression.NONE


def test_equal_archives_give_equal_images() -> None:
    """How an archive is packed or laid out does not change the layers."""
    found = [
        read(pack(tar(write(HELLO)))).images[0].layers
        for write in WRITERS.values()
        for pack in PACKS.values()
    ]
    assert all(each == found[0] for each in found)


def test_only_blobs_of_images_are_kept() -> None:
    """What is in the archive but in no image is not kept."""
    stray = [Entry("stray.tar", layer("stray").blob), json_entry("stray.json", {})]
    entries = [*stray, *docker_save_20(SMALL), *stray]
    found = read(tar(entries))
    assert set(found.blobs) == {A.hex, sha256_hex(config_in(entries))}


@settings(max_examples=40)
@given(
    st.sampled_from(
        [build_image_from_pulled, build_layered_image, docker_save_20, podman_save]
    ).flatmap(lambda write: st.permutations(write(HELLO, OTHER)))
)
def test_members_may_come_in_any_order(entries: list[Entry]) -> None:
    """Links may stand before their targets, and manifest.json before all."""
    assert read(tar(entries)).images == [
        image_of(HELLO, config_in(entries, 0)),
        image_of(OTHER, config_in(entries, 1)),
    ]


def test_last_of_two_members_of_a_name_counts() -> None:
    """A member that is there twice is what unpacking would leave: the second one."""
    first, second = build_layered_image(SMALL), build_layered_image(Recipe((B,)))
    found = read(tar([*first, *second]))
    assert found.images == [image_of(Recipe((B,)), config_in(second))]
    assert A.hex not in found.blobs


def test_image_without_layers_is_found() -> None:
    """An image from scratch has a config and no layers."""
    recipe = Recipe(())
    entries = build_layered_image(recipe)
    assert read(tar(entries)).images == [image_of(recipe, config_in(entries))]


def test_layer_may_have_no_bytes() -> None:
    """A layer of no bytes at all is a blob, too."""
    recipe = Recipe((layer_of(b""), A))
    entries = build_layered_image(recipe)
    found = read(gz(tar(entries)))
    assert found.images == [image_of(recipe, config_in(entries))]
    assert found.blobs[sha256_hex(b"")] == b""


def test_layer_larger_than_any_buffer() -> None:
    """A layer of several megabytes comes out whole, packed or not."""
    data = tar([Entry("random", bytes(range(256)) * 12_345)])
    recipe = Recipe((layer_of(data), layer_of(data, gz), layer_of(data, zst)))
    entries = build_layered_image(recipe)
    for pack in PACKS.values():
        assert read(pack(tar(entries))).images == [image_of(recipe, config_in(entries))]


def test_archive_without_end_marker() -> None:
    """An archive that ends after its last member, without an end marker, is whole."""
    entries = build_layered_image(SMALL)
    whole = tar(entries).rstrip(b"\0")
    whole += bytes(-len(whole) % tarfile.BLOCKSIZE)
    assert read(whole).images == [image_of(SMALL, config_in(entries))]


def test_what_follows_the_end_marker_is_ignored() -> None:
    """Tar ends at its end marker, and what follows does no harm, as with any tar."""
    entries = build_layered_image(SMALL)
    for rest in (b"garbage", bytes(10**6), tar([Entry("manifest.json", b"[]")])):
        found = read(tar(entries) + rest)
        assert found.images == [image_of(SMALL, config_in(entries))]


_SKIPPED = b"\x50\x2a\x4d\x18" + struct.pack("<I", 5) + b"hello"


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
        lambda data: gzip.compress(data) + bytes(512),
        lambda data: gzip.compress(b"") + gzip.compress(data),
        lambda data: gzip.compress(data, 0),
        lambda data: zstd.compress(data[:700]) + zstd.compress(data[700:]),
        lambda data: zstd.compress(data) + _SKIPPED,
    ],
    ids=["members", "padded", "empty-member", "stored", "frames", "chunked"],
)
def test_compression_of_unusual_build(pack: Pack) -> None:
    """Several members or frames in a row, padding and skipped frames are understood."""
    unpacked = tar([Entry("a.txt", b"a" * 1000)])
    blob = pack(unpacked)
    kind = Compression.GZIP if blob[:2] == b"\x1f\x8b" else Compression.ZSTD
    recipe = Recipe((Layer(sha256_hex(unpacked), blob, kind),))
    entries = build_layered_image(recipe)
    assert read(pack(tar(entries))).images == [image_of(recipe, config_in(entries))]


def test_gzip_header_may_have_a_name_and_a_comment() -> None:
    """A gzip header may have a name, a comment, an extra field and a time."""
    entries = build_layered_image(SMALL)
    packed = gz(tar(entries))
    fields = struct.pack("<H", 4) + b"FORG" + b"name.tar\0" + b"comment\0"
    header = b"\x1f\x8b\x08\x1c" + struct.pack("<I", 1) + b"\0\xff" + fields
    found = read(header + packed[10:])
    assert found.images == [image_of(SMALL, config_in(entries))]


def test_archive_may_be_behind_a_link(tmp_path: Path) -> None:
    """The archive may be a link into the Nix store."""
    (tmp_path / "real").write_bytes(tar(build_layered_image(SMALL)))
    (tmp_path / "link").symlink_to("real")
    assert len(read_path(tmp_path / "link").images) == 1


def test_archive_that_is_gone(tmp_path: Path) -> None:
    """An archive that was garbage-collected is told from one that is broken."""
    (tmp_path / "dangling").symlink_to("gone")
    for name in ("gone", "dangling"):
        with pytest.raises(FileNotFoundError):
            read_path(tmp_path / name)


def test_directory_is_no_archive(tmp_path: Path) -> None:
    """Whoever builds a directory is told that it is one."""
    with pytest.raises(ArchiveInvalid, match="the image is an empty directory"):
        read_path(tmp_path)


@pytest.mark.parametrize("pack", [plain, gz, zst])
def test_archive_may_be_as_large_as_is_allowed_and_no_larger(pack: Pack) -> None:
    """The limit is on what the archive unpacks to, to the byte."""
    archive = tar(build_layered_image(HELLO))
    assert len(read(pack(archive), max_bytes=len(archive)).images) == 1
    reason = refused(pack(archive), max_bytes=len(archive) - 1)
    assert f"more than the {len(archive) - 1} bytes that are allowed" in reason


def test_large_member_does_not_fill_the_memory() -> None:
    """An archive of any size is read with the same few megabytes of memory."""
    data = bytes(32 * 2**20)
    stray = [Entry("large", data), Entry("packed", gz(data))]
    archive = gz(tar([*stray, *build_layered_image(SMALL)]))
    del data, stray
    tracemalloc.start()
    try:
        read(archive)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_twenty_thousand_members_are_read_in_seconds() -> None:
    """An archive of 20,000 members is read, and only what is wanted is kept."""
    few = [folder("some"), Entry("some/file", b"x"), symlink("some/link", "file")]
    members = tar([*few, folder("other")])[: 5 * tarfile.BLOCKSIZE]
    entries = build_layered_image(SMALL)
    found = read(gz(members * 5_000 + tar(entries)))
    assert found.images == [image_of(SMALL, config_in(entries))]
    assert len(found.blobs) == 2


def test_giving_up_at_any_point_leaves_nothing() -> None:
    """A registry that is stopped while it reads an archive leaves nothing half done."""
    archive = gz(tar(docker_save_20(Recipe((A, layer("b", gz))))))
    for asked in itertools.count():
        answers = iter([*[False] * asked, True])
        try:
            read(archive, stopping=lambda: next(answers, False))  # noqa: B023
        except ShuttingDown as e:
            assert "shutting down" in str(e)
        else:
            break
    assert asked > 10
    with pytest.raises(ShuttingDown):
        read(archive, stopping=lambda: True)


@pytest.mark.parametrize("pack", [gz, zst])
def test_giving_up_does_not_wait_for_a_layer_to_be_unpacked(pack: Pack) -> None:
    """A registry that is stopped while it checks a large layer stops at once."""
    large = layer_of(bytes(64 * 2**20), pack)
    archive = gz(tar([Entry("large", large.blob), *build_layered_image(SMALL)]))
    asked = itertools.count()
    with pytest.raises(ShuttingDown):
        read(archive, stopping=lambda: next(asked) > 30)


def test_zstd_that_begins_with_a_skippable_frame() -> None:
    """An archive packed by pzstd is read as one packed by zstd is."""
    archive = tar(build_layered_image(SMALL))
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    assert read(skippable + zst(archive)) == read(archive)
