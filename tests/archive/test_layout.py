"""Which images `forgereg.archive.layout` finds among an archive's members."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from forgereg.archive import layout
from forgereg.archive.forward import Passed
from forgereg.archive.members import Link, Member, member_name
from forgereg.archive.reading import Packed
from forgereg.oci.descriptor import Compression, Descriptor, Image, Place
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.manifest import sha256, write_manifests
from forgereg.oci.reference import Digest

Members = dict[str, Member | Link]


@frozen(kw_only=True)
class Data(Member):
    """A member that may be JSON, with its bytes."""

    data: bytes


def read_layout(found: Mapping[str, Member | Link]) -> tuple[Packed, ...]:
    """Give the images among these members."""
    jsons = {
        each.digest: each.data
        for each in found.values()
        if isinstance(each, Data) and each.data[:1] in (b"{", b"[")
    }
    return layout.read_layout(Passed(dict(found), jsons), "linux/amd64").images


def member(data: bytes, unpacked: bytes | None = None) -> Member:
    """Give a member of these bytes; of gzip, if it unpacks to something else."""
    packed = unpacked is not None
    return Data(
        digest=sha256(data),
        size=len(data),
        place=Place(0),
        compression=Compression.GZIP if packed else Compression.NONE,
        diff_id=sha256(unpacked if unpacked is not None else data),
        data=data,
    )


def as_json(value: Any) -> Member:
    return member(json.dumps(value).encode())


def config(*diff_ids: Digest | None) -> Member:
    return as_json({"rootfs": {"diff_ids": [str(each) for each in diff_ids]}})


def entry(**changes: Any) -> dict[str, Any]:
    """Give what manifest.json says of the image in `members`, with changes."""
    said = {"Config": "c.json", "RepoTags": ["hello:2.12"], "Layers": ["a.tar"]}
    return {key: value for key, value in {**said, **changes}.items() if value != ...}


def members(*entries: Any, **others: Member | Link) -> Members:
    """Give the members of an archive of one layer; others are named without dots."""
    layer = member(b"a")
    return {
        "a.tar": layer,
        "c.json": config(layer.diff_id),
        "manifest.json": as_json(list(entries) or [entry()]),
        **others,
    }


def _layers(packed: Packed) -> Any:
    return json.loads(packed.forms[0].body)["layers"]


def refused(found: Mapping[str, Member | Link]) -> str:
    with pytest.raises(ArchiveInvalid) as caught:
        read_layout(found)
    return str(caught.value)


def test_image_is_found_by_its_manifest_json() -> None:
    """manifest.json says which members are an image's config and layers."""
    lower, upper = member(b"lower"), member(b"packed", b"upper")
    settings_file = config(lower.diff_id, upper.diff_id)
    listed = [
        {
            "Config": "c.json",
            "Layers": ["1/layer.tar", "2/layer.tar"],
            "RepoTags": ["hello:2.12", "hello:latest"],
        }
    ]
    found = read_layout(
        {
            "1/layer.tar": lower,
            "2/layer.tar": upper,
            "c.json": settings_file,
            "manifest.json": as_json(listed),
        }
    )
    image = Image(
        Descriptor(settings_file.digest, settings_file.size),
        (
            Descriptor(lower.digest, 5),
            Descriptor(upper.digest, 6, Compression.GZIP),
        ),
    )
    assert found == (
        Packed(("hello:2.12", "hello:latest"), write_manifests(image), image.blobs),
    )


def test_images_come_in_the_order_of_manifest_json() -> None:
    """An archive of several images has them in the order of its manifest.json."""
    tags = ["c:1", "a:1", "b:1"]
    found = read_layout(members(*(entry(RepoTags=[tag]) for tag in tags)))
    assert [packed.tags for packed in found] == [(tag,) for tag in tags]


@pytest.mark.parametrize("tags", [None, [], ...])
def test_image_without_tags(tags: Any) -> None:
    """An image that was saved by its id has no tags, and is served all the same."""
    (packed,) = read_layout(members(entry(RepoTags=tags)))
    assert packed.tags == ()


