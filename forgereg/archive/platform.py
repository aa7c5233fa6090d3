"""
Tell which of several platforms fits the one that is wanted. Pure.

Source: OCI image-spec v1.1, "Image Index", Platform Variants; containerd's
``platforms/defaults.go``: what runs on ARM also runs on the later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Platform = tuple[str, str, str]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
#: What a platform without a variant means, and one with that variant.
_USUAL = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


def parse_platform(text: str) -> Platform:
    """Read a platform such as ``linux/arm64`` or ``linux/arm/v7``."""
    system, architecture, variant, *_ = (*text.split("/"), "", "", "")
    return _normal(system, architecture, variant)


def read_platform(said: Any) -> Platform | None:
    """Read what a descriptor or a config says; None where it says nothing."""
    if not isinstance(said, Mapping):
        return None
    words = [said.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words) or not all(words[:2]):
        return None
    return _normal(*words)


def misfit(wanted: Platform, found: Platform | None) -> int | None:
    """
    Say how far a platform is from the wanted one.

    :returns: 0 where they are the same; None where it does not run there.
    """
    if found is None or found[:2] != wanted[:2]:
        return None
    if found[2] == wanted[2]:
        return 0
    newer, older = (each[2].removeprefix("v") for each in (wanted, found))
    if newer.isdecimal() and older.isdecimal() and len(newer + older) < 9:
        return int(newer) - int(older) if int(newer) > int(older) else None
    return None


def _normal(system: str, architecture: str, variant: str) -> Platform:
    architecture = _ARCHITECTURES.get(architecture, architecture)
    return system, architecture, variant or _USUAL.get(architecture, "")
