"""Tests for `forgereg.web.commands`."""

from __future__ import annotations

import pytest

from forgereg.web.commands import commands, compose_command

DIGEST = f"sha256:{64 * 'a'}"


def pulls(image: str, is_secure: bool) -> dict[str, str]:
    return {each.client: each.pull for each in commands(image, is_secure)}


def notes(image: str, is_secure: bool) -> set[str]:
    return {each.client for each in commands(image, is_secure) if each.note}


def test_tls() -> None:
    """Over TLS no client needs a flag, nor to be set up."""
    short = "registry.example.org/packages/hello"
    image = f"{short}:latest"
    assert pulls(image, is_secure=True) == {
        "docker": f"docker pull {short}",
        "podman": f"podman pull {short}",
        "ctr": f"ctr images pull {image}",
        "nerdctl": f"nerdctl pull {short}",
        "kubernetes": f"image: {image}",
    }
    assert notes(image, is_secure=True) == set()


def test_plain() -> None:
    """Over plain HTTP each client that can be told by a flag is told."""
    short = "localhost:6443/packages/hello"
    image = f"{short}:latest"
    assert pulls(image, is_secure=False) == {
        "docker": f"docker pull {short}",
        "podman": f"podman pull --tls-verify=false {short}",
        "ctr": f"ctr images pull --plain-http {image}",
        "nerdctl": f"nerdctl --insecure-registry pull {short}",
        "kubernetes": f"image: {image}",
    }


@pytest.mark.parametrize(
    ("host", "is_told"),
    [
        ("localhost", False),
        ("127.0.0.1:6443", False),
        ("[::1]:6443", False),
        ("localhost.example.org:80", True),
        ("10.0.0.1:6443", True),
    ],
)
def test_docker_is_set_up(host: str, is_told: bool) -> None:
    """Docker has to be set up for plain HTTP, but not on its own machine."""
    found = notes(f"{host}/packages/hello:latest", is_secure=False)
    assert ("docker" in found) == is_told


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("packages/hello:latest", "hello"),
        ("packages/my_tool.x:1.0", "my-tool-x"),
        (f"packages/hello@{DIGEST}", "hello"),
        (f"applications/shop/{80 * 'w'}:1", 63 * "w"),
    ],
)
def test_names_of_pods(reference: str, name: str) -> None:
    """A pod is called as its image, as far as Kubernetes allows."""
    run = commands(f"localhost:6443/{reference}", is_secure=False)[-1].run
    assert run.startswith(f"kubectl run {name} ")


def test_compose() -> None:
    """An application is started by the address of its compose file."""
    command = compose_command("r.example.org", "team/shop", is_secure=True)
    assert command == (
        "curl -fsSL https://r.example.org/-/applications/team/shop/compose.yaml"
        " | docker compose -p shop -f - up"
    )


def test_other_tags() -> None:
    """A tag that no client takes for meant is in every command."""
    image = "r.example.org/packages/hello:2.12"
    for each in commands(image, is_secure=True):
        assert image in each.pull
        assert image in each.run
