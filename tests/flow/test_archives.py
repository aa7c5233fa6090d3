"""Tests for `forgereg.flow.archives`: all that nix can build, and clients can pull."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forgereg.archive import nix2container, readahead
from forgereg.archive.scan import scan_stream
from forgereg.flow.report import State
from forgereg.nix.outlet import Outlet
from forgereg.nix.process import Exit
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.media import OCI_INDEX, OCI_MANIFEST
from tests.archive.test_forward import Lost
from tests.archive.zoo import APP, GOLDEN, LAYERS, make_store
from tests.archives import Layout, Recipe, build_layered_image, gz, layer, layer_of, tar
from tests.doubles import Package, Part
from tests.flow.packing import (
    DATA,
    DIGEST,
    ENTRIES,
    NAME,
    RECIPE,
    SMALL,
    delete_blobs,
    put,
    put_folder,
    put_script,
    url,
)
from tests.flow.stages import pull, states
from tests.registry import ANY_FORM, Served, digest_of, files_below, files_open_below

TAG = f"/v2/{NAME}/manifests/latest"
INDEX = [("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST)]
MADE = f"sha256:{GOLDEN['plain']}"


@pytest.fixture(autouse=True)
def _all_closed(tmp_path: Path, served: Served) -> Iterator[None]:
    yield
    assert files_open_below(tmp_path) == []
    assert files_below(served.state / "partial") == 0
    assert all(outlet.closed for outlet in served.scripts.outlets)


def several() -> Layout:
    """Write an OCI layout of an image for two platforms."""
    layout = Layout()
    children = [
        layout.image(
            Recipe((layer_of(DATA), layer(architecture))),
            platform={"os": "linux", "architecture": architecture},
        )
        for architecture in ("arm64", "amd64")
    ]
    layout.heads.append(layout.index(*children))
    return layout


@pytest.mark.parametrize("kind", ["folder", "plain", "packed", "script"])
def test_several_platforms(served: Served, kind: str) -> None:
    """An OCI layout of several platforms is pulled byte for byte as it was built."""
    layout = several()
    entries = layout.entries()
    if kind == "folder":
        put_folder(served, entries)
    elif kind == "script":
        put_script(served, tar(entries))
    else:
        put(served, tar(entries) if kind == "plain" else gz(tar(entries)))
    answer = served.get(TAG, INDEX)
    assert answer["Content-Type"] == OCI_INDEX
    assert answer["Docker-Content-Digest"] == layout.heads[0]["digest"]
    built = {digest_of(entry.data): entry.data for entry in layout.blobs.values()}
    assert answer.body == built[layout.heads[0]["digest"]]
    for is_evicted in (False, True):
        if is_evicted:
            delete_blobs(served)
        for child in answer.json["manifests"]:
            assert served.pull(NAME, child["digest"])
            manifest = served.get(f"/v2/{NAME}/manifests/{child['digest']}", ANY_FORM)
            assert manifest.body == built[child["digest"]]
            for blob in (manifest.json["config"], *manifest.json["layers"]):
                assert served.get(url(blob["digest"])).body == built[blob["digest"]]
    assert served.nix.count("build") == 1
    plain = kind in ("folder", "plain")
    assert (files_below(served.state / "blobs") == 0) == plain


def test_application_of_several_platforms(served: Served) -> None:
    """A compose file pins all platforms of an image, as its tag means them."""
    layout = several()
    entries = {
        "web.oci": tar(layout.entries()),
        "compose.yaml": b"services: {web: {image: web}}",
    }
    output = served.store.folder("shop", entries)
    served.nix.packages["shop"] = Package("1.0", {"containers": output})
    answer = served.get("/-/applications/shop/compose.yaml")
    assert f"@{layout.heads[0]['digest']}" in answer.body.decode()


def test_client_without_indexes(served: Served) -> None:
    """A client that reads no index is given the image for the registry's platform."""
    put_folder(served, several().entries())
    manifest = served.get(TAG, [("Accept", OCI_MANIFEST)])
    assert manifest["Content-Type"] == OCI_MANIFEST
    children = served.get(TAG, INDEX).json["manifests"]
    amd64 = next(c for c in children if c["platform"]["architecture"] == "amd64")
    assert manifest["Docker-Content-Digest"] == amd64["digest"]


