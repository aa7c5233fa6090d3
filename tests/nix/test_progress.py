"""Tests for `forgereg.nix.progress`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.nix.events import Event, Line, Said, Started, Stopped, Told, parse_event
from forgereg.nix.progress import Follower, Progress

COPY, DOWNLOAD, REALISE, BUILDS, BUILD = 100, 101, 102, 104, 105
PHASE, COUNTS, EXPECTED = 104, 105, 106
HELLO = "/nix/store/gn5r2749f2bwa4l5ghccgg6wb7vd1dsr-hello-2.12.drv"
WEB = "/nix/store/97r3vpf0ml19xwwi6m1g2pz13i6hb9sr-web-1.0.drv"


def begin(id: int, kind: int, *fields: Any) -> Started:
    return Started(id, kind, fields, "")


def tell(id: int, kind: int, *fields: Any) -> Told:
    return Told(id, kind, fields)


def after(*events: Event) -> Progress:
    follower = Follower()
    for event in events:
        follower.follow(event)
    return follower.progress


def recorded(name: str) -> list[Progress]:
    """Give each progress that a recorded stream comes to, without repetitions."""
    follower, seen = Follower(), [Progress()]
    for raw in Path(__file__).with_name(name).read_bytes().splitlines():
        event = parse_event(raw)
        assert event is not None
        follower.follow(event)
        if follower.progress != seen[-1]:
            seen.append(follower.progress)
    return seen


def test_nothing_is_known_at_first() -> None:
    """Before nix says anything there is nothing to do."""
    assert Follower().progress == Progress()


def test_builds_are_counted_as_nix_counts_them() -> None:
    """How many derivations are done, to be done, at work and failed is told."""
    progress = after(begin(1, BUILDS), tell(1, COUNTS, 3, 10, 2, 1))
    assert progress == Progress(done=3, expected=10, running=2, failed=1)


def test_builds_on_a_remote_builder_count_once() -> None:
    """Two derivations that a remote builder builds are two, not four."""
    seen = recorded("remote.events")
    assert [(p.done, p.expected, p.running) for p in seen if p.building] == [
        (0, 2, 0),
        (0, 2, 1),
        (1, 2, 0),
        (1, 2, 0),
        (1, 2, 1),
        (2, 2, 0),
    ]
    assert seen[-1] == Progress(done=2, expected=2)


def test_downloads_from_a_cache_are_counted_in_bytes() -> None:
    """What a cache sends grows to what was announced, and is not counted twice."""
    seen = [(p.fetched_bytes, p.fetch_bytes) for p in recorded("fetch.events")]
    assert max(fetch for _, fetch in seen) == 1033160
    assert all(fetched <= fetch for fetched, fetch in seen)
    assert 1_030_000 < seen[-1][0] <= 1033160


def test_builds_that_follow_each_other_add_up() -> None:
    """What was built to evaluate the flake counts with what is built then."""
    progress = after(
        begin(1, BUILDS),
        tell(1, COUNTS, 2, 3, 0, 1),
        Stopped(1),
        begin(2, BUILDS),
        tell(2, COUNTS, 1, 4, 1, 0),
    )
    assert progress == Progress(done=3, expected=6, running=1, failed=1)


def test_name_and_phase_of_what_is_built() -> None:
    """Of several derivations the last that began is named, with its own phase."""
    events: list[Event] = [
        begin(1, BUILD, HELLO, "", 1, 1),
        tell(1, PHASE, "buildPhase"),
        begin(2, BUILD, WEB, "", 1, 1),
        tell(2, PHASE, "unpackPhase"),
    ]
    progress = after(*events)
    assert (progress.building, progress.phase) == ("web-1.0", "unpackPhase")
    progress = after(*events, Stopped(2))
    assert (progress.building, progress.phase) == ("hello-2.12", "buildPhase")
    assert after(*events, Stopped(2), Stopped(1)) == Progress()


def test_phase_that_would_steer_a_terminal() -> None:
    """A phase with colours, line ends and no end of its own is made harmless."""
    phase = "\x1b[31mbuild\x1b[0m\n\x07Phase\ud800" + "!" * 5000
    progress = after(begin(1, BUILD, HELLO), tell(1, PHASE, phase))
    assert progress.phase == "build Phase" + "!" * 49


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (HELLO, "hello-2.12"),
        ("/other/store/" + HELLO[11:], "hello-2.12"),
        ("hello", "hello"),
        ("", ""),
        (None, ""),
        ("/nix/store/" + "x" * 5000, "x" * 60),
    ],
)
def test_name_of_a_derivation(path: Any, name: str) -> None:
    """Whatever a derivation is called, a short name is told."""
    assert after(begin(1, BUILD, path)).building == name


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ((-5, -1, -1, -1), Progress()),
        (("9", None, [], {}), Progress()),
        ((), Progress()),
        ((1,), Progress(done=1, expected=1)),
        ((10**400, 10**400, 1, 0, 7), Progress(2**53 - 1, 2**53 - 1, 1)),
    ],
)
def test_counts_that_make_no_sense(fields: tuple[Any, ...], counted: Progress) -> None:
    """Junk counts for nothing, and nothing is more than a browser can count to."""
    assert after(begin(1, BUILDS), tell(1, COUNTS, *fields)) == counted


def test_what_is_told_of_something_else_changes_nothing() -> None:
    """Only what nix said it began is followed, and only as what it began."""
    nothing = after(
        tell(1, COUNTS, 1, 1, 1, 1),
        begin(2, DOWNLOAD, "http://cache.example"),
        tell(2, PHASE, "forgedPhase"),
        tell(2, EXPECTED, BUILDS, 99),
        tell(2, EXPECTED, COPY, 99),
        begin(3, REALISE),
        tell(3, EXPECTED, BUILDS, 99),
        tell(3, EXPECTED, [], 99),
        tell(3, EXPECTED),
        begin(4, 4711),
        Stopped(5),
        Line(Said.BUILDER, "hello"),
    )
    assert nothing == Progress()


def test_announcement_ends_with_what_was_announced() -> None:
    """When nix is done fetching, only what really came counts."""
    events: list[Event] = [
        begin(1, REALISE),
        tell(1, EXPECTED, COPY, 1000),
        begin(2, COPY),
        tell(2, COUNTS, 300, 400, 0, 0),
    ]
    assert after(*events) == Progress(fetched_bytes=300, fetch_bytes=1000)
    ended = after(*events, Stopped(2), Stopped(1))
    assert ended == Progress(fetched_bytes=300, fetch_bytes=300)


def test_builder_that_forges_downloads_without_end() -> None:
    """A flood of forged downloads takes no memory, and builds are counted still."""
    follower = Follower()
    for number in range(5000):
        follower.follow(begin(number, DOWNLOAD, "http://cache.example"))
        follower.follow(tell(number, COUNTS, 1, 1))
    assert follower.progress.fetched_bytes == 1000
    follower.follow(begin(10**6, BUILDS))
    follower.follow(tell(10**6, COUNTS, 1, 2, 1, 0))
    assert (follower.progress.done, follower.progress.expected) == (1, 2)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=3,
)
IDS, KINDS = st.integers(0, 4), st.integers(99, 109) | st.integers()
FIELDS = st.lists(st.integers() | st.sampled_from([100, 101, 104]) | JUNK).map(tuple)


@given(
    st.lists(
        st.builds(Started, IDS, KINDS, FIELDS, st.text())
        | st.builds(Stopped, IDS)
        | st.builds(Told, IDS, KINDS, FIELDS)
    )
)
def test_any_events_make_sense(events: list[Event]) -> None:
    """Whatever events are forged, the numbers can be shown and the words written."""
    progress = after(*events)
    assert 0 <= progress.done <= progress.expected < 2**53
    assert 0 <= progress.fetched_bytes <= progress.fetch_bytes < 2**53
    assert 0 <= progress.running < 2**53
    assert 0 <= progress.failed < 2**53
    for word in (progress.building, progress.phase):
        assert len(word.encode()) <= 240
        assert not any(ord(c) < 32 for c in word)
