"""What `forgereg.archive.sniff` takes bytes for."""

from __future__ import annotations

import bz2
import lzma
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from tests.archives import Entry, gz, tar, zst

#: What pzstd writes first. Source: RFC 8878, section 3.1.2.
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"

ENTRIES = [Entry("hello", b"hello")]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Kind.EMPTY),
        (gz(b"hello"), Kind.GZIP),
        (gz(b""), Kind.GZIP),
        (zst(b"hello"), Kind.ZSTD),
        (SKIPPABLE + zst(b"hello"), Kind.ZSTD),
        (lzma.compress(b"hello"), Kind.XZ),
        (bz2.compress(b"hello"), Kind.OTHER),
        (tar(ENTRIES, tarfile.PAX_FORMAT), Kind.TAR),
        (tar(ENTRIES, tarfile.GNU_FORMAT), Kind.TAR),
        (tar(ENTRIES, tarfile.USTAR_FORMAT), Kind.TAR),
        (tar([Entry("{odd}", b"")]), Kind.TAR),
        (tar([Entry("n" * 300, b"")]), Kind.TAR),
        (b"{}", Kind.JSON),
        (b"[]", Kind.JSON),
        (b" \r\n\t[1]", Kind.JSON),
        (b" " * 511 + b"{}", Kind.JSON),
        (b'"text"', Kind.OTHER),
        (b"#!/bin/sh\n", Kind.SCRIPT),
        (b"#!", Kind.SCRIPT),
        (b"\x7fELF\x02\x01\x01", Kind.PROGRAM),
        (b"\xef\xbb\xbf{}", Kind.OTHER),
        (b"\x1f", Kind.OTHER),
        (b"\x28\xb5\x2f", Kind.OTHER),
        (b"#", Kind.OTHER),
        (b" ", Kind.OTHER),
        (b"PK\x03\x04", Kind.OTHER),
        (bytes(HEAD_BYTES), Kind.OTHER),
        (b"hello", Kind.OTHER),
    ],
)
def test_kind_is_told_by_the_first_bytes(data: bytes, kind: Kind) -> None:
    """A file is what its bytes say, whatever its name may be."""
    assert sniff(data[:HEAD_BYTES]) is kind


@given(st.binary(max_size=HEAD_BYTES))
def test_any_bytes_are_of_some_kind(head: bytes) -> None:
    """No bytes confuse the registry, and only no bytes are an empty file."""
    assert (sniff(head) is Kind.EMPTY) == (head == b"")
