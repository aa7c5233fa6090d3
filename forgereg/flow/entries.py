"""
Read what a flake lists as entries of the catalogue, for people. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from forgereg.flow.families import IMAGE, Wanted, images_in, paths_listed
from forgereg.flow.flakes import Flake
from forgereg.lines import HARMLESS, one_line
from forgereg.oci.reference import is_name

#: How much of a text is shown, in characters, and of a link, which is none if it is cut.
_MOST_TEXT, _MOST_WORD, _MOST_LINK = 300, 60, 500


class Kind(Enum):
    """What an entry is."""

    PACKAGE = "package"
    APPLICATION = "application"


@frozen
class Entry:
    """
    A package or an application, as its flake describes it; all texts are its own words.

    :ivar path: repository name of a package's image; what those of an application's
        images begin with, without the slash.
    :ivar attribute: its name in the flake, in the flake's own case.
    :ivar homepage: http or https; None where it has none.
    :ivar prefix: of the flake, as its names have it.
    :ivar question: what is remembered of its derivation is remembered by.
    :ivar images: repository names, as far as they are known unbuilt.
    :ivar name: the last word of its path.
    """

    kind: Kind
    path: str
    attribute: str
    version: str | None
    description: str
    licences: tuple[str, ...]
    homepage: str | None
    prefix: str
    question: str
    images: tuple[str, ...]
    name: str = field(init=False, eq=False)
    _words: str = field(init=False, eq=False)

    @name.default
    def _name(self) -> str:
        return self.path.rpartition("/")[2]

    @_words.default
    def _all_words(self) -> str:
        return f"{self.name} {self.description}".casefold()

    def rank(self, text: str) -> int | None:
        """
        Say how well it is what somebody looks for; 0 is best, None not at all.

        :param text: in lower case.
        """
        for word in text.split():
            if word not in (self.path if "/" in word else self._words):
                return None
        if text in (self.name, self.path):
            return 0
        return 1 if self.name.startswith(text) else 2 if text in self.name else 3


def read_entries(rows: Sequence[Mapping[str, Any]], flake: Flake) -> tuple[Entry, ...]:
    """
    Read what `Flake.listed` gave; what no client could name is left out.

    :param rows: with details, or without.
    """
    found: dict[str, Entry] = {}
    # Of what is one name in lower case, that is pulled which is in lower case.
    for row in sorted(rows, key=lambda row: row["name"] != row["name"].lower()):
        name = row["name"].lower()
        for output, path in paths_listed(row, flake.path):
            if not _is_one(row, path) or path in found:
                continue
            kind, images = Kind.PACKAGE, [path]
            if output != IMAGE:
                kind = Kind.APPLICATION
                images = [
                    f"{path}/{image}" for image in sorted(images_in(row["entries"]))
                ]
            found[path] = Entry(
                kind,
                path,
                row["name"],
                _shown(row.get("version") or "", _MOST_WORD) or None,
                _shown(row.get("description") or "", _MOST_TEXT),
                tuple(
                    filter(
                        None, (_shown(x, _MOST_WORD) for x in row.get("licences", ()))
                    )
                ),
                next(filter(is_link, row.get("homepages", ())), None),
                flake.prefix,
                flake.question(Wanted(name, output)),
                tuple(filter(is_name, images)),
            )
    return tuple(found.values())


def read_unnamed(rows: Sequence[Mapping[str, Any]], flake: Flake) -> tuple[str, ...]:
    """List what has an image, or is an application, that no client could name."""
    return tuple(
        _shown(row["name"], _MOST_WORD)
        for row in rows
        if any(not _is_one(row, path) for _, path in paths_listed(row, flake.path))
    )


def is_link(text: str) -> bool:
    """Whether a text is a link to a page, and no longer than anyone would write one."""
    # What follows a backslash is a path to browsers, and not so to `urlsplit`.
    is_plain = text.isprintable() and not set(text) & {" ", "\\"}
    if len(text) > _MOST_LINK or not is_plain:
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _shown(text: str, most: int) -> str:
    return one_line(text, most, HARMLESS)


def _is_one(row: Mapping[str, Any], path: str) -> bool:
    """Whether a package can be pulled as the path that its name makes."""
    return "/" not in row["name"] and is_name(path)
