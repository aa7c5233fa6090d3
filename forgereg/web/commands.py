"""
Write the commands with which images are pulled, for each of their clients. Pure.
"""

from __future__ import annotations

import re

from attrs import frozen

#: Where clients expect no TLS. Source: docker, registry/config.go; containerd,
#: core/remotes/docker/config.
_HERE = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?")
#: What no name of a pod may have. Source: RFC 1123, section 2.1.
_NO_LABEL = re.compile(r"[^a-z0-9]+")
_MAX_LABEL = 63


@frozen
class Commands:
    """
    How one client is used.

    :ivar client: a word that stands for it in addresses, such as ``docker``.
    :ivar title: how its users call it.
    :ivar pull: pulls the image; for Kubernetes, the line of a manifest that has it
        pulled.
    :ivar run: runs it; with some clients, only what was pulled before.
    :ivar note: what is to be set up first; empty for nothing.
    """

    client: str
    title: str
    pull: str
    run: str
    note: str = ""


def commands(image: str, is_secure: bool) -> tuple[Commands, ...]:
    """
    Write the commands for an image.

    :param image: a whole reference, such as ``localhost:6443/packages/hello:latest``.
    :param is_secure: whether its registry is spoken to in TLS.
    """
    host, _, rest = image.partition("/")
    name = _pod_name(rest)
    # What all but ctr take for meant.
    short = image.removesuffix(":latest")
    podman, ctr, nerdctl, for_docker, for_nodes = "", "", "", "", ""
    if not is_secure:
        podman, ctr, nerdctl = (
            " --tls-verify=false",
            " --plain-http",
            " --insecure-registry",
        )
        if not _HERE.fullmatch(host):
            for_docker = (
                "This address speaks plain HTTP, which Docker has to be told first:"
                f' "insecure-registries": ["{host}"] in /etc/docker/daemon.json.'
            )
        for_nodes = (
            "This address speaks plain HTTP, which each node has to be told first:"
            " in containerd's hosts.toml, or in k3s' registries.yaml."
        )
    return (
        Commands(
            "docker",
            "Docker",
            f"docker pull {short}",
            f"docker run --rm -it {short}",
            for_docker,
        ),
        Commands(
            "podman",
            "Podman",
            f"podman pull{podman} {short}",
            f"podman run --rm -it{podman} {short}",
        ),
        Commands(
            "ctr",
            "ctr",
            f"ctr images pull{ctr} {image}",
            f"ctr run --rm -t {image} {name}",
        ),
        Commands(
            "nerdctl",
            "nerdctl",
            f"nerdctl{nerdctl} pull {short}",
            f"nerdctl{nerdctl} run --rm -it {short}",
        ),
        Commands(
            "kubernetes",
            "Kubernetes",
            f"image: {image}",
            f"kubectl run {name} --rm -it --image={image}",
            for_nodes,
        ),
    )


def compose_command(host: str, application: str, is_secure: bool) -> str:
    """
    Write what starts an application.

    :param application: its path, such as ``shop``, or ``team/shop`` of the flake whose
        names begin with ``team``.
    """
    scheme = "https" if is_secure else "http"
    address = f"{scheme}://{host}/-/applications/{application}/compose.yaml"
    # The name of the project is otherwise that of the directory one happens to be in.
    project = _pod_name(application)
    return f"curl -fsSL {address} | docker compose -p {project} -f - up"


def _pod_name(path: str) -> str:
    """Name what runs by the last word of a path, without tag or digest."""
    word = re.split("[:@]", path.rpartition("/")[2])[0]
    return _NO_LABEL.sub("-", word)[:_MAX_LABEL].strip("-") or "image"