def made(*layers: dict[str, Any], **others: Any) -> bytes:
    """Write the JSON of nix2container."""
    image = {"version": 1, "image-config": {}, "layers": layers, "arch": "amd64"}
    return json.dumps({**image, **others}).encode()


def made_layer(digest: str = MADE, **others: Any) -> dict[str, Any]:
    """Describe a layer that is made on demand."""
    paths = {"paths": LAYERS["plain"]} if "layer-path" not in others else {}
    known = {"digest": digest, "diff_ids": digest, "size": 114688, **paths}
    return {**known, **others}


def test_layers_made_on_demand(served: Served) -> None:
    """Of nix2container's images layers and config are made, and kept as any other."""
    make_store(served.store.root)
    put(served, made(made_layer()))
    served.pull(NAME)
    assert files_below(served.state / "blobs") == 2
    delete_blobs(served)
    answer = served.get(url(MADE), [("Range", "bytes=100000-")])
    assert len(answer.body) == 14688
    served.pull(NAME)
    assert served.nix.count("build") == 1


@pytest.mark.parametrize("blobs_size", [0, 1], ids=["kept", "straight"])
def test_digest_that_lies(served: Served, blobs_size: int) -> None:
    """A layer that cannot be made with its digest is never sent whole; it is told why."""
    served.set(blobs_size=blobs_size)
    make_store(served.store.root)
    lie = f"sha256:{'0' * 64}"
    put(served, made(made_layer(lie)))
    assert served.get(TAG, ANY_FORM).status == 200
    first = served.begin(url(lie))
    assert first.aborted or first.answer().status == 422
    calls = len(served.readers.calls)
    second = served.get(url(lie))
    assert second.status == 422
    assert f"says how to make {lie}" in second.error[1]
    assert "may be tried again in 60 s" in second.error[1]
    assert len(served.readers.calls) == calls
    config = served.get(TAG, ANY_FORM).json["config"]["digest"]
    assert served.get(url(config)).status == 200
    served.clock.advance(61.0)
    again = served.begin(url(lie))
    assert again.aborted or again.answer().status == 422
    assert len(served.readers.calls) > calls


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_digest_that_is_claimed(served: Served, coding: str) -> None:
    """Who knows the digest of another image's layer does not get it by claiming it."""
    served.set(transfer_coding="always")
    headers = [("Accept-Encoding", coding)]
    make_store(served.store.root)
    theirs = served.pull("packages/hello")["layers"][0]
    there = f"/v2/packages/hello/blobs/{theirs['digest']}"
    for _ in range(2):
        assert served.get(there, headers)["Content-Encoding"] in (coding, None)
    put(served, made(made_layer(theirs["digest"], size=theirs["size"])))
    assert served.get(TAG, ANY_FORM).status == 200
    asked = served.begin(url(theirs["digest"]), headers)
    assert asked.aborted or asked.answer().status == 422
    assert served.get(there, headers).status == 200


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_layer_files(served: Served, pack: Any) -> None:
    """A layer that lies in the store is served from there, if it is what it should be."""
    make_store(served.store.root)
    data = pack(DATA)
    served.store.write(f"{APP}/layer.tar", data)
    described = {"layer-path": f"{APP}/layer.tar", "size": len(data)}
    put(served, made(made_layer(digest_of(data), **described)))
    served.pull(NAME)
    assert files_below(served.state / "blobs") == 1, "the config"
    served.store.write(f"{APP}/layer.tar", data[:-1] + b"!")
    served.nix.packages["big"].outputs["image"].make()
    served.clock.advance(1000.0)
    answer = served.get(url(digest_of(data)))
    assert answer.status == 422
    assert "layer.tar is not sha256:" in answer.error[1]


