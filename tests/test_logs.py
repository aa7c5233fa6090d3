"""Tests for `forgereg.logs`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from forgereg.logs import Recent, logger, set_level
from tests.conftest import Log


@pytest.fixture(autouse=True)
def _usual_level() -> Iterator[None]:
    yield
    set_level("info")


def speak() -> None:
    room = logger("forgereg.flow.tests")
    room.debug("a step of {image}", image="hello")
    room.info("something changed")
    room.warn("the operator should look")
    room.error("it went wrong")


@pytest.mark.parametrize(
    ("level", "messages"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)]
)
def test_levels(log: Log, level: str, messages: int) -> None:
    """What is not loud enough is not logged."""
    set_level(level)
    speak()
    assert len(log.events) == messages


def test_level_of_a_fresh_registry(log: Log) -> None:
    """Until somebody says otherwise, steps are left out."""
    speak()
    assert "a step" not in log.text
    assert "something changed" in log.text


def test_levels_change_at_once(log: Log) -> None:
    """A change of the level holds for rooms that have spoken before."""
    room = logger("forgereg.flow.tests")
    room.debug("before")
    set_level("debug")
    room.debug("after")
    assert [event["log_format"] for event in log.events] == ["after"]


def test_rooms_are_named(log: Log) -> None:
    """Each message says where it is from, and keeps its fields."""
    set_level("debug")
    speak()
    assert {event["log_namespace"] for event in log.events} == {"forgereg.flow.tests"}
    assert "a step of hello" in log.text


def test_failures_are_always_loud_enough(
    log: Log, logged_failures: list[LogEvent]
) -> None:
    """A bug is logged whatever the level."""
    set_level("critical")
    try:
        raise ValueError("a bug")
    except ValueError:
        logger("forgereg.flow.tests").failure("it went wrong")
    assert "a bug" in log.text
    logged_failures.clear()


@pytest.fixture
def recent() -> Iterator[Recent]:
    recent = Recent()
    globalLogPublisher.addObserver(recent)
    yield recent
    globalLogPublisher.removeObserver(recent)


def test_recent_has_what_to_look_at(recent: Recent) -> None:
    """Warnings and errors are remembered, the newest first; steps are not."""
    speak()
    said = [(entry.level, entry.text) for entry in recent.entries]
    assert said == [("error", "it went wrong"), ("warn", "the operator should look")]
    assert {entry.namespace for entry in recent.entries} == {"forgereg.flow.tests"}


def test_recent_counts_what_is_said_again(recent: Recent) -> None:
    """What is said again and again does not drive out everything else."""
    room = logger("forgereg.flow.tests")
    room.warn("the disk is full")
    for number in (1, 2, 2, 2):
        room.warn("no answer from {n}", n=number)
    assert [(entry.text, entry.times) for entry in recent.entries] == [
        ("no answer from 2", 3),
        ("no answer from 1", 1),
        ("the disk is full", 1),
    ]


def test_recent_is_bounded(recent: Recent) -> None:
    """However much goes wrong, a hundred entries of bounded length are kept."""
    for number in range(1000):
        logger("forgereg.flow.tests").error("{n} {text}", n=number, text="x" * 10**6)
    assert len(recent.entries) == 100
    assert recent.entries[0].text.startswith("999 xxx")
    assert all(len(entry.text) < 2000 for entry in recent.entries)


def test_recent_is_safe_to_show(
    recent: Recent, logged_failures: list[LogEvent]
) -> None:
    """An entry has lines, but no other control characters, secrets and tracebacks."""
    url = "https://me:sesame@forge.example?token=sesame"
    try:
        raise ValueError(f"\x1b[2J\udc80\n{url}")
    except ValueError:
        logger("forgereg.flow.tests").failure("incident {id}", id="7\u202e")
    (entry,) = recent.entries
    where = "https://***@forge.example?token=***"
    said = r"incident 7\u202e: ValueError: \x1b[2J\udc80" + f"\n{where}"
    assert entry.text == said
    logged_failures.clear()
