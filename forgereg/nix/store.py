"""
Find files of the Nix store, wherever that lies. Blocking, for threads.

A store may lie below another root (``nix --store /some/root``): its paths and the
links in it say ``/nix/store/…`` all the same, and are followed below that root, never
out of the store.
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from urllib.parse import parse_qs

from attrs import frozen

from forgereg.oci.errors import ArchiveInvalid

_MAX_LINKS = 40


@frozen
class Store:
    """
    A Nix store as files.

    :ivar root: what stands before ``/nix/store`` where its files really lie.
    """

    root: Path

    def locate(self, path: str) -> tuple[str, Path]:
        """
        Follow a store path, and links on the way, to a file or directory.

        :param path: such as ``/nix/store/<hash>-<name>/web.tar.gz``.
        :returns: the path within the store that it leads to, and where that lies.
        :raises ArchiveInvalid: a link leads out of the store, or in circles.
        :raises FileNotFoundError: nothing is there.
        """
        store = posixpath.dirname(path[: _top_end(path)])
        for _ in range(_MAX_LINKS):
            try:
                target = self._follow_first(path, store)
                if target is None:
                    real = self.real(path)
                    real.stat()
                    return path, real
            except FileNotFoundError:
                raise
            except OSError as e:
                raise ArchiveInvalid(
                    f"the image is a link that cannot be followed: {e.strerror}"
                ) from e
            path = target
        raise ArchiveInvalid("the image is a link that leads in circles")

    def _follow_first(self, path: str, store: str) -> str | None:
        """Replace the first link in a path by its target; None where there is none."""
        if not path.startswith(f"{store}/"):
            raise ArchiveInvalid("the image is a link that leads out of the Nix store")
        parts = path[len(store) + 1 :].split("/")
        for n in range(1, len(parts) + 1):
            here = posixpath.join(store, *parts[:n])
            real = self.real(here)
            if real.is_symlink():
                target = posixpath.join(posixpath.dirname(here), str(real.readlink()))
                return posixpath.normpath(posixpath.join(target, *parts[n:]))
        return None

    def real(self, path: str) -> Path:
        """Say where a path of the store lies; links in it are not followed."""
        return self.root / path.lstrip("/")


def _top_end(path: str) -> int:
    """Find where the ``/nix/store/<hash>-<name>`` at the head of a path ends."""
    parts = path.split("/")
    for n, part in enumerate(parts):
        if len(part) > 33 and part[32] == "-":
            return len("/".join(parts[: n + 1]))
    raise ArchiveInvalid("what nix built is not a path in the Nix store")


def store_root(store: str) -> Path:
    """
    Say below which root a store's files lie.

    :param store: as ``nix --store`` has it; empty for nix's own choice.
    :raises ValueError: it is on another machine, or not a file system's.
    """
    base, _, query = store.partition("?")
    root = parse_qs(query).get("root", [""])[-1]
    if base.startswith("/"):
        return Path(base)
    if base in ("", "auto", "daemon", "local") or base.startswith("unix://"):
        return Path(root or "/")
    raise ValueError(store)
