"""
Say who is asking, and whether they may change something.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from forgereg.oci.errors import Forbidden

_Address = IPv4Address | IPv6Address
_Networks = Sequence[IPv4Network | IPv6Network]

#: How the access log names who shows the token.
ADMIN = "admin"

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))

#: What reverse proxies add; so is everything that begins with X-Forwarded-.
_FORWARDING = {b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip"}
_OURSELVES = re.compile(rb"(?i:localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]*)?")
_OWN_PAGE = (b"same-origin", b"none")

_SHOWN = "show the token in FORGE_ADMIN_TOKEN_FILE as 'Authorization: Bearer <token>'"
_SHOW_TOKEN = f"; or {_SHOWN}"
_OTHER_SITE = f"another site's page asked for this: ask by yourself{_SHOW_TOKEN}"


class Asked(Protocol):
    """What is looked at of a request."""

    @property
    def requestHeaders(self) -> Headers: ...  # noqa: N802

    def getClientAddress(self) -> IAddress: ...  # noqa: N802


@define
class Clients:
    """
    Knows clients by their addresses, also those behind reverse proxies.

    :ivar proxies: whose ``X-Forwarded-For`` is believed; who comes over a Unix socket
        is believed, too.
    :ivar fast: to which bytes cost less than compressing them.
    """

    proxies: _Networks = _LOOPBACK
    fast: _Networks = ()

    def name(self, request: Asked) -> str:
        """Name the client, so that many can be treated fairly: its address."""
        return str(self._find(request) or "local")

    def is_near(self, request: Asked) -> bool:
        """Say whether the client is in a fast network, or on this machine."""
        address = self._find(request)
        return address is None or _is_in(address, self.fast)

    def told_by_proxy(self, request: Asked, name: str) -> str | None:
        """Give what a proxy that is believed says of a request, in a header."""
        peer = _peer(request)
        # As text Twisted gives up on what is not UTF-8.
        lines = request.requestHeaders.getRawHeaders(name.encode(), [])
        if not lines or not (peer is None or _is_in(peer, self.proxies)):
            return None
        # Each proxy adds what it knows; the others may be the client's own words.
        return b",".join(lines).decode("latin-1").rpartition(",")[2].strip()

    def _find(self, request: Asked) -> _Address | None:
        """Give the client's address; None for what comes over a Unix socket."""
        found = _peer(request)
        lines = request.requestHeaders.getRawHeaders(b"x-forwarded-for", [])
        entries = b",".join(lines).decode("latin-1").split(",")
        # Each proxy adds whom it heard; what is left of the first that is nobody's
        # proxy are the client's own words.
        while entries and (found is None or _is_in(found, self.proxies)):
            before = _address(entries.pop().strip())
            if before is None:
                break
            found = before
        return found


@define
class Guard:
    """
    Keeps what changes something for this machine, and for who shows the token.

    Being on this machine is not enough for what may come from elsewhere all the same:
    through a proxy, or from a page of another site that somebody's browser shows here.

    :ivar token: the administrator's; None for none.
    :ivar has_session: whether who asks has shown the token before, in a browser.
    :ivar is_told: whether addresses are what somebody says before the request, in the
        PROXY protocol: then none is a reason to let anyone change something.
    """

    token: str | None = field(default=None, repr=False)
    is_told: bool = False
    has_session: Callable[[Any], bool] = lambda _: False

    def check(self, request: Asked) -> None:
        """
        Do nothing if the request may change something.

        :raises Forbidden: it may not; the text says what to do.
        """
        objection = self._objection(request)
        if objection is not None:
            raise Forbidden(objection)

    def allows(self, request: Asked) -> bool:
        """Say whether the request may change something."""
        return self._objection(request) is None

    def is_shown_token(self, request: Asked) -> bool:
        """Say whether the request shows the administrator's token."""
        shown = request.requestHeaders.getRawHeaders(b"authorization")
        return shown is not None and self._objection_to_token(shown) is None

    def _objection(self, request: Asked) -> str | None:
        shown = request.requestHeaders.getRawHeaders(b"authorization")
        if shown is not None:
            return self._objection_to_token(shown)
        if self.has_session(request):
            return None if is_own_page(request) else _OTHER_SITE
        if self.is_told:
            return f"the PROXY protocol does not prove who asks: {_SHOWN}"
        peer = _peer(request)
        if peer is None:
            return f"a Unix socket does not tell who asks: ask localhost{_SHOW_TOKEN}"
        if not peer.is_loopback:
            return f"only this machine may change something: ask on it{_SHOW_TOKEN}"
        return _objection_to_headers(request.requestHeaders)

    def _objection_to_token(self, shown: Sequence[bytes]) -> str | None:
        if not self.token:
            return (
                "there is no token here: set FORGE_ADMIN_TOKEN_FILE, or ask on this"
                " machine without 'Authorization'"
            )
        scheme, _, given = shown[0].partition(b" ")
        right = hmac.compare_digest(given.strip(), self.token.encode())
        if right and scheme.lower() == b"bearer" and len(shown) == 1:
            return None
        return "'Authorization' is not 'Bearer' and the token in FORGE_ADMIN_TOKEN_FILE"


def _objection_to_headers(headers: Headers) -> str | None:
    """Say why a request from this machine may be somebody else's."""
    for name, _ in headers.getAllRawHeaders():
        if name.lower() in _FORWARDING or name.lower().startswith(b"x-forwarded-"):
            return (
                f"this came through a proxy ({name.decode('latin-1')}): ask the"
                f" registry itself, on its machine{_SHOW_TOKEN}"
            )
    # A site can have its name mean 127.0.0.1: DNS rebinding.
    hosts = headers.getRawHeaders(b"host", [])
    if len(hosts) != 1 or not _OURSELVES.fullmatch(hosts[0]):
        return f"'Host' does not name this machine: ask localhost{_SHOW_TOKEN}"
    # A page of any site can have a browser send requests: CSRF.
    ours = _origins(hosts)
    origins = headers.getRawHeaders(b"origin", [])
    is_ours = all(each.lower() in ours for each in origins)
    return None if is_ours and _is_own_site(headers) else _OTHER_SITE


def is_own_page(request: Asked) -> bool:
    """
    Say whether a browser asks for a page of ours, or for who sits before it.

    Whatever proxy lies between: what the browser says of the site itself comes before
    the names of hosts, which a proxy may have changed.
    """
    headers = request.requestHeaders
    if headers.hasHeader(b"sec-fetch-site"):
        return _is_own_site(headers)
    ours = _origins(headers.getRawHeaders(b"host", []))
    ours += _origins(headers.getRawHeaders(b"x-forwarded-host", []))
    return all(each.lower() in ours for each in headers.getRawHeaders(b"origin", []))


def _is_own_site(headers: Headers) -> bool:
    sites = headers.getRawHeaders(b"sec-fetch-site", [])
    return all(each.lower() in _OWN_PAGE for each in sites)


def _origins(hosts: Sequence[bytes]) -> list[bytes]:
    schemes = (b"http://", b"https://")
    return [scheme + host.lower() for scheme in schemes for host in hosts]


def _peer(request: Asked) -> _Address | None:
    """Give the other end's address; None where it has none, as on a Unix socket."""
    host = getattr(request.getClientAddress(), "host", None)
    return _address(host) if isinstance(host, str) else None


def _is_in(address: _Address, networks: _Networks) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> _Address | None:
    try:
        # Without its zone, which may be any text.
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # As a socket for both families has IPv4.
    return getattr(address, "ipv4_mapped", None) or address
