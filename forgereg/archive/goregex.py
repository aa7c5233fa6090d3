"""
Search and replace as Go's ``regexp`` does, in time linear in the text. Pure.

Both Go and RE2, which is used here, read one syntax. They differ where a text is not
UTF-8: its odd bytes are characters to Go's patterns, and nothing to RE2's.

Source: Go, package regexp: Regexp.ReplaceAll, Regexp.Expand.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import re2

from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.reference import shown

#: Bytes that a pattern may take when it is compiled, and how many are kept.
_MAX_COMPILED, _KEPT = 2**20, 256
_MAX_PATTERN = 2**14

_TEMPLATE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})?")


def check_pattern(pattern: str) -> None:
    """
    Read a pattern.

    :raises ArchiveInvalid: it is not one.
    """
    _compiled(pattern)


def found(pattern: str, text: bytes) -> bool:
    """Whether a pattern matches anywhere in a text."""
    return _compiled(pattern).search(text) is not None


def replaced(pattern: str, template: str, text: bytes) -> bytes:
    """
    Replace every match of a pattern.

    :param template: ``$1``, ``${1}``, ``$name`` and ``${name}`` are what a group
        matched, ``$$`` is a dollar.
    """
    compiled = _compiled(pattern)
    written: list[bytes] = []
    position = end = 0
    while position <= len(text):
        match = compiled.search(text, position)
        if match is None:
            break
        start, stop = match.span()
        written.append(text[end:start])
        if stop > end or start == 0:
            written.append(_expanded(template, match))
        end = stop
        position = stop if stop > position else position + _width(text, position)
    return b"".join((*written, text[end:]))


@lru_cache(_KEPT)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_COMPILED
    if len(pattern) <= _MAX_PATTERN:
        try:
            return re2.compile(pattern.encode(), options)
        except re2.error as e:
            raise ArchiveInvalid(
                f"a layer has a pattern that cannot be read: {shown(pattern)}"
            ) from e
    raise ArchiveInvalid(f"a layer has a pattern that is too long: {shown(pattern)}")


def _expanded(template: str, match: Any) -> bytes:
    names = match.re.groupindex

    def expand(reference: re.Match[str]) -> str:
        dollar, *either = reference.groups()
        name = either[0] or either[1]
        if dollar or not name:
            return "$"
        group = names.get(name.encode(), names.get(name, -1))
        if name.isascii() and name.isdigit() and (name[0] != "0" or name == "0"):
            group = int(name) if len(name) < 9 else -1
        if not 0 <= group <= match.re.groups:
            return ""
        return (match.group(group) or b"").decode(errors="surrogateescape")

    return _TEMPLATE.sub(expand, template).encode(errors="surrogateescape")


def _width(text: bytes, position: int) -> int:
    """Give how many bytes the character takes that begins at a position."""
    for width in range(1, 5):
        try:
            text[position : position + width].decode()
        except UnicodeDecodeError:
            continue
        return width
    return 1
