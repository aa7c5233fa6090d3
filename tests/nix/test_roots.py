"""Tests for `forgereg.nix.roots`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forgereg.nix.roots import Roots
from tests.doubles import store_path

HELLO, OTHER = store_path("hello.drv"), store_path("other.drv")


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Links of two derivations, written at 5 s since the epoch."""
    for derivation in (HELLO, OTHER):
        name = derivation.removeprefix("/nix/store/").removesuffix(".drv")
        for link in (name, f"{name}-dev"):
            (tmp_path / link).symlink_to("/nix/store/nowhere")
    (tmp_path / "notes").write_text("somebody's own")
    (tmp_path / "result").symlink_to("/nix/store/nowhere")
    for path in tmp_path.iterdir():
        os.utime(path, (5.0, 5.0), follow_symlinks=False)
    return Roots(tmp_path)


def names(roots: Roots) -> list[str]:
    return sorted(
        path.name.partition("-")[2] or path.name for path in roots.folder.iterdir()
    )


def test_deleted_derivation(roots: Roots) -> None:
    """A derivation that is let go of loses the links of all its outputs, and no other."""
    roots.delete(HELLO)
    roots.delete(HELLO)
    assert names(roots) == ["notes", "other", "other-dev", "result"]


def test_links_that_nothing_needs(roots: Roots) -> None:
    """Links of derivations that nobody knows are deleted, but nothing that is not ours."""
    assert roots.delete_others([HELLO], 5.1) == 2
    assert names(roots) == ["hello", "hello-dev", "notes", "result"]


def test_young_links_stay(roots: Roots) -> None:
    """A link that nix has just made stays, even if nobody knows it yet."""
    assert roots.delete_others([], 5.0) == 0


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """A directory of links that somebody has deleted is no error."""
    roots = Roots(tmp_path / "roots")
    roots.delete(HELLO)
    assert roots.delete_others([], 5.0) == 0
