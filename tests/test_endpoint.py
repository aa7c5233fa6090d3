"""Tests for `forgereg.endpoint`: endpoint strings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forgereg.endpoint import parse_endpoint


@given(st.ip_addresses(), st.integers(1, 65535))
def test_addresses(address: object, port: int) -> None:
    """An endpoint is read as the settings write it."""
    host = str(address).replace(":", r"\:")
    endpoint = parse_endpoint(f"tcp:{port}:interface={host}:backlog=1024")
    assert (endpoint.host, endpoint.port) == (str(address), port)


@given(st.text())
def test_any_endpoint(text: str) -> None:
    """Whatever is set, reading it as an endpoint is no trouble."""
    assert 0 <= parse_endpoint(text).port <= 99_999
