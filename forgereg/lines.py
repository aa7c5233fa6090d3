"""
Write what was logged, one line for each event, as text for people or JSON for machines.

Whatever is hostile in it stays within its line, is bounded and valid UTF-8, and secrets
are hidden. Pure.

Twisted's own formats are not enough: `eventAsJSON` gives up on an event whose format
does not fit its fields, and writes secrets, objects and half surrogates as they are; its
text is not bounded, and lets a terminal be steered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from attrs import define, field, frozen
from twisted.logger import LogEvent, LogLevel, formatEvent, formatTime
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

#: What follows ``//``, up to the last ``@``; what follows a parameter or a header that
#: names a secret; and tokens that say themselves what they are. A ``?`` may be written
#: ``%3F``, where an address stands within another one.
_SECRETS = re.compile(
    r"(//)[^/\s'\"]+(?=@)"
    r"|((?:[?&;#]|%3f|%26)(?:[a-z0-9]+[_-])*"
    r"(?:token|passw(?:or)?d|secret|(?:api)?key|sig(?:nature)?|credential|auth)"
    r"(?:=|%3d))[^&;\s'\"]+"
    r"|(\b(?:authorization|(?:private|auth|access|job)-token)['\"]?: *(?:b?['\"])?"
    r"(?:(?:basic|bearer|token) +)?)[^\s'\"]+"
    r"|\b(gh[a-z]_|github_pat_|glpat-)[0-9a-z_-]{16,}",
    re.IGNORECASE,
)
#: What is a secret by the name of its field.
_SECRET_NAMES = re.compile(r"(?:token|password|secret|authorization)\Z", re.IGNORECASE)

#: How much is written of a message, a traceback and a field, in characters; how many
#: fields, and entries of one; and how deep these may be.
_MOST_TEXT, _MOST_TRACE, _MOST_FIELD = 2**14, 2**15, 2**12
_MOST_FIELDS, _MOST_DEPTH = 50, 3
#: What other programs can read of a number.
_MOST_NUMBER = 2**63
#: What Twisted puts into events, beside what begins with ``log_``.
_OF_TWISTED = {"failure", "format", "isError", "message", "system", "time", "why"}


def masked(text: str) -> str:
    """Hide passwords and tokens that stand in URLs, such as a flake ref's."""
    return _SECRETS.sub(lambda found: f"{found[found.lastindex or 0]}***", text)


def cut(text: str, most: int) -> str:
    """Keep so many characters, and say so where there were more."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def visible(text: str, but: str = "") -> str:
    """
    Write any text so that it neither leaves its line nor plays tricks on who reads it.

    What cannot be seen (control characters, what turns the direction of writing, halves
    of surrogate pairs) is written as in a Python string.

    :param but: characters that may stay nevertheless.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or each in but
        else each.encode("unicode_escape").decode()
        for each in text
    )


def one_line(text: str, most: int, but: str = "") -> str:
    """
    Write any text as `visible` does, on one line that is cut if it is long.

    :param most: how long it may be, in characters.
    """
    line = visible(" ".join(text[: 2 * most].split()), but)
    return line if len(line) <= most else f"{line[: most - 1]}…"


#: What cannot be seen either, and does no harm in a page: blanks, ends of lines, and
#: what joins emoji.
HARMLESS = "\t\n\u00a0\u200d\u2009\u202f\u3000"


def message(event: LogEvent, most: int = _MOST_TEXT, but: str = "") -> str:
    """
    Write what an event says.

    :param most: how much of it is kept, in characters.
    :param but: as `visible` has it.
    """
    # Bounded first: what is searched for secrets may be any length.
    return visible(masked(cut(formatEvent(event), most)), but)


def summary(failure: Failure, most: int, but: str = "") -> str:
    """
    Write what went wrong, without a traceback.

    :param but: as `visible` has it.
    """
    name = getattr(failure.type, "__name__", "?")
    return visible(masked(cut(f"{name}: {failure.getErrorMessage()}", most)), but)


@frozen
class Answered:
    """
    What the access log has of an answer, however often it is given.

    :ivar target: with its query, without secrets.
    :ivar status: 499 where the client left before anything was sent.
    :ivar sent_bytes: of the body.
    """

    method: str
    target: str
    protocol: str
    status: int
    sent_bytes: int
    referer: str | None
    agent: str | None
    user: str | None
    text: str = field(init=False)

    @text.default
    def _in_text(self) -> str:
        said = f"{self.method} {self.target} {self.protocol}"
        return (
            f"{_quoted(said)} {self.status} {self.sent_bytes or '-'}"
            f" {_quoted(self.referer or '-')} {_quoted(self.agent or '-')}"
        )


