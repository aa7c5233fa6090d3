"""Tests for `forgereg.flow.health`: what is looked at, how often, and for how long."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from forgereg.flow import health as room
from forgereg.flow.health import Check, Health, Probe, Unwell, is_ready, look_at_disk
from tests.conftest import Log
from tests.deferreds import begin, no_result, result_of


@define
class Patient:
    """
    Something to be looked at, which answers when it is told to.

    :ivar asked: how often it was.
    """

    clock: Clock = field(factory=Clock)
    answers: list[Deferred[str]] = field(factory=list)
    is_stopping: bool = False

    @property
    def asked(self) -> int:
        return len(self.answers)

    async def ask(self) -> str:
        self.answers.append(Deferred())
        return await self.answers[-1]

    def health(self, is_required: bool = True) -> Health:
        """Give what looks at it, and at something that is always well."""

        async def well() -> str:
            return "well"

        probes = [Probe("disk", self.ask, is_required), Probe("nix", well)]
        return Health(probes, self.clock, lambda: self.is_stopping)


def ready(looking: Deferred[list[Check]]) -> bool:
    """Whether the registry could serve, as it was looked at."""
    checks = result_of(looking)
    return is_ready(checks)


@pytest.fixture
def patient() -> Patient:
    """Something that answers when it is told to."""
    return Patient()


def test_who_asked_has_left(patient: Patient) -> None:
    """Nothing is wrong where somebody does not wait for the end."""
    looking = begin(patient.health().checks())
    looking.cancel()
    with pytest.raises(CancelledError):
        result_of(looking)
    again = begin(patient.health().checks())
    patient.answers[1].callback("12 GB are free")
    assert ready(again)


def test_all_is_well(patient: Patient) -> None:
    """Each check has its name, what was found, and how long that took."""
    looking = begin(patient.health().checks())
    patient.clock.advance(0.5)
    patient.answers[0].callback("12 GB are free")
    assert result_of(looking) == [
        Check("disk", True, "12 GB are free", 0.5),
        Check("nix", True, "well", 0.0),
    ]


def test_many_who_ask(patient: Patient) -> None:
    """However many ask, a thing is looked at once, and again when a second has gone by."""
    health = patient.health()
    lookings = [begin(health.checks()) for _ in range(10)]
    patient.answers[0].callback("well")
    for looking in lookings:
        assert result_of(looking)[0].detail == "well"
    patient.clock.advance(0.9)
    result_of(health.checks())
    assert patient.asked == 1
    patient.clock.advance(0.2)
    assert result_of(health.checks())[0].is_ok  # known, while it is looked at anew
    assert patient.asked == 2


def test_what_hangs(patient: Patient, log: Log) -> None:
    """What gives no answer is named after five seconds, and is not asked again."""
    health = patient.health()
    for waited in (5, 10):
        looking = begin(health.checks())
        patient.clock.advance(4.9)
        no_result(looking)
        patient.clock.advance(0.1)
        disk, nix = result_of(looking)
        assert (disk.is_ok, disk.detail) == (False, f"no answer for {waited} s")
        assert nix.is_ok
    assert patient.asked == 1
    assert log.text.count("disk is not well: no answer for 5 s") == 1
    patient.answers[0].callback("well")
    assert ready(begin(health.checks()))
    assert "disk is well again" in log.text


def test_what_hangs_after_it_was_well(patient: Patient) -> None:
    """An answer of long ago does not stand for one that does not come."""
    health = patient.health()
    looking = begin(health.checks())
    patient.answers[0].callback("well")
    assert ready(looking)
    patient.clock.advance(3.0)
    looking = begin(health.checks())
    patient.clock.advance(5.0)
    assert not ready(looking)
    assert health.last()[0].is_ok  # when there was an answer


@pytest.mark.parametrize("is_required", [True, False])
def test_what_is_not_well(patient: Patient, is_required: bool, log: Log) -> None:
    """What is not well keeps the registry from serving if it cannot do without."""
    looking = begin(patient.health(is_required).checks())
    patient.answers[0].errback(Unwell("it is full", "/srv/secret is full"))
    checks = result_of(looking)
    assert is_ready(checks) is not is_required
    assert checks[0].detail == "it is full"
    assert "/srv/secret is full" in log.text


def test_stopping(patient: Patient) -> None:
    """A registry that stops sends clients elsewhere, and looks at nothing any more."""
    patient.is_stopping = True
    (check,) = result_of(patient.health().checks())
    assert (check.name, check.is_ok, patient.asked) == ("stopping", False, 0)


def test_leaving(patient: Patient) -> None:
    """Who asks and leaves takes the answer from nobody."""
    health = patient.health()
    one, other = begin(health.checks()), begin(health.checks())
    one.addErrback(lambda _: None)
    one.cancel()
    patient.answers[0].callback("well")
    assert ready(other)


@given(st.text())
def test_details(text: str) -> None:
    """Whatever is told of a check, it is one line that can be printed, and not long."""
    patient = Patient()
    looking = begin(patient.health().checks())
    patient.answers[0].errback(Unwell(text))
    detail = result_of(looking)[0].detail
    assert detail.isprintable() and len(detail) <= 301


def test_a_disk(tmp_path: Path) -> None:
    """A disk that can be written is well, and nothing is left on it."""
    assert look_at_disk(tmp_path) > room.LEAST_FREE
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_gone(tmp_path: Path) -> None:
    """A directory that is gone is told without its path."""
    with pytest.raises(Unwell, match="cannot be written: No such file") as told:
        look_at_disk(tmp_path / "gone")
    assert str(tmp_path) not in told.value.detail


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has no room for records is not well."""
    nearly = SimpleNamespace(f_bavail=1000, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: nearly)
    with pytest.raises(Unwell, match="only 3.9 MiB are free"):
        look_at_disk(tmp_path)