def test_repeated_layer_is_listed_as_often() -> None:
    """A layer that an image uses twice is in it twice."""
    a, b = member(b"a"), member(b"b")
    (packed,) = read_layout(
        {
            "a": a,
            "b": b,
            "c": config(a.diff_id, b.diff_id, a.diff_id),
            "manifest.json": as_json(
                [{"Config": "c", "Layers": ["a", "b", "a"], "RepoTags": None}]
            ),
        }
    )
    assert [each["digest"] for each in _layers(packed)] == [
        str(each.digest) for each in (a, b, a)
    ]


@pytest.mark.parametrize("diff_ids", [[], None, ...], ids=["none", "null", "absent"])
def test_image_without_layers(diff_ids: Any) -> None:
    """An image may have no layers, which each tool writes in its own way."""
    # Go omits an empty list or writes null, as the tag in the program's source says:
    # https://github.com/moby/moby/blob/v26.1.0/image/rootfs.go
    # https://github.com/opencontainers/image-spec/blob/v1.1.0/specs-go/v1/config.go
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    said = {"rootfs": {k: v for k, v in rootfs.items() if v is not ...}}
    (packed,) = read_layout(members(entry(Layers=[]), **{"c.json": as_json(said)}))
    assert _layers(packed) == []


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("a", "a"),
        ("./a", "a"),
        ("./a/", "a"),
        ("a//b", "a/b"),
        ("a/../b", "b"),
        ("a/./b/", "a/b"),
        ("./", "."),
        ("", "."),
        ("../a", "../a"),
        ("a/../../b", "../b"),
        ("/a", "/a"),
    ],
)
def test_member_has_one_name(raw: str, name: str) -> None:
    """A member is found however the archive writes its name."""
    assert member_name(raw) == name
    assert member_name(name) == name


@pytest.mark.parametrize("name", ["./a.tar", "x/../a.tar", "a.tar/", ".//a.tar"])
def test_layer_is_found_however_manifest_json_writes_its_name(name: str) -> None:
    """manifest.json may write a member's name in another way than the archive."""
    assert read_layout(members(entry(Layers=[name]))) == read_layout(members())


def test_links_lead_to_their_members() -> None:
    """Layers, configs and manifest.json may be links, and links to links."""
    found = members(entry(Config="c", Layers=["1"]))
    found |= {"1": Link("2"), "2": Link("3"), "3": Link("a.tar"), "c": Link("c.json")}
    found |= {"real": found["manifest.json"], "manifest.json": Link("real")}
    assert read_layout(found) == read_layout(members())


def test_long_chain_of_links_is_followed() -> None:
    """A dozen links in a row are followed to their end."""
    chain = {str(n): Link(str(n + 1)) for n in range(12)}
    found = members(entry(Layers=["0"]), **chain, **{"12": Link("a.tar")})
    assert read_layout(found) == read_layout(members())


@pytest.mark.parametrize(
    "links",
    [
        {"0": Link("0")},
        {"0": Link("1"), "1": Link("0")},
        {str(n): Link(str(n + 1)) for n in range(100_000)},
    ],
    ids=["itself", "ring", "endless"],
)
def test_links_that_lead_nowhere(links: Members) -> None:
    """Links that lead in a ring, or too far, are given up."""
    assert "link that leads nowhere" in refused(members(entry(Layers=["0"]), **links))


def test_link_out_of_the_archive() -> None:
    """A link that leaves the archive leads to nothing."""
    for target in ("/etc/passwd", "../../../etc/passwd", "..", "."):
        found = members(entry(Layers=["0"]), **{"0": Link(target)})
        assert "'0' is not in the archive" in refused(found)


@pytest.mark.parametrize(
    "name", ["gone", "", "/", ".", "..", "/a.tar", "/etc/passwd", "a.tar\0", "\ud800"]
)
def test_layer_or_config_that_is_not_in_the_archive(name: str) -> None:
    """A name that no member has is told, whatever it looks like."""
    for changes in ({"Layers": [name]}, {"Config": name}):
        message = refused(members(entry(**changes)))
        assert f"{name!r} is not in the archive" in message
        assert message.encode()