@define
class Access:
    """
    A line of the access log; as text it is in the Combined Log Format, and what that
    does not have comes at its end.

    :ivar at: as that format has times.
    :ivar has_left: whether the client left before it had everything.
    """

    answered: Answered
    client: str
    at: str
    seconds: float
    request_id: str
    has_left: bool = False

    def __str__(self) -> str:
        left = " left" if self.has_left else ""
        return (
            f"{self.client} - {self.answered.user or '-'} [{self.at}]"
            f" {self.answered.text} {self.request_id} {self.seconds:.6f}{left}"
        )

    @property
    def fields(self) -> dict[str, Any]:
        """What JSON has of it."""
        told = self.answered
        return {
            "message": f"{told.method} {told.target} {told.status}",
            "client": self.client,
            "user": told.user,
            "method": told.method,
            "path": told.target,
            "protocol": told.protocol,
            "status": told.status,
            "bytes": told.sent_bytes,
            "seconds": round(self.seconds, 6),
            "request_id": self.request_id,
            "agent": told.agent,
            "referer": told.referer,
            "left": self.has_left,
        }


def header_text(value: bytes | None) -> str | None:
    """Give what a client says, as far as it is text, bounded and without secrets."""
    if value is None:
        return None
    text = value[: _MOST_FIELD + 1].decode("utf-8", "backslashreplace")
    return masked(cut(text, _MOST_FIELD))


def text_line(event: LogEvent, marks: Mapping[str, str]) -> str:
    """
    Write an event for people; a traceback's lines follow, each after a tab.

    :param marks: what it is a part of, such as a request.
    """
    access = event.get("access")
    if isinstance(access, Access):
        return str(access)
    said, trace = message(event), _traceback(event)
    if not said and not trace:
        return ""
    when = _second(int(event["log_time"])) if "log_time" in event else "-"
    mark = f" {marks['request_id']}" if "request_id" in marks else ""
    lines = [said, *map(visible, trace.splitlines())]
    return f"{when} [{_system(event)}{mark}] " + "\n\t".join(lines)


def json_line(event: LogEvent, marks: Mapping[str, str]) -> str:
    """
    Write an event as one object of JSON, in ASCII.

    :param marks: what it is a part of, such as a request.
    """
    access = event.get("access")
    level = event.get("log_level") or LogLevel.info
    when = datetime.fromtimestamp(event.get("log_time", 0), UTC)
    line: dict[str, Any] = {
        "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name,
        "namespace": _value(event.get("log_namespace", "-")),
    }
    if isinstance(access, Access):
        return json.dumps({**marks, **line, **access.fields})
    line["message"] = _unbroken(masked(cut(formatEvent(event), _MOST_TEXT)))
    trace = _traceback(event)
    if trace:
        line["failure"] = _unbroken(trace)
    elif not line["message"]:
        return ""
    line |= marks
    # What has the name of one of ours is in the message all the same.
    names = [
        name
        for name in event
        if not (name.startswith("log_") or name in _OF_TWISTED or name in line)
    ]
    for name in names[:_MOST_FIELDS]:
        is_secret = _SECRET_NAMES.search(name)
        line[_unbroken(name)] = "***" if is_secret else _value(event[name])
    return json.dumps(line)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{visible(escaped)}"'


def _system(event: LogEvent) -> str:
    level = event.get("log_level")
    named = f"{event.get('log_namespace', '-')}#{level.name if level else '-'}"
    return visible(cut(safe_str(event.get("log_system") or named), _MOST_FIELD))


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    if failure is None:
        return ""
    try:
        text = failure.getTraceback()
    except Exception as e:  # an exception may do anything when it is asked
        text = f"there is no traceback: {safe_str(e)}"
    return masked(cut(text, _MOST_TRACE))


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return formatTime(second)


def _unbroken(text: str) -> str:
    """Write halves of surrogate pairs so that any reader of JSON takes them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _value(value: object, depth: int = 0) -> Any:
    """Write a field as what JSON has."""
    match value:
        case None | bool():
            return value
        case int() if abs(value) < _MOST_NUMBER:
            return int(value)
        case float() if abs(value) < float("inf"):
            return float(value)
        case bytes():
            value = value[: _MOST_FIELD + 1].decode("utf-8", "backslashreplace")
        case dict() if depth < _MOST_DEPTH:
            return {
                str(_value(safe_str(key))): _value(each, depth + 1)
                for key, each in list(value.items())[:_MOST_FIELDS]
            }
        case list() | tuple() | set() | frozenset() if depth < _MOST_DEPTH:
            return [_value(each, depth + 1) for each in list(value)[:_MOST_FIELDS]]
    text = value if isinstance(value, str) else safe_str(value)
    return _unbroken(masked(cut(text, _MOST_FIELD)))
