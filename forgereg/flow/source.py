"""
Where the bytes of a blob come from while it is being sent.
"""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """
    The bytes of a blob, by position.

    Whoever has it closes it, also while a `read` is under way.

    :ivar size: in bytes.
    """

    @property
    def size(self) -> int: ...

    @property
    def extent(self) -> tuple[int, int] | None:
        """
        The file descriptor, and the offset in it, where all bytes lie as they are.

        None where they come from elsewhere; it may become known later.
        """

    def peek(self, position: int, size: int) -> bytes:
        """Give up to ``size`` bytes without waiting; none where that cannot be."""

    async def read(self, position: int, size: int) -> bytes:
        """
        Give at least one byte and at most ``size``.

        :returns: none at the end, which is where the file ends, too soon or not.
        :raises RegistryError: they cannot be had, or are not what they should be.
        """

    def close(self) -> None:
        """Let go of it."""
