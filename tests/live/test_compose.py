"""From an application's address to its running containers, with compose."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.daemon import Daemon
from tests.live.clients import Docker, Outcome, Podman

#: The nests have no network; runc's defaults may be above the hard limits here.
ALONE = """\
services:
  web: &alone
    network_mode: none
    ulimits: {nofile: 1024, nproc: 1024}
  worker: *alone
"""

#: Debian's podman-compose, unlike newer ones, reads a file and not what is piped to it,
#: and gives each container a network.
PODMAN = """
cd "$folder"
cat > podman <<'END'
#!/bin/bash
words=()
while test $# -gt 0; do
  case $1 in --net|--network-alias|-p) shift ;; *) words+=("$1") ;; esac
  shift
done
PATH=${PATH#*:} exec $client "${words[@]}"
END
chmod +x podman
export client
curl -fsS "$url" -o compose.yaml
export CONTAINERS_REGISTRIES_CONF="$folder/registries.conf"
PATH="$folder:$PATH" podman-compose -p shop -f compose.yaml -f alone.yaml up -d
"""

#: Debian's docker-compose reads what is piped to it if that is all.
DOCKER = """
cd "$folder"
export DOCKER_HOST=unix:///run/docker.sock
curl -fsS "$url" | docker-compose -p shop -f - pull
curl -fsS "$url" -o compose.yaml
docker-compose -p shop -f compose.yaml -f alone.yaml up -d
"""

#: Wait for what the worker says, and end what was started.
LOGS = """
worker=$($client ps -aq --filter name=worker)
test -n "$worker"
$client wait $worker
$client logs $worker
$client ps --format '{{.Image}}'
$client rm -f $($client ps -aq)
"""


def url(registry: Daemon, application: str = "web-app", query: str = "") -> str:
    """Say where an application's compose file is."""
    path = f"-/applications/{application}/compose.yaml{query}"
    return f"http://{registry.ref(path)}"


def images(registry: Daemon) -> dict[str, str]:
    """Fetch the compose file, and say which image each service has."""
    answer = registry.ask("/-/applications/web-app/compose.yaml")
    assert answer.status == 200
    services = yaml.safe_load(answer.body)["services"]
    return {name: service["image"] for name, service in services.items()}


@pytest.fixture
def folder(registry: Daemon, tmp_path: Path) -> Path:
    """A folder with what compose needs to know of this machine."""
    (tmp_path / "alone.yaml").write_text(ALONE)
    settings = (
        f'[[registry]]\nlocation = "localhost:{registry.port}"\ninsecure = true\n'
    )
    (tmp_path / "registries.conf").write_text(settings)
    return tmp_path


def check(outcome: Outcome, registry: Daemon) -> None:
    """Fail unless both services were started from this registry's images."""
    assert outcome.status == 0, outcome.text
    assert "Hello, world!" in outcome.out
    assert f"localhost:{registry.port}/applications/web-app/web" in outcome.out


def test_podman_compose(registry: Daemon, podman: Podman, folder: Path) -> None:
    """A person with podman-compose starts an application that is not there yet."""
    outcome = podman.shell(PODMAN + LOGS, folder=str(folder), url=url(registry))
    check(outcome, registry)


def test_docker_compose(registry: Daemon, docker: Docker, folder: Path) -> None:
    """A person with docker pipes an application's address into compose."""
    outcome = docker.shell(DOCKER + LOGS, folder=str(folder), url=url(registry))
    check(outcome, registry)


def test_what_is_pinned(registry: Daemon, podman: Podman) -> None:
    """What a service names can be pulled as it is written."""
    pinned = images(registry)
    assert pinned.keys() == {"web", "worker"}
    for reference in pinned.values():
        assert podman.pull(reference.replace("127.0.0.1", "localhost")).status == 0


def test_no_application(registry: Daemon) -> None:
    """Whoever mistypes an application reads which there are."""
    answer = registry.ask("/-/applications/zzz/compose.yaml")
    assert answer.status == 404
    assert answer.message.endswith("no application 'zzz'; it has: web-app")
    answer = registry.ask("/-/applications/hello/compose.yaml")
    assert "pull packages/hello" in answer.message
