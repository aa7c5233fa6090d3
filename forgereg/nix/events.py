"""
Read a line of what nix says with ``--log-format internal-json``. Pure.

Whatever a line says, a builder may have forged it: success and failure are told by
nix's exit status alone, and what is read here is for people.

Source: nix `src/libutil/logging.cc`, makeJSONLogger; tried on 2.8 and 2.26.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any

from attrs import frozen

_PREFIX = b"@nix "
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


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
    """

    said: Said
    text: str


def parse_line(raw: bytes) -> Line | None:
    """
    Read a line of nix's standard error.

    :returns: None for what is no message: the comings and goings of activities.
    """
    if not raw.startswith(_PREFIX):
        # What nix's own children say goes past its log format.
        text = _plain(raw.decode("utf-8", "replace"))
        return Line(Said.OTHER, text) if text else None
    try:
        event = json.loads(raw[len(_PREFIX) :])
    except (ValueError, RecursionError):
        return None
    match event:
        # 101: a line of a builder's log
        case {"action": "result", "type": 101, "fields": [str(text), *_]}:
            return Line(Said.BUILDER, _plain(text))
        case {"action": "msg", "level": 0, "raw_msg": str(text)}:
            return Line(Said.ERROR, _plain(text) + _place(event))
        case {"action": "msg", "level": 0 | 1 | 2 as level, "msg": str(text)}:
            return Line(Said.NOTICE if level else Said.ERROR, _plain(text))
    return None


def _plain(text: str) -> str:
    return _ESCAPES.sub("", text).rstrip()


def _place(event: dict[str, Any]) -> str:
    """Say where in the flake it happened, as far as the event tells."""
    match event:
        case {"file": str(file), "line": int(line), "column": int(column)}:
            # A flake lies in the store as /nix/store/<hash>-source.
            return f" (at {file.rpartition('-source/')[2]}:{line}:{column})"
    return ""
