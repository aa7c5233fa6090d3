"""
Show builds to people: on a terminal with bars and tables, else as plain lines.

Whatever a build says is shown, and none of it is heard by the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from forgereg.lines import visible
from forgereg.sizes import size

if TYPE_CHECKING:
    from forgereg.cli.remote import Build

#: How wide the bar is: beside it, 80 columns have room for what a build tells.
_BAR = 14
#: What a table of 80 columns has room for.
_DIGEST = re.compile(r"(@sha256:[0-9a-f]{8})[0-9a-f]+")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def clean(line: str) -> str:
    """Write out what a terminal would obey, such as escapes; leave out colours."""
    return visible(line if line.isprintable() else _COLOUR.sub("", line), "\t")


def describe(build: Build) -> str:
    """Say in a few words how far a build has come."""
    told = build.progress
    words = [build.state.value]
    if not build.state.is_over:
        if told.expected:
            words.append(f"{told.done}/{told.expected} derivations")
        now = " ".join(filter(None, (told.building, told.phase)))
        if now:
            words.append(now)
        if told.fetch_bytes:
            fetched, of = told.fetched_bytes / 2**20, told.fetch_bytes / 2**20
            words.append(f"{fetched:.1f} of {of:.1f} MiB")
    return clean(", ".join(words))


class Screen(Protocol):
    """Where people follow a build."""

    def __enter__(self) -> Screen:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def log(self, text: str) -> None:
        """Show lines of the log."""

    def show(self, build: Build) -> None:
        """Show how far the build has come."""


@define
class Lines:
    """A screen that is none: a line whenever something is new."""

    _console: Console
    _last: str = field(init=False, default="")

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def log(self, text: str) -> None:
        """Show lines of the log."""
        say(self._console, text)

    def show(self, build: Build) -> None:
        """Show how far the build has come."""
        told = f"{build.image}: {describe(build)}"
        if told != self._last:
            self._last = told
            say(self._console, told)


class Bar:
    """A terminal: a bar at the bottom, and the log above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            BarColumn(bar_width=_BAR, table_column=Column(min_width=_BAR)),
            TextColumn("{task.description}", markup=False),
            console=console,
            # Once for each answer: no thread is needed.
            auto_refresh=False,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def log(self, text: str) -> None:
        """Show lines of the log."""
        self._console.print(Text(_clean_lines(text)), soft_wrap=True)

    def show(self, build: Build) -> None:
        """Show how far the build has come."""
        if self._task is None:
            self._task = self._progress.add_task("")
        self._progress.update(
            self._task,
            completed=build.progress.done,
            total=build.progress.expected or None,
            description=describe(build),
            refresh=True,
        )


def screen_of(console: Console) -> Screen:
    """Choose what suits where the console leads."""
    return Bar(console) if console.is_interactive else Lines(console)


def say(console: Console, text: str) -> None:
    """Write lines, none of which the terminal obeys."""
    # Without rich, which takes minutes for a long log.
    console.file.write(_clean_lines(text) + "\n")
    console.file.flush()


def _clean_lines(text: str) -> str:
    return "\n".join(map(clean, text.split("\n")))


def _time(build: Build, now: datetime) -> str:
    """Say how long a build took, or since when it was asked for."""
    seconds = build.seconds
    if seconds is None and not build.state.is_over:
        seconds = max(0.0, (now - build.asked_at).total_seconds())
    return "" if seconds is None else f"{seconds:.0f} s"


def list_builds(console: Console, builds: Sequence[Build], now: datetime) -> None:
    """
    Write a table; where nobody looks, a line with tabs for each build.

    :param now: with a time zone.
    """
    rows = [
        [
            clean(build.id),
            _DIGEST.sub(r"\1…", clean(build.image))
            if console.is_terminal
            else clean(build.image),
            f"{build.asked_at:%Y-%m-%d %H:%M:%S}",
            _time(build, now),
            describe(build),
        ]
        for build in builds
    ]
    if not console.is_terminal:
        for row in rows:
            say(console, "\t".join(row))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("ID", "IMAGE", "ASKED (UTC)", "TOOK", "STATE"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def list_swept(console: Console, swept: Mapping[str, Any]) -> None:
    """
    Write what a sweep let go of.

    :param swept: the schema ``Sweep``.
    """
    for image in swept["images"]:
        pulled = image["last_pulled"] or "never"
        say(
            console,
            f"{' '.join(image['names'])}: {size(image['bytes'])},"
            f" last pulled {pulled}: {image['reason']}",
        )
    would = "would free" if swept["dry_run"] else "freed"
    say(
        console,
        f"{would} {size(swept['freed_bytes'])}: {len(swept['images'])} images,"
        f" {swept['blobs']} blobs; {size(swept['kept_bytes'])} stay",
    )
