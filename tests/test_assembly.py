"""Tests for `forgereg.assembly`: the files that settings name."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from forgereg.assembly import Secrets, read_secrets
from forgereg.web.guard import Clients
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


def test_how_layers_travel(tmp_path: Path) -> None:
    """How layers travel, and whose word on addresses counts, changes at once."""
    near, proxies = (ip_network("10.0.0.0/8"),), (ip_network("192.0.2.1"),)
    settings = {"fast_networks": near, "trusted_proxies": proxies}
    with serving(tmp_path) as served:
        assert served.set(transfer_coding="never", **settings) == []
        assert served.assembly.entrance.codings.mode == "never"
        assert served.assembly.entrance.clients == Clients(proxies, near)


def test_what_needs_a_restart(tmp_path: Path) -> None:
    """Whoever changes settings is told which of them have to wait for a restart."""
    with serving(tmp_path) as served:
        assert served.set(max_builds=3, max_hold=7.0) == []
        assert served.builds.slots.most == 3
        assert served.set(cache_size=7, pins=("packages/x",)) == ["CACHE_SIZE"]