def test_archive_without_manifest_json() -> None:
    """An archive without manifest.json is none that docker would load."""
    found = members()
    del found["manifest.json"]
    assert "has no manifest.json: is it a root file system?" in refused(found)
    assert "has no manifest.json" in refused({})


def test_oci_layout_without_manifest_json() -> None:
    """Whoever builds an OCI layout without its index is told what is missing."""
    found = members(**{"oci-layout": as_json({"imageLayoutVersion": "1.0.0"})})
    del found["manifest.json"]
    assert "it is an OCI layout without index.json" in refused(found)


def test_manifest_json_that_is_no_json() -> None:
    """A manifest.json of other bytes, or of too many, is refused."""
    message = "'manifest.json' in the archive is not JSON, or too large"
    assert message in refused(members(**{"manifest.json": member(b"hello")}))


@pytest.mark.parametrize(
    "data",
    [
        b"[",
        b"[{]",
        b"[}",
        b"[\xff]",
        b'["\xc3"]',
        b"[1] [2]",
        b"[NaN",
        b"[" + b"9" * 5000 + b"]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
    ids=range(11),
)
def test_broken_json(data: bytes) -> None:
    """JSON that is cut, not of this world, or 100,000 levels deep is refused."""
    assert "not valid JSON" in refused(members(**{"manifest.json": member(data)}))
    assert "not valid JSON" in refused(members(**{"c.json": member(data)}))


@pytest.mark.parametrize("value", [[], {}, {"Config": "c.json"}, {"a": [entry()]}])
def test_manifest_json_that_is_no_list_of_images(value: Any) -> None:
    """A manifest.json that lists nothing, or is a registry's manifest, is refused."""
    found = members(**{"manifest.json": as_json(value)})
    assert "is not a list of images" in refused(found)


@pytest.mark.parametrize("value", [None, 1, "c.json", [], [entry()], True])
def test_entry_of_manifest_json_that_is_no_object(value: Any) -> None:
    """An entry of manifest.json that is not an object is refused."""
    assert "names an image oddly" in refused(members(entry(), value))


@pytest.mark.parametrize(
    "changes",
    [
        {"Config": ...},
        {"Config": None},
        {"Config": 1},
        {"Config": ["c.json"]},
        {"Layers": ...},
        {"Layers": "a.tar"},
        {"Layers": {"a.tar": 1}},
        {"Layers": [1]},
        {"Layers": [None]},
        {"Layers": [["a.tar"]]},
        {"RepoTags": "hello:2.12"},
        {"RepoTags": [1]},
        {"RepoTags": [None]},
        {"RepoTags": {"hello": "2.12"}},
        {"RepoTags": 1},
    ],
    ids=str,
)
def test_entry_of_manifest_json_of_the_wrong_shape(changes: dict[str, Any]) -> None:
    """An entry that lacks Config or Layers, or has them in another type, is refused."""
    assert "lacks Config, Layers or RepoTags" in refused(members(entry(**changes)))


def test_layer_that_is_not_what_the_config_says() -> None:
    """A layer whose bytes are not those of the config's diff_id is refused."""
    message = refused(members(**{"a.tar": member(b"b")}))
    assert f"layer 'a.tar' is {sha256(b'b')}" in message
    assert f"says '{sha256(b'a')}'" in message


def test_packed_layer_is_checked_by_what_it_unpacks_to() -> None:
    """The diff_id of a packed layer is that of its unpacked bytes, not of its own."""
    (packed,) = read_layout(members(**{"a.tar": member(b"packed", b"a")}))
    assert _layers(packed)[0]["digest"] == str(sha256(b"packed"))
    assert "layer 'a.tar' is" in refused(members(**{"a.tar": member(b"a", b"b")}))


@pytest.mark.parametrize("count", [0, 2, 100])
def test_config_that_speaks_of_more_or_fewer_layers(count: int) -> None:
    """The config and manifest.json must speak of equally many layers."""
    found = members(**{"c.json": config(*[sha256(b"a")] * count)})
    assert f" {count} layers" in refused(found)


def test_layers_in_another_order_than_in_the_config() -> None:
    """Layers that are listed in the wrong order are refused."""
    a, b = member(b"a"), member(b"b")
    found = members(entry(Layers=["b.tar", "a.tar"]), **{"b.tar": b})
    found["c.json"] = config(a.diff_id, b.diff_id)
    assert "layer 'b.tar' is" in refused(found)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"rootfs": None},
        {"rootfs": []},
        {"rootfs": {}},
        {"rootfs": {"diff_ids": None}},
        {"rootfs": {"diff_ids": "sha256:0"}},
        {"rootfs": {"diff_ids": [1]}},
        {"rootfs": {"diff_ids": {"sha256:0": 1}}},
        [],
        [1, 2],
    ],
    ids=str,
)
def test_config_without_a_list_of_layers(value: Any) -> None:
    """A config that has no list of diff_ids cannot vouch for the layers."""
    assert "the image's config" in refused(members(**{"c.json": as_json(value)}))


