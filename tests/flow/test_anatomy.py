"""Tests for `forgereg.flow.anatomy`."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forgereg.flow.anatomy import (
    Anatomy,
    Config,
    Difference,
    Part,
    Platform,
    difference,
    read_anatomy,
    read_config,
    read_platforms,
)
from forgereg.oci.descriptor import Descriptor, Image
from forgereg.oci.manifest import Manifest, sha256, write_manifests
from forgereg.oci.media import OCI_INDEX


def part(text: str) -> Part:
    return Part(sha256(text.encode()), len(text), "layer")


def anatomy(*texts: str) -> Anatomy:
    """Give an image with a config of its own."""
    return Anatomy(part(f"config {texts}"), tuple(map(part, texts)), {})


def manifest(document: Any) -> Manifest:
    body = json.dumps(document).encode()
    return Manifest(OCI_INDEX, body, sha256(body))


def test_what_our_manifests_list() -> None:
    """The layers of an image are read in their order, with their sizes."""
    layers = (Descriptor(sha256(b"a"), 1), Descriptor(sha256(b"b"), 2))
    written = write_manifests(Image(Descriptor(sha256(b"c"), 3), layers))
    for form in written:
        found = read_anatomy(form)
        assert [(each.digest, each.size) for each in found.layers] == [
            (each.digest, each.size) for each in layers
        ]
        assert sum(found.sizes.values()) == 6


def test_platforms_of_an_index() -> None:
    """An index lists an image for each platform; what attests them is none."""
    digest = str(sha256(b"x"))
    arm = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    index = manifest(
        {
            "manifests": [
                {"digest": digest, "size": 1, "platform": arm},
                {"digest": digest, "size": 1},
                {"digest": digest, "size": 1, "platform": {"os": "unknown"}}
                | {"platform": {"os": "unknown", "architecture": "unknown"}},
                {"digest": "nonsense", "size": 1},
                7,
            ]
        }
    )
    assert read_platforms(index) == (
        Platform("linux/arm64/v8", sha256(b"x")),
        Platform("any platform", sha256(b"x")),
    )


def test_how_an_image_is_run() -> None:
    """The config says what is run, as whom, with what, and what made each layer."""
    document = {
        "os": "linux",
        "architecture": "amd64",
        "created": "1970-01-01T00:00:01Z",
        "config": {
            "Entrypoint": ["/bin/web", "--serve"],
            "Cmd": "a shell's line",
            "Env": ["A=1"],
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}},
            "User": "1000:1000",
            "WorkingDir": "/srv",
            "Labels": {"k": "v"},
            "StopSignal": "SIGINT",
        },
        "history": [
            {"created_by": "COPY"},
            {"created_by": "ENV", "empty_layer": True},
            {"comment": "store paths"},
        ],
    }
    assert read_config(json.dumps(document).encode()) == Config(
        platform="linux/amd64",
        created="1970-01-01T00:00:01Z",
        user="1000:1000",
        workdir="/srv",
        stop_signal="SIGINT",
        entrypoint=("/bin/web", "--serve"),
        cmd=("a shell's line",),
        env=("A=1",),
        ports=("80/tcp",),
        volumes=("/data",),
        labels={"k": "v"},
        created_by=("COPY", "store paths"),
    )


def test_text_without_an_end() -> None:
    """A text of a megabyte is cut, and so is a list of thousands."""
    config = {"history": [{"created_by": "x" * 2**20}], "config": {"Env": ["a"] * 9999}}
    read = read_config(json.dumps(config).encode())
    assert len(read.created_by[0]) < 2100
    assert len(read.env) == 500


def test_text_that_looks_like_another() -> None:
    """What turns a text round, or rings a bell, is spelled out."""
    config = {"config": {"Cmd": ["\u202egnp.exe", "\x1b[31m\tred\n", "שלום"]}}
    read = read_config(json.dumps(config).encode())
    assert read.cmd == ("\\u202egnp.exe", "\\x1b[31m\tred\n", "שלום")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["config", "layers", "manifests", "annotations", "history", "os"]
        ),
        json_values
        | st.dictionaries(
            st.sampled_from(["Env", "Labels", "ExposedPorts", "digest", "size"]),
            json_values,
        ),
    )
    | json_values
)
def test_whatever_a_document_says(document: Any) -> None:
    """What makes no sense in a manifest or config is not there, and is no error."""
    data = json.dumps(document).encode()
    read_config(data)
    read_anatomy(Manifest("", data, sha256(data)))
    read_platforms(Manifest("", data, sha256(data)))


def test_what_is_no_json() -> None:
    """What is no JSON, or is nested without an end, says nothing."""
    for data in (b"", b"\xff", b"[" * 100_000):
        assert read_config(data) == Config()


def test_what_is_other() -> None:
    """Someone who has the older image pulls the layers that are new, and the config."""
    found = difference(anatomy("base", "old"), anatomy("base", "newer"))
    config = len("config ('base', 'newer')")
    assert found == Difference((part("newer"),), (part("old"),), 1, 5 + config)


images = st.lists(st.sampled_from("abcdef")).map(lambda texts: anatomy(*texts))


@given(images, images)
def test_difference_adds_up(before: Anatomy, after: Anatomy) -> None:
    """Every layer is new or kept, and never is more pulled than there is."""
    found = difference(before, after)
    assert len(found.added) + found.kept == len(after.layers)
    assert {*before.layers} - {*found.removed} <= {*after.layers}
    assert 0 <= found.bytes_to_pull <= sum(after.sizes.values())
    assert difference(after, after) == Difference((), (), len(after.layers), 0)
