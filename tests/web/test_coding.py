"""Tests for `forgereg.web.coding`."""

from __future__ import annotations

import gzip
from http import HTTPStatus
from ipaddress import ip_network
from typing import cast

import pytest
from attrs import define
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyRequest

from forgereg.oci.reference import parse_digest
from forgereg.web.answer import refuse
from forgereg.web.coding import Codings, choose_coding, declare
from forgereg.web.guard import Clients
from forgereg.web.problem import problem
from tests.client import ask
from tests.registry import Served

CONTAINERD = "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"
NEAR, FAR = "192.168.1.2", "192.0.2.7"
TAR = b"\0" * 512
DIGEST = parse_digest(f"sha256:{'a' * 64}")


@pytest.mark.parametrize(
    ("offered", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        (CONTAINERD, "zstd"),
        ("gzip, zstd", "zstd"),
        ("gzip, zstd;q=0.9", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("deflate, br, compress", None),
        ("identity", None),
        ("*", "gzip"),
        ("*;q=0", None),
        ("zstd, *;q=0", "zstd"),
        ("gzip;q=0, *", None),
        ("gzip;q=0, zstd;q=0.001", "zstd"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("gzip;q=0.5, identity;q=0", "gzip"),
        ("identity;q=0", None),
        ("gzip ; q=0.5 , , x", "gzip"),
        ("gzip;q=1.5", None),
        ("gzip;q=nan", None),
        ("gz\xefp, \x00", None),
        ("x," * 10_000 + "gzip", None),
    ],
)
def test_choice(offered: str | None, coding: str | None) -> None:
    """A client is sent the coding that it likes best of those that it offers."""
    assert choose_coding(offered) == coding


@given(st.text('gzipstd*identy;q=0.159, "\\\t\xff'))
def test_any_offer(offered: str) -> None:
    """Whatever a client says, it is sent zstd only if it has named it."""
    coding = choose_coding(offered)
    assert coding in ("zstd", "gzip", None)
    assert coding != "zstd" or "zstd" in offered.lower()


@define
class Asked:
    """A request for a blob, from an address."""

    address: str = FAR
    method: bytes = b"GET"
    clientproto: bytes = b"HTTP/1.1"
    requestHeaders: Headers = Headers({"Accept-Encoding": [CONTAINERD]})  # noqa: N815

    def getClientAddress(self) -> IPv4Address:  # noqa: N802
        return IPv4Address("TCP", self.address, 40000)


@pytest.mark.parametrize(
    ("mode", "address", "coding"),
    [
        ("auto", FAR, "zstd"),
        ("auto", NEAR, None),
        ("always", FAR, "zstd"),
        ("always", NEAR, "zstd"),
        ("never", FAR, None),
        ("never", NEAR, None),
    ],
)
def test_mode(mode: str, address: str, coding: str | None) -> None:
    """The operator says whether layers are compressed, and for whom."""
    codings = Codings(Clients(fast=[ip_network("192.168.0.0/16")]), mode)
    assert codings.offered_by(Asked(address)) == coding


@pytest.mark.parametrize(
    "asked",
    [
        Asked(method=b"HEAD"),
        Asked(clientproto=b"HTTP/1.0"),
        Asked(requestHeaders=Headers({"Accept-Encoding": ["gzip"], "Range": ["x"]})),
        Asked(requestHeaders=Headers({})),
    ],
)
def test_plain(asked: Asked) -> None:
    """HEAD, ranges and old clients are answered with the plain bytes."""
    assert Codings(Clients(), "always").offered_by(asked) is None


def test_lines() -> None:
    """An offer in two lines is one offer."""
    asked = Asked(requestHeaders=Headers({"Accept-Encoding": ["gzip;q=0.5", "zstd"]}))
    assert Codings(Clients()).offered_by(asked) == "zstd"


@pytest.mark.parametrize("path", ["/", "/-/api/openapi.json", "/-/static/forge.css"])
def test_texts(running: Served, path: str) -> None:
    """Pages, their files and JSON are compressed for who can read that, and weakly named."""
    browser = ("Accept", "text/html")
    plain = ask(running.site, "GET", path, [browser])
    assert not plain["Content-Encoding"]
    for coding, decode in (("gzip", gzip.decompress), ("zstd", zstd.decompress)):
        answer = ask(running.site, "GET", path, [browser, ("Accept-Encoding", coding)])
        assert answer["Content-Encoding"] == coding
        for each in (plain, answer):
            assert "Accept-Encoding" in (each["Vary"] or "")
            assert (each["ETag"] or "W/").startswith("W/")
        assert len(answer.body) < len(plain.body)
        assert decode(answer.body) == plain.body


def test_short_text(running: Served) -> None:
    """What fits into a packet is sent as it is."""
    offered = [("Accept-Encoding", "gzip")]
    answer = ask(running.site, "GET", "/-/static/builds.js", offered)
    assert not answer["Content-Encoding"]


def test_what_is_said() -> None:
    """A client is told how it is sent a blob, and nothing of that with an error."""
    request = cast(Request, DummyRequest([]))
    declare(request, DIGEST, "zstd")
    assert dict(request.responseHeaders.getAllRawHeaders()) == {
        b"Content-Encoding": [b"zstd"],
        b"ETag": [f'W/"{DIGEST}"'.encode()],
    }
    refuse(request, problem(HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN", "it is gone"))
    assert not request.responseHeaders.hasHeader("Content-Encoding")
    assert not request.responseHeaders.hasHeader("ETag")
