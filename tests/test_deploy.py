"""Tests for what deployments are made of: all of it speaks of this registry."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from forgereg.config import TABLE, defaults, read_settings
from tests.daemon import ROOT
from tests.registry import Served

DEPLOY = ROOT / "deploy"

ROWS = {row.variable: row for row in TABLE}
DEFAULTS = defaults({}, "/root", "x86_64")

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["registry"]
IMAGE = (DEPLOY / "image.nix").read_text()


def kubernetes(file: str) -> Any:
    """Read a file of the kustomization."""
    return yaml.safe_load((DEPLOY / "kubernetes" / file).read_text())


POD = kubernetes("deployment.yaml")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def settings() -> Iterator[tuple[str, str]]:
    """Give each setting that something is deployed with."""
    (literals,) = kubernetes("kustomization.yaml")["configMapGenerator"]
    yield from (line.split("=", 1) for line in literals["literals"])
    for name, value in COMPOSE["environment"].items():
        yield name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
    # What the image sets for others than the registry has no such names.
    yield from re.findall(r'"((?:FORGE|FLASK)_[A-Z_]+)=(.*)"', IMAGE)


@pytest.mark.parametrize(("name", "value"), tuple(settings()))
def test_settings(name: str, value: str) -> None:
    """What is set is a setting, to a value that makes sense."""
    assert name in ROWS
    read_settings({}, {name: value}, DEFAULTS)


def test_ports() -> None:
    """Everything that leads to the registry leads to the port that it listens on."""
    port = int(ROWS["FLASK_PORT"].default)
    assert [each["containerPort"] for each in CONTAINER["ports"]] == [port]
    (service,) = kubernetes("service.yaml")["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (port, "http")
    assert COMPOSE["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f'ExposedPorts."{port}/tcp"' in IMAGE
    socket = (DEPLOY / "systemd" / "forge-registry.socket").read_text()
    assert f"ListenStream=127.0.0.1:{port}\n" in socket


def test_probes(served: Served) -> None:
    """What is asked of a registry that is deployed is answered."""
    probes = [each for name, each in CONTAINER.items() if name.endswith("Probe")]
    paths = {each["httpGet"]["path"] for each in probes}
    assert len(probes) == 3
    (monitored,) = kubernetes("monitoring/servicemonitor.yaml")["spec"]["endpoints"]
    for test in (COMPOSE["healthcheck"]["test"], re.findall('"(.*)"', IMAGE)):
        paths |= {
            found[1]
            for each in test
            if (found := re.fullmatch(r"http://[^/]+(/.+)", each))
        }
    assert paths == {"/healthz", "/readyz"}
    for path in paths | {monitored["path"]}:
        assert served.get(path).status != 404, path


def test_time_to_stop() -> None:
    """Nobody kills the registry while it waits for transfers to end well."""
    needed = float(ROWS["FORGE_STOP_TIMEOUT"].default) + 10
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "systemd" / "forge-registry.service")
    given = (
        POD["terminationGracePeriodSeconds"],
        COMPOSE["stop_grace_period"].removesuffix("s"),
        unit["Service"]["TimeoutStopSec"],
    )
    assert all(float(seconds) > needed for seconds in given)


def test_one_owner() -> None:
    """Kubernetes never runs two registries in one state directory."""
    spec = kubernetes("deployment.yaml")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
