"""
Work that clients asked for: on whose behalf, how much time it has left, how to end it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from forgereg.flow.report import State
from forgereg.logs import logger
from forgereg.nix.events import Event, Line
from forgereg.oci.errors import BuildCancelled

T = TypeVar("T")
_log = logger(__name__)


@define(eq=False)
class Errand:
    """
    Something that nix, or a thread, does for clients.

    :ivar image: what it is about, for people; lines in the log are marked with it.
    :ivar asked_by: the clients; more may come while it runs.
    :ivar timeout_seconds: how long nix may work for it in all; waiting does not count.
    :ivar left_seconds: how much of that is left.
    """

    image: str
    asked_by: list[str]
    timeout_seconds: float
    _parent: Errand | None = None
    left_seconds: float = field(init=False)
    is_cancelled: bool = field(init=False, default=False)
    _waiting: list[Deferred[Any]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.left_seconds = self.timeout_seconds

    def beside(self, timeout_seconds: float) -> Errand:
        """Give an errand for a part of this one that has its own time."""
        return Errand(self.image, self.asked_by, timeout_seconds, self)

    @property
    def build_id(self) -> str | None:
        """The build that it is, or belongs to."""
        return None if self._parent is None else self._parent.build_id

    def hear(self, event: Event) -> None:
        """Be told what nix says."""
        if self._parent is not None:
            self._parent.hear(event)
        elif isinstance(event, Line):
            self.log_line(event)

    @property
    def is_full(self) -> bool:
        """Whether it wants to hear no more of builders than their last lines."""
        return False

    def skip(self, read: Callable[[], str]) -> None:
        """Be told, once it is full, of a builder's line that need not be read."""

    def log_line(self, line: Line) -> None:
        """Put what nix says into the registry's log."""
        _log.info(
            "{image}: {line}", image=self.image, line=line.text, said=line.said.value
        )

    def enter(self, state: State) -> None:
        """Be told where it stands."""

    def queue(self) -> None:
        """
        Be told that it has to wait for its turn.

        :raises TooManyBuilds: too many wait already.
        """
        self.enter(State.QUEUED)

    async def wait(self, awaited: Deferred[T]) -> T:
        """
        Await something; `cancel` cancels it.

        :raises BuildCancelled: the errand was cancelled.
        """
        if self._parent is not None:
            return await self._parent.wait(awaited)
        self._waiting.append(awaited)
        try:
            if self.is_cancelled:
                awaited.cancel()
            return await awaited
        except CancelledError as e:
            if self.is_cancelled:
                raise self._cancelled() from e
            raise
        finally:
            self._waiting.remove(awaited)

    async def share(self, begin: Callable[[], Deferred[T]]) -> T:
        """
        Await what others may wait for as well, and what ends with whoever began it.

        :param begin: begins it, or joins those who have; called again when only their
            errand was cancelled.
        :raises BuildCancelled: this errand was cancelled.
        """
        while not self.is_cancelled:
            try:
                return await self.wait(begin())
            except BuildCancelled:
                pass
        raise self._cancelled()

    def _cancelled(self) -> BuildCancelled:
        return BuildCancelled(
            f"{self.image} was cancelled by an operator; who pulls it again a minute"
            " later has it built anew (FORGE_FAILURE_TTL)"
        )

    def cancel(self) -> None:
        """End it: whatever it waits for is cancelled, what began last before the rest."""
        self.is_cancelled = True
        for awaited in reversed(list(self._waiting)):
            awaited.cancel()
