"""Tests for `forgereg.web.guard`."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from attrs import frozen
from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
)
from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from forgereg.oci.errors import Forbidden
from forgereg.web.guard import Clients, Guard

TOKEN = "correct-horse"
HERE = "127.0.0.1"
THERE = "192.0.2.7"
LOCAL_HOST = ("Host", "localhost:6443")
BEARER = ("Authorization", f"Bearer {TOKEN}")


@frozen
class Asking:
    """A request, as far as it matters who sent it."""

    address: IAddress
    requestHeaders: Headers  # noqa: N815

    def getClientAddress(self) -> IAddress:  # noqa: N802
        return self.address


def asking(peer: str | IAddress, *headers: tuple[str, str]) -> Asking:
    """Make a request of a peer."""
    if isinstance(peer, str):
        kind = IPv6Address if ":" in peer else IPv4Address
        peer = kind("TCP", peer, 40000)
    sent = Headers()
    for name, value in headers:
        sent.addRawHeader(name, value)
    return Asking(peer, sent)


def forwarded(*lines: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", line) for line in lines]


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        (THERE, [], THERE),
        ("2001:db8::7", [], "2001:db8::7"),
        ("::ffff:192.0.2.7", [], THERE),
        (HERE, [], HERE),
        ("::1", [], "::1"),
        (HERE, [THERE], THERE),
        ("::1", [THERE], THERE),
        ("::ffff:127.0.0.1", [THERE], THERE),
        (HERE, ["10.0.0.1, 192.0.2.7"], THERE),
        (HERE, ["10.0.0.1", "10.0.0.2,192.0.2.7 "], THERE),
        (HERE, ["2001:DB8:0::7"], "2001:db8::7"),
        (HERE, ["192.0.2.7, unknown"], HERE),
        (HERE, ["192.0.2.7,"], HERE),
        (HERE, ["<script>"], HERE),
        (HERE, ["\xff"], HERE),
        (THERE, ["10.0.0.1"], THERE),
        (UNIXAddress("/run/forge.sock"), [], "local"),
        (UNIXAddress(None), [THERE], THERE),
        (HostnameAddress(b"host", 1), [], "local"),
    ],
)
def test_client(peer: str | IAddress, lines: list[str], client: str) -> None:
    """A client is known by its address, of which only a proxy here may tell."""
    assert Clients().name(asking(peer, *forwarded(*lines))) == client


@pytest.mark.parametrize(
    ("peer", "line", "client"),
    [
        ("10.0.0.2", "192.0.2.7", THERE),
        ("10.0.0.2", "198.51.100.1, 192.0.2.7", THERE),
        ("10.0.0.2", "198.51.100.1, 192.0.2.7, 10.0.0.3", THERE),
        ("10.0.0.2", "192.0.2.7, fd00::3, 10.0.0.3", THERE),
        ("10.0.0.2", "10.0.0.9, 10.0.0.3", "10.0.0.9"),
        ("10.0.0.2", "192.0.2.7, unknown, 10.0.0.3", "10.0.0.3"),
        ("10.0.0.2", "192.0.2.7:4711", "10.0.0.2"),
        ("10.0.0.2", "fe80::1%<script>", "fe80::1"),
        (HERE, "192.0.2.7", HERE),
        (THERE, "198.51.100.1", THERE),
        (UNIXAddress(None), "192.0.2.7, 10.0.0.3", THERE),
    ],
)
def test_client_of_proxies(peer: str | IAddress, line: str, client: str) -> None:
    """A client is found behind the proxies that the operator trusts, and no others."""
    clients = Clients([ip_network("10.0.0.0/24"), ip_network("fd00::/64")])
    assert clients.name(asking(peer, ("X-Forwarded-For", line))) == client


@pytest.mark.parametrize(
    ("peer", "lines", "is_near"),
    [
        ("192.168.1.2", [], True),
        ("::ffff:192.168.1.2", [], True),
        ("fd00::1", [], True),
        (THERE, [], False),
        (THERE, ["192.168.1.2"], False),
        (HERE, ["192.168.1.2"], True),
        (HERE, [THERE], False),
        (UNIXAddress(None), [], True),
        (UNIXAddress(None), [THERE], False),
    ],
)
def test_near(peer: str | IAddress, lines: list[str], is_near: bool) -> None:
    """A client is near if it, and not only its proxy, is in a fast network."""
    clients = Clients(fast=[ip_network("192.168.0.0/16"), ip_network("fd00::/8")])
    assert clients.is_near(asking(peer, *forwarded(*lines))) is is_near


@pytest.mark.parametrize("peer", [HERE, "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:6443", "127.0.0.1:80", "127.1.2.3", "[::1]:6443"]
)
def test_this_machine(peer: str, host: str) -> None:
    """Who asks on this machine may change something."""
    Guard().check(asking(peer, ("Host", host)))
    Guard(TOKEN).check(asking(peer, ("Host", host)))


@pytest.mark.parametrize(
    "headers",
    [
        [("Origin", "http://localhost:6443")],
        [("Origin", "https://LocalHost:6443"), ("Sec-Fetch-Site", "same-origin")],
        [("Sec-Fetch-Site", "none")],
    ],
)
def test_own_pages(headers: list[tuple[str, str]]) -> None:
    """A browser may change something where the registry's own page has it do so."""
    Guard().check(asking(HERE, LOCAL_HOST, *headers))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("Forwarded", "for=192.0.2.7")], "through a proxy (Forwarded)"),
        ([("X-Forwarded-For", "127.0.0.1")], "through a proxy (X-Forwarded-For)"),
        ([("x-forwarded-proto", "http")], "through a proxy"),
        ([("X-Real-IP", "127.0.0.1")], "through a proxy"),
        ([("Via", "1.1 proxy")], "through a proxy"),
        ([("Origin", "http://evil.example")], "another site's page"),
        ([("Origin", "http://localhost:3000")], "another site's page"),
        ([("Origin", "http://127.0.0.1:6443")], "another site's page"),
        ([("Origin", "null")], "another site's page"),
        ([("Origin", "http://localhost:6443"), ("Origin", "x")], "another site's page"),
        ([("Sec-Fetch-Site", "cross-site")], "another site's page"),
        ([("Sec-Fetch-Site", "same-site")], "another site's page"),
        ([("Authorization", "Bearer ")], "'Authorization' is not"),
        ([("Authorization", "Bearer wrong")], "'Authorization' is not"),
        ([("Authorization", f"Bearer {TOKEN}x")], "'Authorization' is not"),
        ([("Authorization", f"Basic {TOKEN}")], "'Authorization' is not"),
        ([("Authorization", TOKEN)], "'Authorization' is not"),
        ([("Authorization", "Bearer \xff")], "'Authorization' is not"),
        ([BEARER, ("Authorization", "Bearer wrong")], "'Authorization' is not"),
    ],
)
def test_others_through_this_machine(
    headers: list[tuple[str, str]], reason: str
) -> None:
    """Nobody changes something by way of a proxy or a browser on this machine."""
    request = asking(HERE, LOCAL_HOST, *headers)
    with pytest.raises(Forbidden) as refused:
        Guard(TOKEN).check(request)
    assert reason in refused.value.detail
    assert "FORGE_ADMIN_TOKEN_FILE" in refused.value.detail
    assert TOKEN not in refused.value.detail


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["evil.example"],
        ["evil.example:6443"],
        ["localhost.evil.example"],
        ["127.0.0.1.evil.example"],
        ["192.0.2.1:6443"],
        ["localhost:x"],
        ["user@localhost"],
        ["localhost\u00a0"],
        ["localhost", "evil.example"],
    ],
)
def test_rebinding(hosts: list[str]) -> None:
    """A site that has its name mean this machine changes nothing."""
    request = asking(HERE, *[("Host", host) for host in hosts])
    with pytest.raises(Forbidden, match="'Host' does not name this machine"):
        Guard().check(request)


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (THERE, "only this machine may"),
        ("2001:db8::7", "only this machine may"),
        (UNIXAddress("/run/x"), "a Unix socket does not tell who asks"),
    ],
)
def test_elsewhere(peer: str | IAddress, reason: str) -> None:
    """Who asks from elsewhere is told to ask here or to show the token."""
    with pytest.raises(Forbidden, match=f"{reason}.*: Bearer"):
        Guard(TOKEN).check(asking(peer, LOCAL_HOST))


