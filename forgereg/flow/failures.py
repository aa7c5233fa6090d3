"""
What failed a moment ago, so that it is not tried again at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

from attrs import define, field
from cachetools import TLRUCache

from forgereg.flow.policy import Policy
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildFailed,
    BuildTimedOut,
    EvaluationFailed,
    RegistryError,
)

T = TypeVar("T")

#: What fails again if it is done again.
_LASTING = (
    ArchiveInvalid,
    BuildFailed,
    BuildTimedOut,
    EvaluationFailed,
)
_MOST = 1000


@define
class Failures:
    """
    How work ended that failed, for as long as the policy says.

    A node that cannot start a container asks for its image every few seconds.

    :ivar clock: gives seconds that only ever go forwards.
    """

    _policy: Policy
    _clock: Callable[[], float]
    #: key → what it ended with, and when
    _errors: TLRUCache[Hashable, tuple[RegistryError, float]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        def until(key: object, error: object, now: float) -> float:
            return now + self._policy.failure_seconds

        self._errors = TLRUCache(_MOST, until, timer=self._clock)

    async def mind(
        self,
        key: Hashable,
        work: Callable[[], Coroutine[Any, Any, T]],
        build_id: str | None = None,
    ) -> T:
        """
        Do work, unless it failed a moment ago.

        :param key: names what is done, and all that its outcome depends on.
        :param build_id: of the build that it is done for.
        :raises RegistryError: what it raises, or raised then.
        """
        self.check(key)
        try:
            return await work()
        except _LASTING as e:
            e.build_id = e.build_id or build_id
            self.remember(key, e)
            raise

    def check(self, key: Hashable) -> None:
        """
        Do nothing unless it failed a moment ago.

        :raises RegistryError: what it raised then.
        """
        known = self._errors.get(key)
        if known is not None:
            error, failed_at = known
            ago = self._clock() - failed_at
            left = max(0.0, self._policy.failure_seconds - ago)
            raise type(error)(
                f"{error.detail}\n(it failed {ago:.0f} s ago, and may be tried again in"
                f" {left:.0f} s)",
                is_repeated=True,
                build_id=error.build_id,
            )

    def remember(self, key: Hashable, error: RegistryError) -> None:
        """Take note that something failed."""
        copy = type(error)(error.detail, build_id=error.build_id)
        self._errors[key] = copy, self._clock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._errors

    def forget(self) -> None:
        """Let everything be tried again."""
        self._errors.clear()
