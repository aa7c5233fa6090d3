"""Tests for `forgereg.assembly`: settings that change while it runs."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from forgereg.web.guard import Clients
from tests.registry import serving


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
