"""Which images `forgereg.archive` finds in OCI layouts, and that it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.archive import index
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.media import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    LAYERS,
    OCI_INDEX,
    OCI_MANIFEST,
)
from tests.archive.reading import Found, read, read_or_refuse, read_path, refused
from tests.archives import (
    PACKS,
    Entry,
    Layer,
    Layout,
    Pack,
    Recipe,
    config_in,
    docker_save_26,
    folder,
    gz,
    image_of,
    json_entry,
    layer,
    manifest_entry,
    named,
    oci_archive,
    plain,
    sha256_hex,
    symlink,
    tar,
    write_folder,
    zst,
)

AMD = Recipe((layer("amd"), layer("packed", gz)))
ARM = Recipe((layer("arm", zst),), more={"architecture": "arm64", "variant": "v8"})
ON_AMD = {"os": "linux", "architecture": "amd64"}
ON_ARM = {"os": "linux", "architecture": "arm64", "variant": "v8"}
GONE = {"digest": "sha256:" + "0" * 64, "size": 1, "mediaType": OCI_MANIFEST}


def of(layout: Layout, **more: Any) -> Found:
    return read(tar(layout.entries()), **more)


def blobs_of(layout: Layout) -> dict[str, bytes]:
    return {name[-64:]: entry.data for name, entry in layout.blobs.items()}


def bodies(found: Found) -> list[bytes]:
    (packed,) = found.packed
    return [each.body for each in (*packed.forms, *packed.parts)]


def body(layout: Layout, descriptor: Any) -> bytes:
    return blobs_of(layout)[descriptor["digest"][7:]]


def both() -> tuple[Layout, Any, Any]:
    layout = Layout()
    return (
        layout,
        layout.image(AMD, platform=ON_AMD),
        layout.image(ARM, platform=ON_ARM),
    )


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())
def test_manifest_and_blobs_are_served_to_the_byte(pack: Pack) -> None:
    """An image of an OCI archive keeps its digest, annotations and packed layers."""
    layout = Layout()
    layout.heads = [layout.image(AMD)]
    found = read(pack(tar(layout.entries())))
    (packed,) = found.packed
    (form,) = packed.forms
    assert form.media_type == OCI_MANIFEST
    assert found.blobs | {form.digest.encoded: form.body} == blobs_of(layout)
    assert packed.parts == ()


@pytest.mark.parametrize("write", [oci_archive, docker_save_26])
def test_archive_and_directory_are_the_same(write: Any, tmp_path: Path) -> None:
    """An OCI layout as a directory is read as the same layout in an archive is."""
    entries = write(AMD, ARM)
    write_folder(entries, tmp_path)
    archived = read(tar(entries))
    assert read_path(tmp_path) == archived == read(gz(tar(entries)))


def test_file_of_a_directory_may_be_a_link(tmp_path: Path) -> None:
    """Files of an OCI layout may be links, as where Nix made them one by one."""
    write_folder(oci_archive(AMD), tmp_path / "layout")
    blob = tmp_path / "layout/blobs/sha256" / AMD.layers[0].hex
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    assert read_path(tmp_path / "layout").packed == read(tar(oci_archive(AMD))).packed


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([], "an empty directory"),
        (["config.json", "rootfs"], "a runtime bundle"),
        (["manifest.json", "version", "0" * 64], "what skopeo calls dir:"),
        (["manifest.json", "repositories"], "a docker-archive that is unpacked"),
        (["bin", "etc"], "a directory without index.json"),
    ],
)
def test_directory_that_is_no_layout(
    names: list[str], kind: str, tmp_path: Path
) -> None:
    """Whoever builds another kind of directory is told what it is."""
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ArchiveInvalid, match=kind):
        read_path(tmp_path)


@pytest.mark.parametrize("pack", [plain, gz])
def test_index_is_served_with_all_platforms(pack: Pack) -> None:
    """An image for several platforms is served as its own index."""
    layout, amd, arm = both()
    layout.heads = [layout.index(amd, arm, annotations=named("hello:2.12"))]
    for platform, one in (("linux/amd64", amd), ("linux/arm64", arm)):
        found = read(pack(tar(layout.entries())), platform=platform)
        (packed,) = found.packed
        assert packed.tags == ("docker.io/library/hello:2.12",)
        assert [each.body for each in packed.forms] == [
            body(layout, layout.heads[0]),
            body(layout, one),
        ]
        assert packed.forms[0].media_type == OCI_INDEX
        manifests = {m.digest.encoded: m.body for m in (*packed.forms, *packed.parts)}
        assert found.blobs | manifests == blobs_of(layout)


def test_platform_that_nobody_made() -> None:
    """Where the platform is not there, clients that read indexes can still choose."""
    layout, amd, arm = both()
    layout.heads = [layout.index(amd, arm)]
    (packed,) = of(layout, platform="linux/riscv64").packed
    assert [each.media_type for each in packed.forms] == [OCI_INDEX]
    assert len(packed.parts) == 2


def test_indexes_may_be_nested() -> None:
    """An index may lead to another, where the platform is found as well."""
    layout, amd, arm = both()
    inner = layout.index(arm)
    layout.heads = [layout.index(amd, layout.index(inner))]
    (packed,) = of(layout, platform="linux/arm64/v8").packed
    assert [each.body for each in packed.forms] == [
        body(layout, layout.heads[0]),
        body(layout, arm),
    ]
    assert len(packed.parts) == 3


def test_platforms_without_an_index_of_their_own() -> None:
    """Where index.json itself lists the platforms, it is served as the index."""
    layout, amd, arm = both()
    layout.heads = [amd, arm]
    (packed,) = of(layout).packed
    (told,) = [e.data for e in layout.entries() if e.name == "index.json"]
    assert [each.body for each in packed.forms] == [told, body(layout, amd)]
    assert [each.body for each in packed.parts] == [body(layout, arm)]


def test_platform_may_be_in_the_config_only() -> None:
    """A descriptor may be silent about its platform, which the config knows."""
    layout = Layout()
    layout.heads = [layout.image(ARM), layout.image(AMD)]
    (packed,) = of(layout, platform="linux/arm64").packed
    assert packed.forms[1].body == body(layout, layout.heads[0])


def test_several_names_are_several_images() -> None:
    """Each name in index.json is an image; several names may mean the same one."""
    layout = Layout()
    amd, arm = layout.image(AMD), layout.image(ARM)
    ref = "org.opencontainers.image.ref.name"
    layout.heads = [
        {**arm, "annotations": {ref: "localhost/other:1"}},
        {**amd, "annotations": {ref: "2.12"}},
        {**amd, "annotations": named("hello:latest")},
    ]
    found = of(layout)
    assert [each.tags for each in found.packed] == [
        ("2.12", "docker.io/library/hello:latest"),
        ("localhost/other:1",),
    ]
    assert [each.forms[0].body for each in found.packed] == [
        body(layout, amd),
        body(layout, arm),
    ]


def test_docker_types_in_a_layout_are_kept() -> None:
    """A manifest of Docker's own type stays what it is."""
    layout = Layout()
    types = LAYERS[DOCKER_MANIFEST]
    manifest = {
        "schemaVersion": 2,
        "config": layout.put(AMD.config(), DOCKER_CONFIG),
        "layers": [layout.put(one.blob, types[one.compression]) for one in AMD.layers],
    }
    layout.heads = [layout.put_json(manifest, DOCKER_MANIFEST)]
    (packed,) = of(layout).packed
    assert [each.media_type for each in packed.forms] == [DOCKER_MANIFEST]


