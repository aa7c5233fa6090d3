"""
What the stories go by and an operator may change while they are told.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from forgereg.nix.build import Limit
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildFailed,
    BuildTimedOut,
    DiskFull,
    EvaluationFailed,
    FlakeUnavailable,
    NixEnded,
    RegistryError,
)

#: How a build can fail; what is not there any more has not failed.
_FAILED = (
    ArchiveInvalid,
    BuildFailed,
    BuildTimedOut,
    DiskFull,
    EvaluationFailed,
    NixEnded,
)


@define
class Policy:
    """
    The settings that take effect without a restart.

    :ivar ttl_seconds: how long what a flake ref is resolved to is trusted.
    :ivar timeout_seconds: how long nix may work on one build.
    :ivar evaluation: how much one evaluation may take.
    :ivar failure_seconds: how long a failure is remembered.
    :ivar last_known_good: ``off``, ``unreachable`` or ``always``.
    :ivar max_queue: how many builds may wait for their turn.
    :ivar log_bytes: of what nix says in one build.
    :ivar log_seconds: how long builds and their logs are remembered.
    :ivar prewarm: images, as repository and tag, that are built before anyone asks.
    """

    ttl_seconds: float = 300.0
    timeout_seconds: float = 3600.0
    evaluation: Limit = Limit()
    failure_seconds: float = 60.0
    last_known_good: str = "unreachable"
    max_queue: int = 1000
    log_bytes: int = 10 * 2**20
    log_seconds: float = 14 * 86400.0
    prewarm: Sequence[str] = ()

    def goes_on(self, error: RegistryError) -> bool:
        """Whether a tag goes on meaning the last image that worked."""
        if isinstance(error, FlakeUnavailable):
            return self.last_known_good != "off"
        return self.last_known_good == "always" and isinstance(error, _FAILED)
