"""Tests for `forgereg.secrets`."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgereg.secrets import Secrets, read_secrets
from tests.registry import serving

LONG = "x" * 9000


@pytest.mark.parametrize("name", ["admin_token_file", "hook_secret_file", "token_file"])
@pytest.mark.parametrize("content", [b"", b" \n", LONG.encode(), b"\xff\xfe", None])
def test_secrets_that_are_none(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    """A secret's file that has none stops the start, and is named."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with serving(tmp_path) as served:
        with pytest.raises(ValueError, match=str(file)):
            served.set(**{name: str(file)})


def test_a_file_without_an_end(tmp_path: Path) -> None:
    """A file that goes on for ever is no secret, and is not read for ever."""
    with serving(tmp_path) as served:
        with pytest.raises(ValueError, match="/dev/zero must hold"):
            served.set(admin_token_file="/dev/zero")


def test_secrets(tmp_path: Path) -> None:
    """A secret is what its file holds, without the end of the line; it is not shown."""
    (tmp_path / "secret").write_text("open sesame\n")
    with serving(tmp_path) as served:
        served.set(hook_secret_file=str(tmp_path / "secret"))
        secrets = read_secrets(served.settings)
    assert secrets == Secrets(None, "open sesame")
    assert "sesame" not in repr(secrets)
