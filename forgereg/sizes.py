"""
Write numbers of bytes for people. Pure.
"""

from __future__ import annotations


def size(count: float) -> str:
    """Write a number of bytes in powers of 1024, such as ``1.5 MiB``."""
    if round(count) < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if round(count, 1) < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
