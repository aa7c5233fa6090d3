"""Tests of nix2container's JSON."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.archive.nix2container import open_blob, read_nix2container
from forgereg.oci.descriptor import Compression, Place
from forgereg.oci.errors import ArchiveInvalid, BlobUnknown
from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Digest
from tests.archive.zoo import ALONE, APP, GOLDEN, LAYERS, OLD_GOLDEN, make_store

Real = Callable[[str], Path]

_MADE = f"sha256:{GOLDEN['plain']}"


@pytest.fixture
def real(tmp_path: Path) -> Real:
    """A store with everything in it that is hard to write."""
    make_store(tmp_path)
    return lambda path: tmp_path / path[1:]


def _layer(digest: str = _MADE, **others: Any) -> dict[str, Any]:
    layer = {
        "digest": digest,
        "size": 114688,
        "diff_ids": digest,
        "paths": LAYERS["plain"],
        "mediatype": "application/vnd.oci.image.layer.v1.tar",
        "History": {},
    }
    return {k: v for k, v in (layer | others).items() if v is not None}


def _image(*layers: Any, **others: Any) -> bytes:
    image = {
        "version": 1,
        "image-config": {},
        "layers": list(layers),
        "arch": "amd64",
        "created": "1970-01-01T00:00:00Z",
    }
    image |= others
    return json.dumps({k: v for k, v in image.items() if v is not None}).encode()


def _config(text: bytes, real: Real) -> bytes:
    image = read_nix2container(text, real).images[0]
    config = json.loads(image.forms[0].body)["config"]
    with open_blob(text, Digest("sha256", config["digest"][7:]), real) as file:
        body = file.read()
    assert len(body) == config["size"] and str(sha256(body)) == config["digest"]
    return body


@pytest.mark.parametrize("name", LAYERS)
def test_same_bytes(real: Real, name: str) -> None:
    """A layer has the very bytes that nix2container gives it."""
    text = _image(_layer(f"sha256:{GOLDEN[name]}", paths=LAYERS[name]))
    with open_blob(text, Digest("sha256", GOLDEN[name]), real) as file:
        assert hashlib.sha256(file.read()).hexdigest() == GOLDEN[name]


@pytest.mark.parametrize("name", OLD_GOLDEN)
def test_older_releases(real: Real, name: str) -> None:
    """A layer of an older release of nix2container has that one's bytes."""
    text = _image(_layer(f"sha256:{OLD_GOLDEN[name]}", paths=LAYERS[name]))
    with open_blob(text, Digest("sha256", OLD_GOLDEN[name]), real) as file:
        assert hashlib.sha256(file.read()).hexdigest() == OLD_GOLDEN[name]


def test_lying_digest(real: Real) -> None:
    """Where the digest lies, the bytes are what they are, for who checks them."""
    digest = Digest("sha256", "0" * 64)
    with open_blob(_image(_layer(str(digest))), digest, real) as file:
        assert hashlib.sha256(file.read()).hexdigest() == GOLDEN["plain"]


def test_reading(real: Real) -> None:
    """An image is told by its JSON alone: what is made has its place there."""
    reading = read_nix2container(_image(_layer()), real)
    (image,) = reading.images
    manifest = json.loads(image.forms[0].body)
    assert [layer["digest"] for layer in manifest["layers"]] == [_MADE]
    assert manifest["layers"][0]["size"] == 114688
    assert {str(blob.digest) for blob in image.blobs} == {
        str(digest) for digest in reading.places
    }
    assert set(reading.places.values()) == {Place(0)}
    assert image.tags == ()


def test_layer_in_the_store(real: Real) -> None:
    """A layer that the store has, packed or not, is served from there."""
    packed = gzip.compress(b"\0" * 1024)
    (real(APP) / "layer").write_bytes(packed)
    layer = _layer(
        str(sha256(packed)), size=0, paths=None, **{"layer-path": f"{APP}/layer"}
    )
    layer["diff_ids"] = str(sha256(b"\0" * 1024))
    reading = read_nix2container(_image(layer), real)
    place = reading.places[sha256(packed)]
    assert place == Place(0, f"{APP}/layer", is_plain=True)
    blobs = {blob.digest: blob for blob in reading.images[0].blobs}
    assert blobs[sha256(packed)].size == len(packed)
    assert blobs[sha256(packed)].compression is Compression.GZIP
    with pytest.raises(BlobUnknown):
        open_blob(_image(layer), sha256(packed), real)


