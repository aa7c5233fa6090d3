"""A store that was just prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgereg.blobs.store import BlobStore


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    made = BlobStore(tmp_path / "state")
    made.prepare()
    return made
