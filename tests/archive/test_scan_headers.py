"""
How `forgereg.archive.scan` refuses tar headers that no honest archive has.

`refused` checks, each time, that nothing is left on the disk and no thread goes on.
"""

from __future__ import annotations

import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.archive import tar as headers
from tests.archive.headers import FILLER, extended, header, record, sparse
from tests.archive.reading import (
    ARCHIVE,
    ENTRIES,
    FOUND,
    A,
    read,
    read_or_refuse,
    refused,
)
from tests.archives import (
    PACKS,
    Entry,
    Pack,
    gz,
    symlink,
    tar,
    zst,
)

packs = pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())


@pytest.mark.parametrize(
    "archive",
    [
        header("long", tarfile.GNUTYPE_LONGNAME, 2**20, b"n" * 2**20) + ARCHIVE,
        header("long", tarfile.GNUTYPE_LONGLINK, 2**20, b"n" * 2**20) + ARCHIVE,
        header("long", tarfile.GNUTYPE_LONGNAME, 2**60) + ARCHIVE,
        extended(record(b"path", b"n" * 2**20)) + ARCHIVE,
        extended(record(b"path", b"n" * 2**20), tarfile.XGLTYPE) + ARCHIVE,
        header("pax", tarfile.XHDTYPE, 100 * 10**9) + ARCHIVE,
        header("pax", tarfile.SOLARIS_XHDTYPE, 2**80) + ARCHIVE,
        header("long", tarfile.GNUTYPE_LONGNAME, 100, b"n" * 100) * 1000 + ARCHIVE,
        header("pax", tarfile.XHDTYPE, 9, record(b"a", b"b")) * 1000 + ARCHIVE,
        header("pax", tarfile.XGLTYPE, 9, record(b"a", b"b")) * 1000 + ARCHIVE,
    ],
    ids=range(10),
)
def test_headers_that_are_too_long(archive: bytes) -> None:
    """Names and extended headers of megabytes, or without end, are refused."""
    assert "header that is too long" in refused(archive)


_NEGATIVE = -(2**40)


@pytest.mark.parametrize(
    "type",
    [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *b"xgX"],
    ids=["longname", "longlink", "extended", "global", "solaris"],
)
def test_negative_length_does_not_buy_room_for_long_headers(type: bytes | int) -> None:
    """A header of negative length does not lift the bound on the headers after it."""
    kind = type if isinstance(type, bytes) else bytes([type])
    credit = header("credit", kind, _NEGATIVE)
    huge = extended(record(b"comment", b"z" * 2**20))
    refused(credit + huge + ARCHIVE)


@pytest.mark.parametrize("size", [-1, -512, -513, -(2**20), _NEGATIVE, -(2**80)])
@pytest.mark.parametrize("type", [tarfile.REGTYPE, b"Z", tarfile.LNKTYPE, b"S"])
def test_member_of_negative_size(type: bytes, size: int) -> None:
    """A member of negative size is refused, or does not matter."""
    odd = header("odd", type, size, b"x" * 512)
    for archive in (odd + ARCHIVE, ARCHIVE[:1024] + odd + ARCHIVE, FILLER * 9 + odd):
        assert read_or_refuse(archive) in (None, FOUND)


@pytest.mark.parametrize(
    "data",
    [
        record(b"size", b"-1"),
        record(b"size", b"1_0"),
        record(b"size", b"9" * 4000),
        record(b"size", b"9" * 5000),
        record(b"size", b"x"),
        record(b"path", b""),
        record(b"path", b"\xff\xfe"),
        record(b"path", b"a\0b"),
        record(b"path", b"manifest.json"),
        record(b"linkpath", b"x" * 999),
        record(b"mtime", b"nan"),
        record(b"uid", b"-1"),
        record(b"hdrcharset", b"BINARY") + record(b"path", b"\xff"),
        record(b"hdrcharset", b"\xff"),
        record(b"GNU.sparse.realsize", b"-7"),
        record(b"GNU.sparse.size", b"x"),
        record(b"GNU.sparse.name", b"manifest.json"),
        record(b"GNU.sparse.realsize", b"9" * 300),
        b"0 a=b\n",
        b"99999 a=b\n",
        b"9" * 30 + b" a=b\n",
        b"9" * 5000 + b" a=b\n",
        b"garbage",
        b"2 " * 500 + b"=",
    ],
    ids=range(24),
)
def test_odd_extended_header(data: bytes) -> None:
    """An extended header that says odd things is refused, or does not matter."""
    for type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
        for archive in (extended(data, type) + ARCHIVE, FILLER + extended(data, type)):
            assert read_or_refuse(archive) in (None, FOUND)