def test_what_belongs_to_an_image_is_kept() -> None:
    """Signatures and attestations come along, and are not taken for the image."""
    layout = Layout()
    image = layout.image(AMD)
    empty = layout.put(b"{}", "application/vnd.oci.empty.v1+json")
    signature = layout.put_json(
        {
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/x.signature",
            "config": empty,
            "layers": [layout.put(b"signed", "application/octet-stream")],
            "subject": image,
        },
        OCI_MANIFEST,
    )
    layout.heads = [signature, image]
    found = of(layout)
    assert bodies(found) == [body(layout, image), body(layout, signature)]
    assert sha256_hex(b"signed") in found.blobs


def test_attestation_in_an_index_is_kept() -> None:
    """What buildkit attests lies in the index beside the images."""
    layout, amd, arm = both()
    unknown = {"os": "unknown", "architecture": "unknown"}
    attested = layout.image(Recipe((layer("x"),)), platform=unknown)
    layout.heads = [layout.index(amd, attested, arm)]
    assert set(bodies(of(layout))) == {
        body(layout, each) for each in (layout.heads[0], amd, attested, arm)
    }


def test_platform_that_the_archive_lacks() -> None:
    """An index may name platforms that docker did not export; the others are served."""
    layout, amd, arm = both()
    layout.heads = [layout.index(GONE, amd, arm)]
    del layout.blobs[f"blobs/sha256/{ARM.layers[0].hex}"]
    found = of(layout)
    assert bodies(found) == [body(layout, layout.heads[0]), body(layout, amd)]
    assert set(found.blobs) >= {each.hex for each in AMD.layers}


