"""
Say where the registry listens, as one would type it. Pure.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress

from forgereg.endpoint import parse_endpoint

_OVER_TLS = ("ssl", "tls")


def shown_address(here: IAddress, endpoint: str) -> str:
    """
    Write an address.

    :param here: what a port is bound to.
    :param endpoint: Twisted's endpoint string that it was opened with.
    """
    host, port = getattr(here, "host", None), getattr(here, "port", None)
    if host is None or port is None:
        return endpoint
    scheme = "https" if parse_endpoint(endpoint).kind in _OVER_TLS else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
