"""What Prometheus makes of the metrics of a registry that has built, and of the alerts."""

from __future__ import annotations

import subprocess

from tests.daemon import ROOT, Daemon

HELLO = "/v2/packages/hello/manifests/latest"


def promtool(*words: str, text: bytes = b"") -> None:
    """Have Prometheus' tool check something; it finds no fault."""
    argv = ["promtool", "check", *words]
    checked = subprocess.run(argv, input=text, timeout=60, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_metrics(registry: Daemon) -> None:
    """After a pull, the metrics know of it, and promtool finds no fault with them."""
    manifest = registry.ask(HELLO)
    assert manifest.status == 200
    scraped = registry.ask("/metrics")
    assert scraped.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    promtool("metrics", text=scraped.body)
    lines = dict(
        line.rsplit(" ", 1)
        for line in scraped.body.decode().splitlines()
        if not line.startswith("#")
    )
    for name in (
        'forge_http_requests_total{method="GET",route="manifest",status="200"}',
        'forge_processes_started_total{kind="build"}',
        'forge_processes_started_total{kind="evaluate"}',
        'forge_processes_started_total{kind="lock"}',
        "forge_build_seconds_count",
        "forge_evaluation_seconds_count",
        "forge_archive_reading_seconds_count",
        "process_resident_memory_bytes",
    ):
        assert float(lines[name]) > 0, name
    (info,) = (name for name in lines if name.startswith("forge_registry_info"))
    assert 'nix_version="2.' in info


def test_alerts() -> None:
    """Prometheus takes the alerts as they are."""
    promtool("rules", str(ROOT / "docs" / "prometheus-alerts.yml"))
