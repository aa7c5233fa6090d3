"""Tests for `forgereg.web.manifests`: early answers for images that we did not write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forgereg.oci.media import OCI_INDEX, OCI_MANIFEST
from tests.archives import Layout, Recipe, gz, layer, tar
from tests.client import Connection, Headers
from tests.flow.packing import ENTRIES, NAME, put, put_folder
from tests.registry import TTL_SECONDS, Served, digest_of

TAG = f"/v2/{NAME}/manifests/latest"
CONTAINERD: Headers = [("Accept", f"{OCI_INDEX}, {OCI_MANIFEST}, */*")]


@pytest.fixture(autouse=True)
def _patient(served: Served) -> None:
    served.set(nix_build_timeout=86400.0)


def several(text: str) -> Layout:
    layout = Layout()
    child = layout.image(
        Recipe((layer(text),)), platform={"os": "linux", "architecture": "amd64"}
    )
    layout.heads.append(layout.index(child, child))
    return layout


def push(served: Served, text: str) -> bytes:
    """Have the flake build another index from now on; give its bytes."""
    served.nix.push()
    layout = several(text)
    put_folder(served, layout.entries(), text)
    served.clock.advance(TTL_SECONDS)
    digest = layout.heads[0]["digest"]
    return next(e.data for e in layout.blobs.values() if digest_of(e.data) == digest)


@pytest.fixture
def built(served: Served) -> Iterator[Served]:
    """A registry that has built an index before, and builds another slowly."""
    push(served, "first")
    assert served.get(TAG, CONTAINERD)["Content-Type"] == OCI_INDEX
    yield served


def begin(served: Served, method: str = "GET") -> Connection:
    """Have a client wait for longer than it bears to without an answer."""
    served.nix.pause()
    connection = served.connect()
    connection.ask(method, TAG, CONTAINERD)
    served.clock.pump([1.0] * 600)
    return connection


def test_silent_body(built: Served) -> None:
    """A body that cannot be padded is waited for in silence, under its right type."""
    body = push(built, "second")
    client = begin(built)
    early = client.begun()
    assert (early.status, early["Content-Type"], early.body) == (200, OCI_INDEX, b"")
    built.nix.finish()
    assert client.answer().body == body


def test_early_head(built: Served) -> None:
    """A client that asks what there will be is told the kind of what there was."""
    push(built, "second")
    client = begin(built, "HEAD")
    answer = client.answer()
    assert (answer.status, answer["Content-Type"]) == (200, OCI_INDEX)
    assert answer["Docker-Content-Digest"] is None
    built.nix.finish()


@pytest.mark.parametrize("is_index_first", [True, False])
def test_another_kind(served: Served, is_index_first: bool) -> None:
    """Who was told another kind than it turns out to be is told to pull again."""
    archive = gz(tar(ENTRIES))
    if is_index_first:
        push(served, "first")
        served.get(TAG, CONTAINERD)
        served.nix.push()
        put(served, archive)
        served.clock.advance(TTL_SECONDS)
    else:
        put(served, archive)
        served.get(TAG, CONTAINERD)
        push(served, "second")
    client = begin(served)
    served.nix.finish()
    answer = client.answer()
    assert "pull again" in answer.body.decode()
    again = served.get(TAG, CONTAINERD)
    assert again.status == 200
    assert again["Content-Type"] == (OCI_MANIFEST if is_index_first else OCI_INDEX)