@pytest.mark.parametrize(
    "archive",
    [
        sparse(more=0),
        sparse(more=1) + bytes(512),
        extended(record(b"GNU.sparse.map", b"0,1")),
        extended(record(b"GNU.sparse.size", b"9") + record(b"GNU.sparse.offset", b"1")),
        header(
            "pax",
            tarfile.XHDTYPE,
            52,
            record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0"),
        )
        + header("sparse", tarfile.REGTYPE, 512, b"1\n0\n1\n"),
    ],
    ids=["old", "old-more", "0.1", "0.0", "1.0"],
)
def test_sparse_members(archive: bytes) -> None:
    """Files with holes in them are refused, in every format that tar has for them."""
    assert "sparse" in refused(archive + ARCHIVE)


def test_sparse_member_without_end() -> None:
    """A sparse file whose map has no end is refused."""
    endless = bytearray(512)
    endless[504] = 1
    assert "too long" in refused(sparse(more=1) + bytes(endless) * 1000 + ARCHIVE)


@packs
@pytest.mark.parametrize("rest", [0, 1, 100, 511])
def test_sparse_member_that_was_cut(rest: int, pack: Pack) -> None:
    """An archive that ends in the middle of a sparse file's map is refused."""
    refused(pack(sparse(more=1) + bytes(rest)))
    refused(pack(FILLER + sparse(more=1) + bytes(rest)))


def test_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of too many members is given up, whatever they are."""
    monkeypatch.setattr(headers, "_MAX_MEMBERS", 100)
    few = header("odd", tarfile.DIRTYPE, 0) * 50
    assert read(few + ARCHIVE) == FOUND
    for type in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, b"Z"):
        many = header("odd", type, 0) * 101
        assert "too many members" in refused(many + ARCHIVE)


def test_names_that_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many members of long names are given up."""
    monkeypatch.setattr(headers, "_MAX_NAMES", 100_000)
    long = [Entry(f"{n}{'n' * 5000}") for n in range(15)]
    assert read(tar([*long, *ENTRIES])) == FOUND
    assert "too many members" in refused(tar([*long, *long, *ENTRIES]))
    links = [symlink("l", "t" * 5000)] * 30
    assert "too many members" in refused(tar([*links, *ENTRIES]))


def test_header_of_digits_takes_no_longer_than_others() -> None:
    """A header that is made to confuse the reader of headers costs no time."""
    assert "makes no sense" in refused(extended(b"1" * 15_000) + ARCHIVE)


def test_global_headers_do_not_add_up() -> None:
    """Many global headers neither fill the memory nor slow what follows."""
    odd = b"".join(
        extended(
            b"".join(record(b"%d" % (n * 1000 + m), b"") for m in range(1000)),
            tarfile.XGLTYPE,
        )
        for n in range(50)
    )
    start = time.process_time()
    read_or_refuse(odd + FILLER * 2000 + ARCHIVE)
    # Else some 13 s.
    assert time.process_time() - start < 6


_types = st.one_of(
    st.sampled_from([bytes([b]) for b in b"\x000123456789LKSxgXVMNADZ"]),
    st.binary(min_size=1, max_size=1),
)
_sizes = st.one_of(
    st.integers(0, 3000),
    st.integers(-(2**80), 2**80),
    st.sampled_from(
        [b"", b"\0" * 12, b" " * 12, b"777777777777", b"-0000000001\0"]
    ).map(lambda field: field.ljust(12, b"\0")),
    st.binary(min_size=12, max_size=12),
)
_records = st.lists(
    st.builds(
        record,
        st.sampled_from(
            [
                b"path",
                b"linkpath",
                b"size",
                b"mtime",
                b"hdrcharset",
                b"GNU.sparse.map",
                b"GNU.sparse.size",
                b"GNU.sparse.major",
                b"GNU.sparse.minor",
                b"GNU.sparse.realsize",
                b"GNU.sparse.numbytes",
            ]
        ),
        st.one_of(
            st.integers(-5, 5000).map(lambda n: b"%d" % n), st.binary(max_size=9)
        ),
    ),
    max_size=4,
).map(b"".join)
_contents = st.one_of(
    st.binary(max_size=600),
    _records,
    st.sampled_from([b"[]", b"{}", gz(b"x"), zst(b"x"), gz(b"x")[:-1], A.blob]),
)
_names = st.sampled_from(
    ["manifest.json", "x", "../x", "/", "x/", ENTRIES[0].name, ENTRIES[-2].name]
)
_tails = st.one_of(st.just(b""), st.binary(min_size=126, max_size=126))
_members = st.builds(header, _names, _types, _sizes, _contents, _tails)


@settings(max_examples=150)
@given(
    st.lists(st.one_of(_members, st.just(FILLER)), min_size=1, max_size=4),
    st.sampled_from(sorted(PACKS)),
    st.sampled_from(["first", "last", "cut"]),
)
def test_members_of_any_kind(odd: list[bytes], pack: str, where: str) -> None:
    """Whatever headers an archive has, it is refused or its blobs are whole."""
    members = b"".join(odd)
    manifest = ARCHIVE.rindex(b"manifest.json")
    archive = {
        "first": members + ARCHIVE,
        "last": ARCHIVE[:manifest] + members + ARCHIVE[manifest:],
        "cut": members[:-100],
    }
    read_or_refuse(PACKS[pack](archive[where]))
