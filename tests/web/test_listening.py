"""Tests for `forgereg.web.listening`."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from forgereg.web.listening import shown_address


@pytest.mark.parametrize(
    ("here", "endpoint", "address"),
    [
        (IPv4Address("TCP", "127.0.0.1", 7300), "tcp:7300", "http://127.0.0.1:7300"),
        (IPv4Address("TCP", "0.0.0.0", 443), "ssl:443:a=b", "https://0.0.0.0:443"),
        (IPv6Address("TCP", "::1", 80), "systemd:index=0", "http://[::1]:80"),
        (UNIXAddress("/run/registry"), "unix:/run/registry", "unix:/run/registry"),
    ],
)
def test_address(here: IAddress, endpoint: str, address: str) -> None:
    """The log says where the registry is in a way that a browser takes."""
    assert shown_address(here, endpoint) == address
