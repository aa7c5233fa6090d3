"""
The links that keep images from nix's garbage collector. Blocking: for threads.

::

    roots/<hash>-<name>           link to what the derivation <hash>-<name>.drv built
    roots/<hash>-<name>-<output>  link to an output of it that is not ``out``

Nix writes them when it builds, and its collector frees what no link leads to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

#: What a derivation's file and its links begin with. Source: Nix manual, "Store Path".
_HASH = re.compile(r"[0-9a-z]{32}-")


@frozen
class Roots:
    """
    The GC roots below one directory.

    :ivar folder: holds nothing else; what has no such name is left alone.
    """

    folder: Path

    def delete(self, derivation: str) -> None:
        """
        Delete the links of a derivation.

        :param derivation: store path of its ``.drv``.
        """
        begin = _begin(derivation.rpartition("/")[2])
        for link in self._links():
            if _begin(link.name) == begin:
                link.unlink(missing_ok=True)

    def delete_others(self, derivations: Iterable[str], written_before: float) -> int:
        """
        Delete the links of all other derivations.

        :param written_before: what is as young as this stays, in seconds since the
            epoch: a build may just have ended.
        :returns: how many.
        """
        kept = {_begin(each.rpartition("/")[2]) for each in derivations}
        others = [
            link
            for link in self._links()
            if _begin(link.name) not in kept and link.lstat().st_mtime < written_before
        ]
        for link in others:
            link.unlink(missing_ok=True)
        return len(others)

    def _links(self) -> list[Path]:
        links = self.folder.iterdir() if self.folder.is_dir() else ()
        return [link for link in links if link.is_symlink() and _begin(link.name)]


def _begin(name: str) -> str:
    match = _HASH.match(name)
    return match[0] if match else ""
