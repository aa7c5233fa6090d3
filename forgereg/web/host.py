"""
What a client calls the registry, as references to images have it, and whether in TLS.
"""

from __future__ import annotations

import re

from twisted.web.server import Request

from forgereg.oci.errors import RegistryError, RequestInvalid
from forgereg.oci.reference import shown
from forgereg.web.guard import Clients
from forgereg.web.problem import Problem, describe

#: What a reference to an image can begin with.
#: Source: distribution, reference/regexp.go, DomainRegexp.
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(
    rf"(?P<host>{_LABEL}(\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?P<port>:[0-9]{{1,5}})?"
)
_MAX_HOST = 255


def host_of(request: Request, clients: Clients) -> str:
    """
    Say what the client calls the registry, as references to images have it.

    :param clients: knows which proxies are believed.
    :raises RequestInvalid: no image could be pulled from what it says.
    """
    lines = request.requestHeaders.getRawHeaders(b"host", [])
    said = lines[0].decode("latin-1").strip() if len(lines) == 1 else ""
    said = clients.told_by_proxy(request, "x-forwarded-host") or said
    match = _HOST.fullmatch(said) if len(said) <= _MAX_HOST else None
    if match is None:
        raise RequestInvalid(
            f"'Host' is {shown(said)}, which no image can be pulled from"
        )
    host, port = match["host"].lower(), match["port"] or ""
    # Clients take a first word for a host only if it looks like one.
    if not port and "." not in host and host != "localhost":
        port = ":443" if is_secure(request, clients) else ":80"
    return host + port


def is_secure(request: Request, clients: Clients) -> bool:
    """Say whether the client speaks TLS, to the registry or to a proxy of its own."""
    scheme = clients.told_by_proxy(request, "x-forwarded-proto")
    return scheme == "https" if scheme else request.isSecure()


def describe_to(request: Request, clients: Clients, error: RegistryError) -> Problem:
    """Write an error down for who asked, with the page of the build that it is about."""
    if error.build_id is None:
        return describe(error)
    page = f"/-/builds/{error.build_id}"
    try:
        scheme = "https" if is_secure(request, clients) else "http"
        return describe(error, f"{scheme}://{host_of(request, clients)}{page}")
    except RequestInvalid:
        return describe(error, page)
