"""
What a store's entries are called: by their path below ``blobs``, such as
``sha256/ab/abcd…`` for a blob and ``sha256/ab/abcd….gzip`` for an encoded form of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from forgereg.oci.reference import Digest

_NAME = re.compile(
    r"(sha256|sha512)/([0-9a-f]{2})/(\2(?:[0-9a-f]{62}|[0-9a-f]{126}))(?:\.(gzip|zstd))?"
)


def name_of(digest: Digest, coding: str) -> str:
    """Write what an entry is called."""
    encoded = digest.encoded
    ending = coding and f".{coding}"
    return f"{digest.algorithm}/{encoded[:2]}/{encoded}{ending}"


def parse(name: str) -> tuple[Digest, str]:
    """Read what an entry is called, as digest and coding."""
    path, _, coding = name.partition(".")
    algorithm, _, encoded = path.split("/")
    return Digest(algorithm, encoded), coding


def names(blobs: Path, after: str = "") -> Iterator[str]:
    """List what is there, in order, from behind one that need not be there. Blocking."""
    for prefix, folder in _folders(blobs):
        if prefix >= after[: len(prefix)]:
            with suppress(FileNotFoundError):
                found = (prefix + file for file in sorted(os.listdir(folder)))
                yield from (n for n in found if n > after and _NAME.fullmatch(n))


def files(blobs: Path) -> Iterator[tuple[str, os.stat_result]]:
    """List what is there, and its state, the forms of a blob in a row. Blocking."""
    for prefix, folder in _folders(blobs):
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                name = prefix + entry.name
                with suppress(FileNotFoundError):
                    stat = entry.stat(follow_symlinks=False)
                    if S_ISREG(stat.st_mode) and _NAME.fullmatch(name):
                        yield name, stat


def _folders(blobs: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(blobs.glob("*/??")):
        if path.is_dir():
            yield f"{path.parent.name}/{path.name}/", path
