"""
The seam through which blocking work leaves the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred

P = ParamSpec("P")
T = TypeVar("T")


class InThread(Protocol):
    """Call a function in a thread; cancelling only drops its result."""

    def __call__(
        self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]: ...