def test_layout_of_which_nothing_is_whole() -> None:
    """A layout of which no image has all its files is refused."""
    layout, amd, arm = both()
    layout.heads = [layout.index(GONE, arm)]
    del layout.blobs[f"blobs/sha256/{ARM.layers[0].hex}"]
    assert "the OCI layout is not whole" in refused(tar(layout.entries()))
    assert "the OCI layout is not whole" in refused(tar(Layout().entries()))


def test_layer_that_lies_elsewhere() -> None:
    """A layer that has to be fetched from elsewhere may lack."""
    layout = Layout()
    foreign = {**GONE, "urls": ["https://example.org/layer"]}
    config = layout.put(AMD.config(), DOCKER_CONFIG)
    manifest = {"config": config, "layers": [foreign]}
    layout.heads = [layout.put_json(manifest, OCI_MANIFEST)]
    assert len(of(layout).blobs) == 1


def test_manifest_json_is_read_where_the_layout_is_not_whole() -> None:
    """An archive that is both is read as docker's where the OCI layout lacks files."""
    entries = docker_save_26(AMD)
    told = json.loads(next(e.data for e in entries if e.name == "index.json"))
    lost = told["manifests"][0]["digest"][7:]
    found = read(tar(e for e in entries if not e.name.endswith(lost)))
    assert found.images == [image_of(AMD, config_in(entries))]


def test_image_that_was_built_on_what_docker_saved() -> None:
    """The OCI layout of the base that dockerTools leaves behind is not served."""
    base = docker_save_26(AMD)
    mine = Recipe((*AMD.layers, layer("mine")), ("mine:1",))
    names = [f"blobs/sha256/{one.hex}" for one in AMD.layers] + ["mine/layer.tar"]
    entries = [
        *base,
        Entry("mine.json", mine.config()),
        Entry("mine/layer.tar", layer("mine").blob),
        json_entry("manifest.json", [manifest_entry(mine, "mine.json", names)]),
    ]
    for pack in (plain, gz):
        found = read(pack(tar(entries)))
        assert found.images == [image_of(mine, mine.config())]
        assert found.packed[0].tags == ("mine:1",)


def test_layer_of_a_layout_need_not_unpack() -> None:
    """A layer that looks packed and is not is its makers' affair: its digest fits."""
    layout = Layout()
    layout.heads = [layout.image(Recipe((Layer("0" * 64, b"\x1f\x8b not gzip"),)))]
    assert of(layout).blobs.keys() < blobs_of(layout).keys()
    read(gz(tar(layout.entries())))


@pytest.mark.parametrize("pack", [plain, gz])
def test_blob_that_is_not_what_its_name_says(pack: Pack) -> None:
    """A blob in which one byte is wrong is refused, whichever it is."""
    for write in (oci_archive, docker_save_26):
        for position, entry in enumerate(entries := write(AMD)):
            used = not entry.data.startswith(b'{"id"')  # which docker once needed
            if entry.name.startswith("blobs/sha256/") and used:
                changed = [*entries]
                changed[position] = Entry(entry.name, entry.data[:-1] + b"\t")
                assert "damaged" in refused(pack(tar(changed)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 1}, "damaged"),
        ({"size": -1}, "lacks size"),
        ({"size": True}, "lacks size"),
        ({"size": 1.0}, "lacks size"),
        ({"size": 10**30}, "damaged"),
        ({"size": "1"}, "lacks size"),
        ({"mediaType": 7}, "lacks size or type"),
        ({"mediaType": "a/b\r\nSet-Cookie: c"}, "media type|not whole"),
        ({"digest": "sha256:../../../etc/passwd"}, "not a"),
        ({"digest": "../../etc/passwd"}, "not a digest"),
        ({"digest": None}, "not a digest"),
        ({"digest": "sha512:" + "0" * 128}, "not whole"),
    ],
    ids=str,
)
def test_descriptor_that_lies(changes: Any, reason: str) -> None:
    """A descriptor that is odd, or does not fit its bytes, is refused."""
    for where in ("head", "config", "layers"):
        layout = Layout()
        head = layout.image(AMD)
        if where == "head":
            head = {**head, **changes}
        else:
            said = json.loads(body(layout, head))
            if where == "layers":
                said["layers"][0] |= changes
            else:
                said["config"] |= changes
            head = layout.put_json(said, OCI_MANIFEST)
        layout.heads = [head]
        if "mediaType" in changes and where != "head":
            read_or_refuse(tar(layout.entries()))
            continue
        with pytest.raises(ArchiveInvalid, match=reason):
            if where == "head" and "Set-Cookie" in str(changes):
                said = json.loads(body(layout, head))
                del said["mediaType"]
                layout.heads = [layout.put_json(said, changes["mediaType"])]
            read(tar(layout.entries()))