@pytest.mark.parametrize("peer", [HERE, THERE, UNIXAddress("/run/forge.sock")])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "forge.example.org"), ("Via", "1.1 proxy")],
        [("Origin", "http://elsewhere.example"), ("Sec-Fetch-Site", "cross-site")],
    ],
)
def test_token(peer: str | IAddress, headers: list[tuple[str, str]]) -> None:
    """Who shows the token may change something, from anywhere."""
    Guard(TOKEN).check(asking(peer, BEARER, *headers))
    shouted = ("authorization", f"bEARER  {TOKEN}")
    Guard(TOKEN).check(asking(peer, shouted, *headers))


def test_proxy_protocol() -> None:
    """Who only says in the PROXY protocol that it is here has to show the token."""
    guard = Guard(TOKEN, is_told=True)
    with pytest.raises(Forbidden, match="does not prove who asks: show the token"):
        guard.check(asking(HERE, LOCAL_HOST))
    guard.check(asking(HERE, LOCAL_HOST, BEARER))


@pytest.mark.parametrize("token", [None, ""])
@pytest.mark.parametrize("shown", ["Bearer", "Bearer ", "Bearer None", ""])
def test_no_token(token: str | None, shown: str) -> None:
    """Where there is no token none is right, and least of all an empty one."""
    for peer in (HERE, THERE):
        with pytest.raises(Forbidden, match="there is no token here"):
            request = asking(peer, LOCAL_HOST, ("Authorization", shown))
            Guard(token).check(request)


def test_new_token() -> None:
    """A token that is replaced opens nothing any more."""
    guard = Guard("old")
    guard.token = "grün"
    with pytest.raises(Forbidden):
        guard.check(asking(THERE, ("Authorization", "Bearer old")))
    request = asking(THERE)
    request.requestHeaders.addRawHeader(b"Authorization", "Bearer grün".encode())
    guard.check(request)


def test_secrecy() -> None:
    """The token is in no log, even if the guard is."""
    assert TOKEN not in repr(Guard(TOKEN))