def test_config_that_is_no_object_is_refused_though_there_are_no_layers() -> None:
    """A config that is a JSON list is none, even of an image that has no layers."""
    found = members(entry(Layers=[]), **{"c.json": as_json([])})
    assert "config" in refused(found)


def test_manifest_json_cannot_be_its_own_config() -> None:
    """A manifest.json that names itself as the config is refused."""
    assert refused(members(entry(Config="manifest.json", Layers=[])))


def test_config_that_is_not_json() -> None:
    """A config of other bytes than JSON is refused."""
    assert "'a.tar' in the archive is not JSON" in refused(
        members(entry(Config="a.tar"))
    )


def test_many_images_with_one_large_config_take_no_longer_than_one() -> None:
    """Naming one large config again and again does not stop the registry."""
    large = member(b'{"a":[' + b"[]," * 300_000 + b"[]]}")
    found = members(*[entry(Config="big", Layers=[])] * 200)
    found["big"] = large
    start = time.thread_time()
    try:
        read_layout(found)
    except ArchiveInvalid:
        pass  # as good
    # Else some 15 s.
    assert time.thread_time() - start < 5


_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=9),
        st.sampled_from(
            ["a.tar", "c.json", "manifest.json", "ring", str(sha256(b"a"))]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
    ),
    max_leaves=10,
)
_entries = st.fixed_dictionaries(
    {
        "Config": st.one_of(st.just("c.json"), _values),
        "Layers": st.one_of(st.just(["a.tar"]), _values),
    },
    optional={"RepoTags": st.one_of(st.just(["hello:2.12"]), _values)},
)


def read_or_refuse(found: Members) -> None:
    try:
        assert read_layout(found)
    except ArchiveInvalid as e:
        assert len(str(e)) < 600
        assert str(e).encode()


@given(st.one_of(_values, st.lists(st.one_of(_entries, _values), max_size=3)))
def test_manifest_json_of_any_shape(value: Any) -> None:
    """A manifest.json of whatever shape is read or refused, and nothing else."""
    read_or_refuse(members(ring=Link("ring")) | {"manifest.json": as_json(value)})


@given(_values, st.one_of(st.just(["a.tar"]), st.just([])))
def test_config_of_any_shape(value: Any, layers: list[str]) -> None:
    """A config of whatever shape is read or refused, and nothing else."""
    listed = as_json([entry(Layers=layers)])
    for said in (value, {"rootfs": value}, {"rootfs": {"diff_ids": value}}):
        read_or_refuse(members(**{"manifest.json": listed, "c.json": as_json(said)}))


@given(st.binary())
def test_manifest_json_of_any_bytes(data: bytes) -> None:
    """A manifest.json of whatever bytes is read or refused, and nothing else."""
    read_or_refuse(members(**{"manifest.json": member(data)}))
