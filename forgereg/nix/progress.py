"""
How far nix has come, told by the events it writes. Pure.

A builder can forge some of them (downloads, and what is told of them), so what comes
of it is bounded and for people only.

Source: nix `src/libmain/progress-bar.cc`, whose sums these are; tried on 2.8 and 2.26.
"""

from __future__ import annotations

import re
from enum import IntEnum
from itertools import islice
from typing import Any

from attrs import define, field, frozen

from forgereg.nix.events import Event, Started, Stopped, Told, plain

#: How many activities of a kind are followed at once. A builder can begin downloads
#: without end; nix ends them all when it ends the builder.
_MOST_ACTIVITIES = 1000
#: What a number may come to: as much as a browser counts without loss.
_MOST = 2**53 - 1
#: How many of those that are being built are named.
_MOST_NAMED = 20
#: How long a phase or the name of a derivation may be, in characters.
_CHARACTERS = 60
#: How much of it is looked at; colours take room.
_MOST_READ = 1000

_HASH = re.compile(r"\A[0-9a-z]{32}-")


@frozen
class Progress:
    """
    How far a build has come, as far as nix tells.

    :ivar done: derivations that are built.
    :ivar expected: derivations that are to be built; grows while nix finds more.
    :ivar running: derivations that are being built now.
    :ivar failed: derivations that could not be built.
    :ivar fetched_bytes: what has come from substituters and elsewhere, in bytes.
    :ivar fetch_bytes: what is to come in all, in bytes, as far as is known.
    :ivar building: name of the derivation that began last of those that are being
        built, without hash and ``.drv``.
    :ivar phase: which it is in, such as ``buildPhase``.
    """

    done: int = 0
    expected: int = 0
    running: int = 0
    failed: int = 0
    fetched_bytes: int = 0
    fetch_bytes: int = 0
    building: str = ""
    phase: str = ""


@frozen
class Derivation:
    """
    One that is being built.

    :ivar name: without hash and ``.drv``.
    :ivar phase: which it is in, such as ``buildPhase``; empty before the first.
    """

    name: str
    phase: str = ""


class _Kind(IntEnum):
    """
    Activities that are followed.

    Source: nix `src/libutil/logging.hh`, ActivityType.
    """

    COPY_PATH = 100
    FILE_TRANSFER = 101
    REALISE = 102
    COPY_PATHS = 103
    BUILDS = 104
    BUILD = 105


#: What is told of them; source: the same, ResultType.
_SET_PHASE, _PROGRESS, _SET_EXPECTED = 104, 105, 106


@define
class _Activity:
    """
    One that goes on.

    :ivar counts: done, expected, running and failed.
    :ivar expects: how much all activities of a kind will come to, by kind.
    """

    name: str = ""
    phase: str = ""
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    expects: dict[int, int] = field(factory=dict)


@define
class Follower:
    """Follow one nix from its first event to its last."""

    _open: dict[_Kind, dict[int, _Activity]] = field(
        init=False, factory=lambda: {kind: {} for kind in _Kind}
    )
    #: What came of those that have ended: done and failed.
    _ended: dict[_Kind, tuple[int, int]] = field(
        init=False, factory=lambda: dict.fromkeys(_Kind, (0, 0))
    )

    def follow(self, event: Event) -> None:
        """Take note of an event; lines for people change nothing."""
        if isinstance(event, Told):
            self._tell(event)
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Stopped):
            self._stop(event.id)

    @property
    def progress(self) -> Progress:
        """How far nix has come by now."""
        done, expected, running, failed = self._sum(_Kind.BUILDS)
        # Of one file both may be told: how much of it came, and how much it unpacks to.
        fetched, fetch, _, _ = max(
            self._sum(_Kind.FILE_TRANSFER),
            self._sum(_Kind.COPY_PATH),
            key=lambda sums: sums[1],
        )
        last = next(reversed(self._open[_Kind.BUILD].values()), _Activity())
        return Progress(
            done, expected, running, failed, fetched, fetch, last.name, last.phase
        )

    @property
    def building(self) -> tuple[Derivation, ...]:
        """Those that are being built, the last that began first; not all of many."""
        last = islice(reversed(self._open[_Kind.BUILD].values()), _MOST_NAMED)
        return tuple(Derivation(each.name, each.phase) for each in last)

    def _start(self, event: Started) -> None:
        try:
            activities = self._open[_Kind(event.kind)]
        except ValueError:
            return
        if len(activities) >= _MOST_ACTIVITIES or event.id in activities:
            return
        if event.kind == _Kind.BUILDS and activities:
            # A remote builder tells again of builds that are counted here.
            return
        activities[event.id] = _Activity(_derivation(event.fields))

    def _stop(self, id: int) -> None:
        for kind, activities in self._open.items():
            if (activity := activities.pop(id, None)) is not None:
                done, failed = self._ended[kind]
                more, _, _, more_failed = activity.counts
                self._ended[kind] = _capped(done + more), _capped(failed + more_failed)
                return

    def _tell(self, event: Told) -> None:
        if event.kind == _PROGRESS:
            for kind in (_Kind.BUILDS, _Kind.COPY_PATH, _Kind.FILE_TRANSFER):
                if (activity := self._open[kind].get(event.id)) is not None:
                    done, expected, running, failed, *_ = *event.fields, 0, 0, 0, 0
                    activity.counts = (
                        _number(done),
                        _number(expected),
                        _number(running),
                        _number(failed),
                    )
        elif event.kind == _SET_EXPECTED:
            match event.fields:
                case [_Kind.COPY_PATH | _Kind.FILE_TRANSFER as of, expected]:
                    for kind in (_Kind.REALISE, _Kind.COPY_PATHS):
                        if (activity := self._open[kind].get(event.id)) is not None:
                            activity.expects[of] = _number(expected)
        elif event.kind == _SET_PHASE:
            match event.fields:
                case [str(phase), *_]:
                    if (activity := self._open[_Kind.BUILD].get(event.id)) is not None:
                        activity.phase = _short(phase)

    def _sum(self, kind: _Kind) -> tuple[int, int, int, int]:
        done, failed = self._ended[kind]
        expected, running = done, 0
        for activity in self._open[kind].values():
            counts = activity.counts
            done += counts[0]
            expected += max(counts[0], counts[1])
            running += counts[2]
            failed += counts[3]
        announced = sum(
            activity.expects.get(kind, 0)
            for holder in (_Kind.REALISE, _Kind.COPY_PATHS)
            for activity in self._open[holder].values()
        )
        expected = max(expected, announced)
        return _capped(done), _capped(expected), _capped(running), _capped(failed)


def _number(value: object) -> int:
    """Give a count as nix could have meant it."""
    return min(max(value, 0), _MOST) if isinstance(value, int) else 0


def _capped(number: int) -> int:
    return min(number, _MOST)


def _short(text: str) -> str:
    return " ".join(plain(text[:_MOST_READ]).split())[:_CHARACTERS]


def _derivation(fields: tuple[Any, ...]) -> str:
    """Give the name of what a build is of, without its place in the store."""
    match fields:
        case [str(path), *_]:
            name = path.rpartition("/")[2].removesuffix(".drv")
            return _short(_HASH.sub("", name, count=1))
    return ""