def test_indexes_that_are_nested_without_end() -> None:
    """Indexes in indexes in indexes are given up, however they are reached."""
    layout = Layout()
    head = layout.image(AMD)
    chain = []
    for _ in range(20):
        head = layout.index(head)
        chain.append(head)
    for heads in ([head], chain, chain[::-1]):
        layout.heads = heads
        assert "nested too deep" in refused(tar(layout.entries()))


def test_too_many_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout of thousands of manifests, or descriptors, is given up."""
    layout = Layout()
    image = layout.image(AMD)
    layout.heads = [{**GONE, "digest": f"sha256:{n:064}"} for n in range(30)] + [image]
    assert len(of(layout).packed) == 1
    monkeypatch.setattr(index, "_MAX_CLAIMS", 30)
    assert "too many descriptors" in refused(tar(layout.entries()))
    monkeypatch.setattr(index, "_MAX_CLAIMS", 1000)
    monkeypatch.setattr(index, "_MAX_MANIFESTS", 30)
    assert "too many manifests" in refused(tar(layout.entries()))


def test_link_out_of_a_layout() -> None:
    """A blob that is a link to a file of the registry's machine is not there."""
    entries = oci_archive(AMD)
    evil = symlink(f"blobs/sha256/{AMD.layers[0].hex}", "../../../../etc/passwd")
    changed = [e for e in entries if e.name != evil.name]
    assert "not whole" in refused(tar([evil, *changed]))


LAYOUT, _AMD, _ARM = both()
LAYOUT.heads = [LAYOUT.index(_AMD, _ARM, annotations=named("hello:2.12"))]
ENTRIES = LAYOUT.entries()
WHOLE = tar(ENTRIES)
READ = read(WHOLE)


@settings(max_examples=60)
@given(st.integers(0, len(WHOLE) - 1), st.sampled_from(sorted(PACKS)))
def test_layout_that_was_cut(length: int, pack: str) -> None:
    """An OCI archive that was cut anywhere is refused or whole."""
    assert read_or_refuse(PACKS[pack](WHOLE[:length])) in (None, READ)
    packed = PACKS[pack](WHOLE)
    assert read_or_refuse(packed[: length % len(packed)]) in (None, READ)


@settings(max_examples=150)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7), st.sampled_from([plain, gz]))
def test_layout_in_which_a_bit_flips(position: int, bit: int, pack: Pack) -> None:
    """Where a bit is wrong, no other manifest or layer is ever served."""
    changed = bytearray(WHOLE)
    changed[position] ^= 1 << bit
    found = read_or_refuse(pack(bytes(changed)))
    if found is not None:
        known = {body for body in bodies(READ)}
        told = WHOLE.index(b'"manifests"', WHOLE.rindex(b"index.json"))
        if not told - 600 < position < told + 1200:
            assert found == READ
        assert known >= {m.body for p in found.packed for m in (*p.forms, *p.parts)} - {
            json_body(changed)
        }


def json_body(archive: bytearray) -> bytes:
    """Give index.json as it lies in a plain archive."""
    start = archive.rindex(b'{\n "schemaVersion"') if b'{\n "schema' in archive else 0
    return bytes(archive[start : archive.find(b"\0", start)])


_said = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(max_size=5),
        st.sampled_from([OCI_INDEX, OCI_MANIFEST, _AMD["digest"], _AMD, _ARM, GONE]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                "mediaType digest size manifests layers config annotations platform"
                " urls data subject artifactType blobs".split()
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(_said, _said, st.booleans())
def test_json_of_any_shape(value: Any, more: Any, in_index: bool) -> None:
    """An index or a manifest of whatever shape is read or refused, and nothing else."""
    layout, amd, arm = both()
    if in_index:
        told = {"manifests": [amd, value], "annotations": more}
    else:
        told = {"manifests": [layout.put_json(value, OCI_MANIFEST), {**arm, "x": more}]}
    entries = [e for e in layout.entries() if e.name != "index.json"]
    found = read_or_refuse(tar([*entries, json_entry("index.json", told)]))
    assert found is None or found.packed


def test_layout_among_folders() -> None:
    """Names in the archive may begin with a dot and a slash."""
    entries = [folder("./"), *(Entry(f"./{e.name}", e.data, e.type) for e in ENTRIES)]
    assert read(tar(entries)) == READ
