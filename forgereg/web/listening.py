"""
Say where the registry listens, as one would type it. Pure.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress

_OVER_TLS = ("ssl:", "tls:", "haproxy:ssl:", "haproxy:tls:")


def shown_address(here: IAddress, endpoint: str) -> str:
    """
    Write an address.

    :param here: what a port is bound to.
    :param endpoint: Twisted's endpoint string that it was opened with.
    """
    host, port = getattr(here, "host", None), getattr(here, "port", None)
    if host is None or port is None:
        return endpoint
    scheme = "https" if endpoint.startswith(_OVER_TLS) else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
