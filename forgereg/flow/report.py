"""
What can be told of a build, while it runs and afterwards. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen

from forgereg.nix.progress import Derivation, Progress


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
    :ivar building: derivations that nix builds now, not all of many.
    :ivar spent: how long it was in each state, in seconds, that it was in last at the
        end.
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
    building: tuple[Derivation, ...] = ()
    spent: Mapping[State, float] = field(factory=dict, hash=False)

    def fits(self, choice: Choice) -> bool:
        """Whether it is one of those that were asked for."""
        is_state = not choice.states or self.state in choice.states
        return is_state and choice.image.lower() in self.image.lower()


@frozen
class Choice:
    """
    Which builds are asked for.

    :ivar states: any of these; empty for all.
    :ivar image: is in the image's name, whatever the case; empty for all.
    """

    states: frozenset[State] = frozenset()
    image: str = ""


#: What is asked for where nothing is said.
ANY = Choice()


@frozen
class SweptImage:
    """
    An image that a sweep lets go of.

    :ivar names: each repository and tag, joined by a colon.
    :ivar bytes: what it holds that no other image does, in bytes.
    :ivar last_pulled: seconds since the epoch; None if it never was.
    :ivar reason: why it may go, for people.
    """

    names: tuple[str, ...]
    bytes: int
    last_pulled: float | None
    reason: str


@frozen
class SweepReport:
    """
    What a sweep let go of, or would.

    :ivar blobs: how many files of blobs.
    :ivar freed_bytes: on the registry's disk.
    :ivar kept_bytes: on the registry's disk.
    :ivar dry_run: whether nothing was touched.
    """

    images: tuple[SweptImage, ...]
    blobs: int
    freed_bytes: int
    kept_bytes: int
    dry_run: bool