def test_config(real: Real) -> None:
    """The config has the very bytes that nix2container gives it."""
    settings: dict[str, Any] = {
        "User": "ann",
        "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
        "Env": ["A=<&>", "B=\u2028ü\t\x01\x7f"],
        "Entrypoint": None,
        "Cmd": ["/bin/hello"],
        "Volumes": {},
        "Labels": {"b": "2", "a": '"\\'},
        "Healthcheck": {"Test": ["NONE"]},
    }
    text = _image(
        _layer(History={"created_by": "nix2container", "created": None}),
        created="2024-02-03T04:05:06.700Z",
        **{"image-config": settings},
    )
    assert _config(text, real).decode() == (
        '{"created":"2024-02-03T04:05:06.7Z","architecture":"amd64","os":"linux",'
        '"config":{"User":"ann","ExposedPorts":{"443/tcp":{},"80/tcp":{}},'
        '"Env":["A=\\u003c\\u0026\\u003e","B=\\u2028ü\\t\\u0001\x7f"],'
        '"Cmd":["/bin/hello"],"Labels":{"a":"\\"\\\\","b":"2"}},'
        f'"rootfs":{{"type":"layers","diff_ids":["{_MADE}"]}},'
        '"history":[{"created_by":"nix2container"}]}'
    )


def test_first_release(real: Real) -> None:
    """JSON of the first release, which had no times, names no platform, works."""
    text = _image(_layer(History=None), arch=None, created=None, version=None)
    config = json.loads(_config(text, real))
    assert config["architecture"] == "amd64" and "created" not in config
    assert config["history"] == [{}]


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        ({"digest": "md5:00"}, "digest"),
        ({"digest": 7}, "'digest' .* not a text"),
        ({"digest": None}, "digest"),
        ({"diff_ids": "no"}, "digest"),
        ({"diff_ids": f"sha256:{'1' * 64}"}, "compressed when it is pushed"),
        ({"size": -1}, "no size"),
        ({"size": 0}, "no size"),
        ({"size": True}, "not a whole number"),
        ({"size": 1.5}, "not a whole number"),
        ({"size": 2**63}, "too large"),
        ({"paths": {}}, "not a list"),
        ({"paths": ["x"]}, "not a list of an object"),
        ({"paths": [{"path": "/etc"}]}, "not a store path"),
        ({"paths": [{"path": APP, "tar": ALONE}]}, "'tar', which this registry"),
        ({"paths": [{"path": APP, "options": {"capabilities": []}}]}, "capabilities"),
        ({"paths": [{"path": APP, "options": {"rewrite": {"regex": "("}}}]}, "pattern"),
        (
            {"paths": [{"path": APP, "options": {"ignoreDestination": r"(a)\1"}}]},
            "pattern",
        ),
        ({"paths": [{"path": APP, "options": {"perms": [{"mode": "x"}]}}]}, "octal"),
        (
            {"paths": [{"path": APP, "options": {"perms": [{"orMode": "10000"}]}}]},
            "octal",
        ),
        ({"layer-path": "/etc/passwd"}, "not a store path"),
        ({"layer-path": APP}, "not a file"),
        ({"layer-path": f"{APP}/gone"}, "not in the Nix store"),
        ({"layer-path": f"{APP}/link"}, "not a file"),
        ({"layer-path": ALONE}, "has 20 bytes"),
        ({"History": []}, "not an object"),
        ({"History": {"created": "now"}}, "not a time"),
    ],
)
def test_hostile_layer(real: Real, layer: dict[str, Any], problem: str) -> None:
    """JSON that makes no sense, or reaches for what is not its own, is refused."""
    (real(APP) / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArchiveInvalid, match=problem):
        read_nix2container(_image(_layer(**layer)), real)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b"1" * 10_000,
        b" " * (2**24 + 1),
        _image(version=2),
        _image(manifest={}),
        _image(layers={}),
        _image(*[_layer()] * 1001),
        _image(_layer(), _layer(size=1024)),
        _image(**{"image-config": []}),
        _image(**{"image-config": {"Env": [1]}}),
        _image(**{"image-config": {"User": "\ud800"}}),
        _image(**{"image-config": {"Labels": {"a": 1}}}),
        _image(**{"image-config": {"User": "u" * 2**23}}),
    ],
)
def test_hostile_image(real: Real, text: bytes) -> None:
    """Whatever an image's JSON is, it gets an answer."""
    with pytest.raises(ArchiveInvalid):
        read_nix2container(text, real)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
_PLACES = [
    ("layers",),
    ("layers", 0),
    *(("layers", 0, key) for key in (*_layer(), "layer-path")),
    *(("layers", 0, "paths", 0, key) for key in ("path", "options")),
    *(
        ("layers", 0, "paths", 0, "options", key)
        for key in ("rewrite", "perms", "ignoreDestination")
    ),
    *(("image-config", key) for key in ("User", "Env", "Labels", "Volumes")),
    *((key,) for key in ("version", "image-config", "arch", "created")),
]


@given(st.sampled_from(_PLACES), _ANYTHING)
def test_anything_anywhere(place: tuple[str | int, ...], value: Any) -> None:
    """Whatever stands wherever in the JSON, there is an image, or a reason why not."""
    document = json.loads(_image(_layer(paths=[{"path": APP, "options": {}}])))
    here = document
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    with suppress(ArchiveInvalid):
        read_nix2container(json.dumps(document).encode(), lambda _: Path("/"))
