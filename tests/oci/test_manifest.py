"""What manifests `forgereg.oci.manifest` writes of an image."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.oci.descriptor import Compression, Descriptor, Image
from forgereg.oci.manifest import PAD, Manifest, sha256, write_manifests
from forgereg.oci.reference import Digest

OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"

_digests = st.binary(min_size=32, max_size=32).map(lambda b: Digest("sha256", b.hex()))
_sizes = st.integers(0, 2**50)
_configs = st.builds(Descriptor, _digests, _sizes)
_layers = st.builds(Descriptor, _digests, _sizes, st.sampled_from(Compression))
images = st.builds(Image, _configs, st.lists(_layers, max_size=5).map(tuple))


def descriptor(word: str, compression: Compression = Compression.NONE) -> Descriptor:
    return Descriptor(sha256(word.encode()), len(word), compression)


def image(*layers: Descriptor) -> Image:
    return Image(descriptor("config"), layers)


def read(manifest: Manifest) -> Any:
    return json.loads(manifest.body)


def test_digest_is_sha256() -> None:
    """A digest is the sha256 of the bytes, as every client computes it."""
    assert str(sha256(b"hello")) == (
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    )


def test_oci_manifest_has_every_field_that_the_specification_asks_for() -> None:
    """An OCI manifest says version, media type, config and layers, and nothing else."""
    written = write_manifests(image(descriptor("lower"), descriptor("upper")))[0]
    assert written.media_type == OCI
    assert read(written) == {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": str(sha256(b"config")),
            "size": 6,
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": str(sha256(word)),
                "size": 5,
            }
            for word in (b"lower", b"upper")
        ],
    }


def test_docker_manifest_has_every_field_that_the_specification_asks_for() -> None:
    """Old clients of docker get the same image in docker's own words."""
    written = write_manifests(image(descriptor("lower")))[1]
    assert written.media_type == DOCKER
    assert read(written) == {
        "schemaVersion": 2,
        "mediaType": DOCKER,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": str(sha256(b"config")),
            "size": 6,
        },
        "layers": [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                "digest": str(sha256(b"lower")),
                "size": 5,
            }
        ],
    }


@pytest.mark.parametrize(
    ("compression", "oci", "docker"),
    [
        (Compression.NONE, "tar", "tar"),
        (Compression.GZIP, "tar+gzip", "tar.gzip"),
    ],
)
def test_media_type_says_how_a_layer_is_packed(
    compression: Compression, oci: str, docker: str
) -> None:
    """A layer's media type says what its bytes are, in both forms."""
    forms = write_manifests(image(descriptor("layer", compression)))
    assert [read(form)["layers"][0]["mediaType"] for form in forms] == [
        f"application/vnd.oci.image.layer.v1.{oci}",
        f"application/vnd.docker.image.rootfs.diff.{docker}",
    ]


def test_zstd_layer_makes_only_the_oci_form() -> None:
    """One layer in zstd is enough that docker's form cannot hold the image."""
    forms = write_manifests(
        image(descriptor("lower"), descriptor("upper", Compression.ZSTD))
    )
    assert [form.media_type for form in forms] == [OCI]
    assert [each["mediaType"] for each in read(forms[0])["layers"]] == [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ]


def test_image_without_layers_has_both_forms() -> None:
    """An image from scratch, with a config only, has an empty list of layers."""
    forms = write_manifests(image())
    assert [form.media_type for form in forms] == [OCI, DOCKER]
    assert [read(form)["layers"] for form in forms] == [[], []]


def test_repeated_layer_is_listed_as_often_as_it_is_used() -> None:
    """A layer that is used twice is listed twice, in its places."""
    lower, upper = descriptor("lower"), descriptor("upper")
    for form in write_manifests(image(lower, upper, lower)):
        assert [each["digest"] for each in read(form)["layers"]] == [
            str(each.digest) for each in (lower, upper, lower)
        ]


@settings(max_examples=40)
@given(images)
def test_equal_images_give_equal_bytes(one: Image) -> None:
    """The same image has the same manifests, to the byte, on every registry."""
    again = Image(
        Descriptor(one.config.digest, one.config.size),
        tuple(Descriptor(e.digest, e.size, e.compression) for e in one.layers),
    )
    assert write_manifests(one) == write_manifests(again)


@settings(max_examples=40)
@given(images, images)
def test_different_images_have_different_manifests(one: Image, other: Image) -> None:
    """Two images share a manifest's digest only where they are the same."""
    digests = {form.digest for form in write_manifests(one)}
    others = {form.digest for form in write_manifests(other)}
    assert digests == others if one == other else digests.isdisjoint(others)


@settings(max_examples=40)
@given(images)
def test_manifest_is_served_under_the_digest_of_its_bytes(one: Image) -> None:
    """A client that checks a manifest against its digest finds it whole."""
    forms = write_manifests(one)
    assert forms
    for form in forms:
        assert form.digest.encoded == hashlib.sha256(form.body).hexdigest()
        assert read(form)["mediaType"] == form.media_type


@settings(max_examples=40)
@given(images)
def test_manifest_begins_with_the_pad(one: Image) -> None:
    """Every manifest begins with 256 spaces, which can be sent before the rest."""
    assert PAD == b" " * 256
    for form in write_manifests(one):
        assert form.body.startswith(PAD + b"{")
