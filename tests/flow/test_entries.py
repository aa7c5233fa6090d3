"""Tests for `forgereg.flow.entries`; what becomes of entries is in `test_catalogue`."""

from __future__ import annotations

import pytest

from forgereg.flow.entries import is_link


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.org/x?y", True),
        ("http://[::1]/", True),
        ("HTTPS://example.org", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//example.org", False),
        ("https://", False),
        ("https://[", False),
        ("https://evil.example\\@example.org/", False),
        ("https://example.org/ x", False),
        ("https://example.org/\u202e", False),
        (f"https://example.org/{'x' * 500}", False),
    ],
)
def test_links(text: str, expected: bool) -> None:
    """Nothing is a link but the address of a page."""
    assert is_link(text) == expected
