"""Which platform `forgereg.archive.platform` finds fit for another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.archive.platform import misfit, parse_platform, read_platform


def told(text: str) -> Any:
    system, architecture, variant = (*text.split("/"), "", "")[:3]
    return {"os": system, "architecture": architecture, "variant": variant}


@pytest.mark.parametrize(
    ("wanted", "found", "far"),
    [
        ("linux/amd64", "linux/amd64", 0),
        ("linux/arm64", "linux/arm64/v8", 0),
        ("linux/arm64/v8", "linux/arm64", 0),
        ("linux/aarch64", "linux/arm64/v8", 0),
        ("linux/x86_64", "linux/amd64/v1", 0),
        ("linux/arm/v7", "linux/arm", 0),
        ("linux/arm/v7", "linux/arm/v6", 1),
        ("linux/arm/v7", "linux/arm/v5", 2),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/amd64", "linux/amd64/v3", None),
        ("linux/amd64/v3", "linux/amd64", 2),
        ("linux/amd64", "windows/amd64", None),
        ("linux/amd64", "linux/arm64", None),
        ("linux/riscv64/a", "linux/riscv64/b", None),
        ("linux/riscv64/vv", "linux/riscv64/v٣", None),
    ],
)
def test_platforms_that_fit(wanted: str, found: str, far: int | None) -> None:
    """A platform fits itself, however it is written, and what came before it."""
    assert misfit(parse_platform(wanted), read_platform(told(found))) == far


@pytest.mark.parametrize(
    "said", [None, [], "linux/amd64", {}, {"os": "linux"}, {**told("a/b"), "os": 1}]
)
def test_platform_that_is_not_told(said: Any) -> None:
    """What says no platform, or says it oddly, fits none."""
    assert read_platform(said) is None
    assert misfit(parse_platform("linux/amd64"), None) is None


@given(st.text(), st.text())
def test_platform_of_any_words(wanted: str, found: str) -> None:
    """Whatever words a platform has, it fits or it does not."""
    far = misfit(parse_platform(wanted), read_platform(told(found)))
    assert far is None or far >= 0
