"""Tests for `forgereg.blobs.encoder`."""

from __future__ import annotations

import gzip

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from forgereg.blobs.encoder import Encoder

DECODE = {"gzip": gzip.decompress, "zstd": zstd.decompress}
CODINGS = sorted(DECODE)


def encode(coding: str, pieces: list[bytes]) -> bytes:
    """Encode a blob that comes in pieces."""
    encoder = Encoder(coding)
    return b"".join([*map(encoder.encode, pieces), encoder.finish()])


@given(st.sampled_from(CODINGS), st.lists(st.binary()))
def test_decoding(coding: str, pieces: list[bytes]) -> None:
    """What a client decodes is the blob, whatever pieces it came in."""
    assert DECODE[coding](encode(coding, pieces)) == b"".join(pieces)


@pytest.mark.parametrize("coding", CODINGS)
def test_same_bytes(coding: str) -> None:
    """A blob that is encoded again is the same, so that its length can be told."""
    pieces = [bytes([i]) * 1000 for i in range(256)]
    assert encode(coding, pieces) == encode(coding, pieces)
    assert len(encode(coding, pieces)) < 256_000 / 10


@pytest.mark.parametrize("coding", CODINGS)
def test_on_its_way(coding: str) -> None:
    """Compressed bytes leave while more come in, so that little has to be held."""
    encoder = Encoder(coding)
    noise = b"".join(i.to_bytes(3, "big") for i in range(2**20))
    assert encoder.encode(noise)


def test_unknown() -> None:
    """There are no other codings."""
    with pytest.raises(KeyError):
        Encoder("br")
