"""Tests for `forgereg.web.arguments`: what is looked for in builds, over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry import serving


@pytest.mark.parametrize(
    "query", ["limit=ten", "limit=%D9%A3", "limit=-1", "state=lost"]
)
def test_nonsense(tmp_path: Path, query: str) -> None:
    """Whoever asks for nonsense is told what would make sense."""
    with serving(tmp_path) as served:
        answer = served.get(f"/-/api/builds?{query}")
    assert answer.status == 400
    assert b"must be" in answer.body or b"those are" in answer.body


@pytest.mark.parametrize("query", ["state=failed,done", "state=done&state=failed"])
def test_states(tmp_path: Path, query: str) -> None:
    """Builds in any of several states are found, however these are written."""
    with serving(tmp_path) as served:
        served.pull("packages/hello")
        builds = served.get(f"/-/api/builds?limit=1&{query}").json["builds"]
    assert [build["state"] for build in builds] == ["done"]