def test_large_description(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON that is too large is refused."""
    monkeypatch.setattr("forgereg.flow.contents.MAX_TEXT", 100)
    monkeypatch.setattr(nix2container, "MAX_TEXT", 100)
    put(served, made(made_layer()))
    answer = served.get(TAG, ANY_FORM)
    assert answer.status == 422 and "more than 100 bytes" in answer.error[1]


def test_script_that_packs(served: Served) -> None:
    """Whoever has a script write something packed reads what it should write."""
    put_script(served, gz(tar(ENTRIES)))
    answer = served.get(TAG, ANY_FORM)
    assert answer.status == 422 and "the script writes gzip" in answer.error[1]


def test_script(served: Served) -> None:
    """What a script writes is read as it comes; its layers come back by running it."""
    put_script(served, tar(ENTRIES))
    served.pull(NAME)
    assert len(served.scripts.argvs) == 1
    delete_blobs(served)
    served.pull(NAME)
    assert len(served.scripts.argvs) == 2
    assert served.nix.count("build") == 1


def test_script_without_room(served: Served) -> None:
    """A script may take as long as a slow client does, where nothing can be kept."""
    served.set(blobs_size=1)
    put_script(served, tar(ENTRIES))
    served.pull(NAME)
    assert served.get(url()).body == DATA
    assert served.scripts.limits[0] == 3600.0
    assert set(served.scripts.limits[1:]) == {86400.0}


def test_script_that_fails(served: Served) -> None:
    """A script that fails is told, and remembered, as a build that fails."""
    path = put_script(served, tar(ENTRIES)[:3000])
    served.scripts.parts[path] = Part(tar(ENTRIES)[:3000], [b"no memory"], Exit(1))
    for _ in range(2):
        answer = served.get(TAG, ANY_FORM)
        assert answer.status == 422
        assert f"streaming of {NAME}:latest failed" in answer.error[1]
        assert "no memory" in answer.error[1]
    assert len(served.scripts.argvs) == 1


def test_script_that_fails_later(served: Served) -> None:
    """A script that fails when a layer is to come back is told as a build that fails."""
    path = put_script(served, tar(ENTRIES))
    served.pull(NAME)
    delete_blobs(served)
    served.scripts.parts[path] = Part(tar(ENTRIES)[:600], [b"gone"], Exit(1))
    answer = served.get(url(digest_of(SMALL)))
    assert answer.status == 422 and "> gone" in answer.error[1]


def test_script_takes_a_slot(served: Served) -> None:
    """A script that is read has a build's place, and another build waits for it."""
    served.set(max_builds=1)
    put_script(served, tar(ENTRIES))
    served.readers.pause()
    first = pull(served, f"{NAME}:latest")
    second = pull(served)
    assert states(served) == [State.READING, State.QUEUED]
    served.readers.resume()
    assert first.called and second.called
    first.addErrback(lambda _: None)
    second.addErrback(lambda _: None)


@pytest.mark.parametrize("data", [tar(ENTRIES), tar(ENTRIES)[:9000]])
def test_script_that_does_not_end(served: Served, data: bytes) -> None:
    """A pull of what a script writes can be cancelled while that does not end."""
    put_script(served, data)
    served.scripts.pause()
    client = served.begin(TAG, ANY_FORM)
    assert client.silent
    client.hang_up()
    assert states(served) == [State.READING]
    served.scripts.resume()
    assert states(served)[0].is_over


def test_two_names_of_one_archive(served: Served) -> None:
    """A layer of two packages that have one archive comes back for both."""
    put(served, gz(tar(build_layered_image(RECIPE))))
    served.nix.packages["twin"] = served.nix.packages["big"]
    served.pull(NAME)
    served.pull("packages/twin")
    delete_blobs(served)
    served.readers.pause()
    clients = [
        served.begin(f"/v2/{name}/blobs/{DIGEST}") for name in (NAME, "packages/twin")
    ]
    served.readers.resume()
    assert [client.answer().body for client in clients] == [DATA] * 2


def test_script_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops reading a script that writes no more does not wait for its end."""
    monkeypatch.setattr(readahead, "CHUNK", 2**12)
    outlet = Outlet()
    with outlet.inlet() as inlet:
        os.write(inlet, b"garbage" * 2**10)
        with pytest.raises(ArchiveInvalid, match="not a tar archive"):
            scan_stream(
                outlet,
                Lost(9),
                2**30,
                "linux/amd64",
                lambda: False,
                outlet.abandon,
            )
    assert outlet.closed
