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
    _errors: TLRUCache[Hashable, tuple[type[RegistryError], str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        def until(key: object, error: object, now: float) -> float:
            return now + self._policy.failure_seconds

        self._errors = TLRUCache(_MOST, until, timer=self._clock)

    async def mind(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """
        Do work, unless it failed a moment ago.

        :param key: names what is done, and all that its outcome depends on.
        :raises RegistryError: what it raises, or raised then.
        """
        known = self._errors.get(key)
        if known is not None:
            raise known[0](known[1])
        try:
            return await work()
        except _LASTING as e:
            self.remember(key, e)
            raise

    def remember(self, key: Hashable, error: RegistryError) -> None:
        """Take note that something failed."""
        self._errors[key] = type(error), error.detail

    def __contains__(self, key: Hashable) -> bool:
        return key in self._errors

    def forget(self) -> None:
        """Let everything be tried again."""
        self._errors.clear()
