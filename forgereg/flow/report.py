"""
What can be told of a build, while it runs and afterwards. Pure.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from forgereg.nix.progress import Progress


class State(Enum):
    """Where a build stands."""

    QUEUED = "queued"
    LOCKING = "locking"
    EVALUATING = "evaluating"
    BUILDING = "building"
    READING = "reading"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: The registry ended while it ran.
    INTERRUPTED = "interrupted"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self in _OVER


_OVER = {State.DONE, State.FAILED, State.CANCELLED, State.INTERRUPTED}


@frozen
class Report:
    """
    A build as it is at one moment.

    :ivar id: names it, and its log.
    :ivar image: repository and tag, joined by a colon.
    :ivar asked_by: addresses of the clients, the first of them first.
    :ivar asked_at: seconds since the epoch, as all times here.
    :ivar locked: locked flake ref, once it is known.
    :ivar derivation: store path of the ``.drv``, once it is known.
    :ivar started_at: when nix, or the reading of the archive, began; None before.
    :ivar finished_at: None while it is not over.
    :ivar error: why it failed, was cancelled or interrupted.
    """

    id: str
    image: str
    state: State
    asked_by: tuple[str, ...]
    asked_at: float
    started_at: float | None = None
    finished_at: float | None = None
    locked: str | None = None
    derivation: str | None = None
    progress: Progress = Progress()
    error: str | None = None


@frozen
class SweptImage:
    """
    An image that was let go of.

    :ivar names: of "repo:tag".
    :ivar bytes: what that freed.
    :ivar last_pulled: seconds since the epoch; None if nobody ever pulled it.
    """

    names: tuple[str, ...]
    bytes: int
    last_pulled: float | None
    reason: str


@frozen
class SweepReport:
    """
    What a sweep did.

    :ivar images: oldest pull first.
    :ivar blobs: how many files were deleted.
    :ivar dry_run: whether all this would only be done.
    """

    images: tuple[SweptImage, ...]
    blobs: int
    freed_bytes: int
    kept_bytes: int
    dry_run: bool
