"""
Say in a line why a build failed: what the registry says at length in, a line out. Pure.
"""

from __future__ import annotations

import re

#: How much of a reason is looked at, in characters.
_MOST_READ = 2**14
#: What the reader knows, where a line stands beside the image's name.
_KNOWN = re.compile(r"(?:build|evaluation|streaming|closure) of \S+ (?:failed[:,] )?")
#: What says no more than that a builder failed. Newer nix puts it on a line of its own.
_BUILDER = re.compile(
    r"[Bb]uilder (?:for '[^'\n]*' )?failed|^it (?:ended with status|was ended by)"
    r"|did not say why",
    re.MULTILINE,
)
#: Lines of its log that follow, as nix and the registry write them.
_LINES = re.compile(r"(?:^ *> .*\n?)+", re.MULTILINE)
#: Source: the Nix manual, "Store Path": 32 characters of base 32, and a name.
_STORE_PATH = re.compile(
    r"(?:/[\w.+-]+){1,8}/[0-9a-df-np-sv-z]{32}-([\w.+?=-]*[\w+?=-])"
)


def gist(reason: str) -> str:
    """
    Give the last words of the builder that failed, or else what the reason begins with.

    Store paths in it are shortened to their names.
    """
    reason = _KNOWN.sub("", reason[:_MOST_READ], count=1).strip()
    first = reason.partition("\n")[0]
    builder = _BUILDER.search(reason)
    lines = builder and _LINES.search(reason, builder.end())
    said = [line.strip(" >") for line in lines[0].splitlines()] if lines else []
    words = next((line for line in reversed(said) if line), "")
    if words and first.startswith("timed out"):
        words = f"{first.partition(': ')[0]}: {words}"
    return _STORE_PATH.sub(_name, words or first.rstrip(";:, "))


def _name(path: re.Match[str]) -> str:
    return path[1].removesuffix(".drv")
