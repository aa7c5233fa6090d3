"""Tests for `forgereg.flow.failures`."""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from forgereg.flow.failures import Failures
from forgereg.flow.policy import Policy
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildCancelled,
    BuildFailed,
    BuildTimedOut,
    DiskFull,
    EvaluationFailed,
    FlakeUnavailable,
    NixEnded,
    RegistryError,
    ShuttingDown,
    TooManyBuilds,
)
from tests.deferreds import result_of


@define
class Minded:
    """
    Work that fails for as long as there is an error.

    :ivar done: how often it was begun.
    """

    error: Exception | None = None
    done: int = 0
    policy: Policy = field(factory=Policy)
    clock: Clock = field(factory=Clock)
    failures: Failures = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.failures = Failures(self.policy, self.clock.seconds)

    def ask(self, key: str = "key") -> str:
        return result_of(self.failures.mind(key, self._work))

    def fail(self, key: str = "key") -> Exception:
        with pytest.raises(Exception, match="why") as raised:
            self.ask(key)
        return raised.value

    async def _work(self) -> str:
        self.done += 1
        if self.error is not None:
            raise self.error
        return "well"


@pytest.mark.parametrize(
    "error", [ArchiveInvalid, BuildFailed, BuildTimedOut, EvaluationFailed]
)
def test_a_failure_is_remembered(error: type[RegistryError]) -> None:
    """What would fail again is not tried again at once; all read the same reason."""
    minded = Minded(error("why"))
    errors = [minded.fail() for _ in range(3)]
    first, *others = (each for each in errors if isinstance(each, RegistryError))
    assert len(others) == 2
    assert (type(first), str(first), first.is_repeated) == (error, "why", False)
    for other in others:
        assert type(other) is error and other.is_repeated
        assert str(other) == "why\n(it failed 0 s ago, and may be tried again in 60 s)"
    assert minded.done == 1


@pytest.mark.parametrize(
    "error",
    [
        BuildCancelled("why"),
        DiskFull("why"),
        FlakeUnavailable("why"),
        NixEnded("why"),
        ShuttingDown("why"),
        TooManyBuilds("why"),
        OSError("why"),
    ],
)
def test_what_may_be_better_next_time(error: Exception) -> None:
    """What has nothing to do with the image is tried again at once."""
    minded = Minded(error)
    minded.fail()
    minded.fail()
    assert minded.done == 2


def test_for_some_time() -> None:
    """After the time that the operator has set, it is tried again."""
    minded = Minded(BuildFailed("why"))
    minded.fail()
    minded.clock.advance(59.9)
    minded.fail()
    assert minded.done == 1
    minded.clock.advance(0.2)
    minded.error = None
    assert minded.ask() == "well"


def test_not_at_all() -> None:
    """An operator who sets no time has everything tried again."""
    minded = Minded(BuildFailed("why"), policy=Policy(failure_seconds=0.0))
    minded.fail()
    minded.fail()
    assert minded.done == 2


def test_other_work() -> None:
    """A failure says nothing of other work."""
    minded = Minded(BuildFailed("why"))
    minded.fail("one")
    minded.fail("other")
    assert minded.done == 2


def test_forgetting() -> None:
    """Who forgets what failed has it tried again."""
    minded = Minded(BuildFailed("why"))
    minded.fail()
    minded.failures.forget()
    minded.fail()
    assert minded.done == 2


def test_remembering_by_hand() -> None:
    """What is told to have failed has failed, for as long as anything else."""
    minded = Minded()
    minded.failures.remember("key", BuildFailed("why"))
    assert "key" in minded.failures
    assert isinstance(minded.fail(), BuildFailed)
    minded.clock.advance(60.0)
    assert "key" not in minded.failures


def test_a_bound() -> None:
    """Whoever makes more things fail than can be counted takes no more memory."""
    minded = Minded(BuildFailed("why"))
    for number in range(1500):
        minded.fail(str(number))
    remembered = sum(str(number) in minded.failures for number in range(1500))
    assert remembered == 1000
