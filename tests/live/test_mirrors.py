"""Clients that are told where a registry of another name is, as documented."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.daemon import Daemon
from tests.live.clients import Containerd, Docker, Podman, Skopeo
from tests.live.documented import documented

IMAGE = "forge.example.org/packages/hello:latest"


def address(registry: Daemon) -> dict[str, str]:
    """Say what stands in the settings instead of the documentation's address."""
    return {"192.0.2.10:6443": f"localhost:{registry.port}"}


def test_podman(registry: Daemon, podman: Podman, tmp_path: Path) -> None:
    """podman pulls over plain HTTP, by a name that no server has."""
    settings = tmp_path / "forge.conf"
    settings.write_text(documented("toml\n# /etc/containers/", address(registry)))
    pulled = podman.shell(
        f"$client pull {IMAGE} && $client images",
        CONTAINERS_REGISTRIES_CONF=str(settings),
    )
    assert pulled.status == 0, pulled.text
    assert "forge.example.org/packages/hello" in pulled.out


def test_skopeo(registry: Daemon, skopeo: Skopeo, tmp_path: Path) -> None:
    """skopeo copies out of the registry, by the same settings."""
    settings = tmp_path / "forge.conf"
    settings.write_text(documented("toml\n# /etc/containers/", address(registry)))
    target = tmp_path / "copied"
    options = ("--registries-conf", str(settings), "copy")
    copied = skopeo.call(*options, f"docker://{IMAGE}", f"dir:{target}")
    assert copied.status == 0, copied.text
    assert (target / "manifest.json").exists()


def test_containerd(registry: Daemon, containerd: Containerd, tmp_path: Path) -> None:
    """containerd finds a Kubernetes node's settings by the registry's name."""
    folder = tmp_path / "forge.example.org"
    folder.mkdir()
    changed = {
        before + old: before + new
        for before in ('server = "http://', '[host."http://')
        for old, new in address(registry).items()
    }
    text = documented("toml\n# /etc/containerd/", changed)
    (folder / "hosts.toml").write_text(text)
    pulled = containerd.call("images", "pull", "--hosts-dir", str(tmp_path), IMAGE)
    assert pulled.status == 0, pulled.text


def test_docker(registry: Daemon, tmp_path: Path) -> None:
    """Docker asks its mirror of Docker Hub for a package that has no registry's name."""
    with Docker(tmp_path, documented("json\n", address(registry))) as docker:
        pulled = docker.pull("packages/hello")
        assert pulled.status == 0, pulled.text


def test_k3s(registry: Daemon) -> None:
    """What k3s is told is what containerd is told."""
    told = yaml.safe_load(documented("yaml\n# /etc/rancher/", address(registry)))
    endpoints = told["mirrors"]["forge.example.org"]["endpoint"]
    assert endpoints == [f"http://localhost:{registry.port}"]
