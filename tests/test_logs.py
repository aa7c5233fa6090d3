"""Tests for `forgereg.logs`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent

from forgereg.logs import logger, set_level
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
