"""
How far nix has come, told by the events it writes. Pure.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Progress:
    """
    How far a build has come, as far as nix tells.

    :ivar done: derivations that are built.
    :ivar expected: derivations that are to be built; grows while nix finds more.
    :ivar running: derivations that are being built now.
    :ivar failed: derivations that could not be built.
    :ivar fetched_bytes: what has come from substituters and elsewhere, in bytes.
    :ivar fetch_bytes: what is to come in all, in bytes, as far as is known.
    :ivar building: name of the derivation that began last, without hash and ``.drv``.
    :ivar phase: of the derivation that spoke last, such as ``buildPhase``.
    """

    done: int = 0
    expected: int = 0
    running: int = 0
    failed: int = 0
    fetched_bytes: int = 0
    fetch_bytes: int = 0
    building: str = ""
    phase: str = ""
