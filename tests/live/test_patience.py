"""First pulls that take long: every client waits, in the way that it bears."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.clients import (
    Client,
    Containerd,
    Docker,
    Outcome,
    Podman,
    Skopeo,
)
from tests.live.impatient import Impatient

#: How long the images take to build, in seconds: containerd is answered early after 20,
#: begins to read a manifest after 40, and gets the first space of it after 65. Some
#: are for those who have the time.
SECONDS = (10, 45, 70, *((100, 360, 720) if os.environ.get("FORGE_LONG_TESTS") else ()))
#: How long it is until other builds fail.
FAILING = (25, 45, 70)
#: How long a client may take in all, in seconds.
TIMEOUT = max(SECONDS) + 120.0

CLIENTS = ("podman", "docker", "containerd", "impatient")
#: The status of a client that was killed.
KILLED = 124


class Pulls(Protocol):
    """What has a ``pull``."""

    def pull(self, ref: str) -> Outcome:
        """Pull an image."""


def builds(running: Daemon, name: str) -> int:
    """Count how often nix was started to build an image."""
    command = rf"packages/{name}:latest: .*\bbuild\b.*--out-link"
    return len(re.findall(command, running.logged()))


@contextmanager
def lasting(seconds: float, *clients: Client) -> Iterator[None]:
    """Have clients killed when one command takes longer."""
    before = [client.timeout for client in clients]
    for client in clients:
        client.timeout = seconds
    try:
        yield
    finally:
        for client, timeout in zip(clients, before, strict=True):
            client.timeout = timeout


@pytest.fixture(scope="module")
def patient(
    tmp_path_factory: pytest.TempPathFactory, sleepy: str, store: Path
) -> Iterator[Daemon]:
    """A registry that serves images that take their time."""
    tmp = tmp_path_factory.mktemp("patient")
    with daemon.registry(tmp, sleepy, "--store", str(store)) as running:
        yield running


@pytest.fixture(scope="module")
def impatient() -> Impatient:
    """What does as containerd 2.3."""
    return Impatient()


@pytest.fixture(scope="module")
def outcomes(
    patient: Daemon,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    impatient: Impatient,
) -> dict[tuple[str, str], Outcome]:
    """What every client says when all ask for everything at the same moment."""
    clients: dict[str, Pulls] = dict(
        zip(CLIENTS, (podman, docker, containerd, impatient), strict=True)
    )
    names = [f"sleep-{seconds}" for seconds in SECONDS]
    names += [f"fails-after-{seconds}" for seconds in FAILING]
    asked = [(client, name) for client in clients for name in names]

    def pull(what: tuple[str, str]) -> Outcome:
        client, name = what
        return clients[client].pull(patient.ref(f"packages/{name}:latest"))

    with (
        lasting(TIMEOUT, podman, docker, containerd),
        ThreadPoolExecutor(len(asked)) as pool,
    ):
        return dict(zip(asked, pool.map(pull, asked), strict=True))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("seconds", SECONDS)
def test_a_first_pull(
    outcomes: dict[tuple[str, str], Outcome], seconds: int, client: str
) -> None:
    """Whichever client a person uses, one command is enough, however long it takes."""
    outcome = outcomes[client, f"sleep-{seconds}"]
    assert outcome.status == 0, outcome.text


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("seconds", FAILING)
def test_a_build_that_fails_late(
    outcomes: dict[tuple[str, str], Outcome], seconds: int, client: str
) -> None:
    """Whichever client a person uses, it prints why there is no image in the end."""
    outcome = outcomes[client, f"fails-after-{seconds}"]
    assert outcome.status != 0
    assert f"the tape ran out after {seconds} s" in outcome.err


@pytest.mark.parametrize("seconds", SECONDS)
def test_built_once(
    outcomes: dict[tuple[str, str], Outcome], patient: Daemon, seconds: int
) -> None:
    """However many wait for an image, nix builds it once."""
    assert builds(patient, f"sleep-{seconds}") == 1


def test_what_was_waited_for_runs(
    outcomes: dict[tuple[str, str], Outcome], patient: Daemon, docker: Docker
) -> None:
    """The image that all waited for is the right one."""
    assert outcomes
    outcome = docker.run(patient.ref("packages/sleep-45:latest"))
    assert outcome.out == "slept 45\n", outcome.text


def test_no_error_becomes_an_image(
    outcomes: dict[tuple[str, str], Outcome],
    patient: Daemon,
    containerd: Containerd,
    impatient: Impatient,
) -> None:
    """What containerd was told in place of an image is not kept as one."""
    names = [f"sleep-{seconds}" for seconds in SECONDS]
    refs = {patient.ref(f"packages/{name}:latest") for name in names}
    assert impatient.images.keys() == refs
    kept = set(containerd.call("images", "ls", "--quiet").out.split())
    assert refs <= kept
    assert not any("fails-after" in ref for ref in kept)
    manifests = [impatient.images[ref] for ref in refs]
    assert all(b'"errors"' not in manifest for manifest in manifests)


def test_nine_of_ten_leave(
    tmp_path: Path,
    store: Path,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
) -> None:
    """When nine of ten people have gone, the tenth gets the image, built once."""
    reference = daemon.flake(ROOT / "tests" / "flakes" / "sleepy", tmp_path / "flake")
    (tmp_path / "flake" / "salt").write_text("nine leave")
    with daemon.registry(tmp_path, reference, "--store", str(store)) as running:
        ref = running.ref("packages/sleep-10:latest")
        pulls = [podman.pull, docker.pull, containerd.pull, skopeo.inspect]
        with (
            lasting(4.0, podman, docker, containerd, skopeo),
            ThreadPoolExecutor(10) as pool,
        ):
            staying = pool.submit(Impatient().pull, ref)
            left = [pool.submit(pulls[i % len(pulls)], ref) for i in range(9)]
            assert [gone.result().status for gone in left] == [KILLED] * 9
            assert not staying.done()
            assert staying.result().status == 0, staying.result().text
        assert builds(running, "sleep-10") == 1
        assert podman.run(ref).out == "slept 10\n"
