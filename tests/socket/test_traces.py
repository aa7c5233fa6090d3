"""Traces where there is no collector, and where nobody wants any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from forgereg.traces import are_wanted
from tests.daemon import environment, free_port, registry

FLAKE = "path:/nowhere"


def test_nothing_is_loaded(tmp_path: Path) -> None:
    """Who wants no traces has nothing of OpenTelemetry in memory."""
    code = (
        "import forgereg.tap, sys; print([m for m in sys.modules if 'telemetry' in m])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True,
        text=True, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    assert said.stdout == "[]\n"


def test_no_collector(tmp_path: Path) -> None:
    """A collector that is away is told of in one line, and keeps nobody waiting."""
    where = f"http://127.0.0.1:{free_port()}"
    with registry(
        tmp_path,
        FLAKE,
        OTEL_EXPORTER_OTLP_ENDPOINT=where,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_SCHEDULE_DELAY="10",
    ) as running:
        for _ in range(20):
            running.ask("/v2/packages/hello/manifests/latest")
        running.wait_for("traces are not sent")
        running.stop()
        assert running.logged().count("traces are not sent") == 1
        assert "Traceback" not in running.logged()


URL = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({URL: ""}, False),
        ({URL: "http://x:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://x/v1/traces"}, True),
        ({URL: "http://x:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({URL: "http://x:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        (
            {URL: "http://x:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            True,
        ),
    ],
)
def test_wanted(environ: dict[str, str], wanted: bool) -> None:
    """Traces are kept if somebody has said where to send them, and not otherwise."""
    assert are_wanted(environ) is wanted


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({URL: "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT is not the URL"),
        ({URL: "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "usually 4318"),
    ],
)
def test_nonsense(environ: dict[str, str], said: str) -> None:
    """What cannot work is told in a line that says what to do."""
    with pytest.raises(ValueError, match=said):
        are_wanted(environ)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenTelemetry is not installed, it is told what to install."""
    monkeypatch.setattr("forgereg.traces.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"forge-registry\[traces\]"):
        are_wanted({URL: "http://x:4318"})
