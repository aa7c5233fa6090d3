"""Tests for `forgereg.sizes`: numbers of bytes as people read them."""

from __future__ import annotations

import pytest

from forgereg.sizes import size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (78 * 10**9, "72.6 GiB"),
        (2**60, "1048576.0 TiB"),
    ],
)
def test_sizes(count: int, said: str) -> None:
    """Sizes are in one family of units, and none is 1024 of its unit."""
    assert size(count) == said
