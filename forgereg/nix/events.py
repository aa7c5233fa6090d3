"""
Read a line of what nix says with ``--log-format internal-json``. Pure.

Some lines are for people, others tell of activities: that one began or ended, or what
became known of it.

Whatever a line says, a builder may have forged it: success and failure are told by
nix's exit status alone, and what is read here is for people.

Source: nix `src/libutil/logging.cc`, class JSONLogger; tried on 2.8 and 2.26.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, TypeAlias

from attrs import evolve, frozen

from forgereg.nix.longlines import without_mark

_PREFIX = b"@nix "
#: What sets colours and the like: ECMA-48, SGR.
_COLOUR = r"\x1b\[[0-9;]*m"
#: Also lone surrogates, which JSON can hold and no file.
_ESCAPE = (
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|"  # titles and links
    r"\x1b\[[0-9;:?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
)
_ESCAPES = re.compile(_ESCAPE)
_OTHER_ESCAPES = re.compile(rf"(?!{_COLOUR})(?:{_ESCAPE})")

#: Beginning and end of a line of a builder's log: nix sorts the keys of its events.
_BUILDER_BEGINS, _BUILDER_ENDS = b'@nix {"action":"result","fields":["', b',"type":101}'
#: What may end an event whose end is missing.
_ENDS = b'"],"type":101}', b'"}', b'"}]}'
#: How many bytes write a character at most, as JSON does: ``\\u001b``.
_LONGEST_ESCAPE = 6
#: How long a line may be that goes unread, in bytes.
_MAX_UNREAD = 4096


class Said(Enum):
    """Who said a line, and how loudly."""

    ERROR = "error"
    NOTICE = "notice"
    BUILDER = "builder"
    OTHER = "other"


@frozen
class Line:
    """
    One line, or one message of several lines, for a person to read.

    :ivar text: without colours and control characters, other than line ends.
    :ivar coloured: the same with the sequences that set colours; empty if there are
        none.
    :ivar left_out: how much of its end was too long to be read, in characters at most.
    """

    said: Said
    text: str
    coloured: str = ""
    left_out: int = 0

    @classmethod
    def read(cls, said: Said, text: str, place: str = "") -> Line:
        """Read what may have any sequences in it."""
        bare = plain(text)
        bright = coloured(text) if "\x1b" in text else bare
        return cls(said, bare + place, bright + place if bright != bare else "")


@frozen
class Started:
    """
    An activity began.

    :ivar kind: nix's number for what it is about, such as 105: a derivation is built.
    :ivar fields: what it is about; strings and numbers, as far as can be trusted.
    :ivar text: the same for a person.
    """

    id: int
    kind: int
    fields: tuple[Any, ...]
    text: str


@frozen
class Stopped:
    """An activity ended, well or not."""

    id: int


@frozen
class Told:
    """
    Something became known of an activity: what nix calls a result.

    :ivar kind: nix's number for what is told, such as 105: how far it has come.
    """

    id: int
    kind: int
    fields: tuple[Any, ...]


Event: TypeAlias = Line | Started | Stopped | Told


def parse_event(raw: bytes) -> Event | None:
    """
    Read a line of nix's standard error.

    :returns: None for what is neither for people nor about an activity.
    """
    kept, left_out = without_mark(raw)
    if not left_out:
        return _parse(raw)
    # Whose end is missing: a line of a builder's log, or a message.
    ends = _ENDS if kept.startswith(_PREFIX) else (b"",)
    for end in ends:
        for broken in range(_LONGEST_ESCAPE):
            event = _parse(kept[: len(kept) - broken] + end)
            if isinstance(event, Line):
                return evolve(event, left_out=left_out + broken)
    return None


def _parse(raw: bytes) -> Event | None:
    if not raw.startswith(_PREFIX):
        # What nix's own children say goes past its log format.
        line = Line.read(Said.OTHER, raw.decode("utf-8", "replace"))
        return line if line.text else None
    try:
        event = json.loads(raw[len(_PREFIX) :].decode())
    except (ValueError, RecursionError):
        return None
    match event:
        # 101: a line of a builder's log
        case {"action": "result", "type": 101, "fields": [str(text), *_]}:
            return Line.read(Said.BUILDER, text)
        case {"action": "result", "id": int(id), "type": int(kind), "fields": fields}:
            return Told(id, kind, _tuple(fields))
        case {"action": "start", "id": int(id), "type": int(kind)}:
            fields, text = _tuple(event.get("fields")), event.get("text")
            return Started(id, kind, fields, text if isinstance(text, str) else "")
        case {"action": "stop", "id": int(id)}:
            return Stopped(id)
        case {"action": "msg", "level": 0, "raw_msg": str(text)}:
            return Line.read(Said.ERROR, text, _place(event))
        case {"action": "msg", "level": 0 | 1 | 2 as level, "msg": str(text)}:
            return Line.read(Said.NOTICE if level else Said.ERROR, text)
    return None


def parse_line(raw: bytes) -> Line | None:
    """
    Read a line of nix's standard error for a person.

    :returns: None for what is no message: the comings and goings of activities.
    """
    event = parse_event(raw)
    return event if isinstance(event, Line) else None


def is_builder_line(raw: bytes) -> bool:
    """
    Say without reading it whether a line is one of a builder's log.

    Long ones, and those of a nix that writes its events otherwise, may go unnoticed.
    """
    return (
        len(raw) <= _MAX_UNREAD
        and raw.startswith(_BUILDER_BEGINS)
        and raw.endswith(_BUILDER_ENDS)
    )


def _tuple(fields: object) -> tuple[Any, ...]:
    return tuple(fields) if isinstance(fields, list) else ()


def plain(text: str) -> str:
    """Take out what would steer a terminal, and blanks at the end."""
    return _without(_ESCAPES, text)


def coloured(text: str) -> str:
    """Take out what would steer a terminal, but for colours."""
    return _without(_OTHER_ESCAPES, text)


def _without(escapes: re.Pattern[str], text: str) -> str:
    # Most lines have nothing to take out, which is told faster so.
    if not text.isprintable():
        if "\r" in text:  # a line that was written over is what it was in the end
            ends = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
            text = "\n".join(ends)
        text = escapes.sub("", text)
    return text.rstrip()


def _place(event: dict[str, Any]) -> str:
    """Say where in the flake it happened, as far as the event tells."""
    match event:
        case {"file": str(file), "line": int(line), "column": int(column)}:
            # A flake lies in the store as /nix/store/<hash>-source.
            return f" (at {file.rpartition('-source/')[2]}:{line}:{column})"
    return ""
