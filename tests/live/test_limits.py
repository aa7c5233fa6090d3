"""What an operator may limit: how long clients wait, and how much nix does at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

from tests import daemon
from tests.daemon import ROOT, Daemon
from tests.live.clients import Containerd, Docker, Podman, Skopeo
from tests.live.impatient import Impatient

MEMORY_BYTES = 150 * 2**20
MOST_BUILDS = 4
MANY = 200

MANIFEST = "/v2/packages/sleep-10/manifests/latest"


def anew(tmp: Path) -> str:
    """Give the flake whose images take their time; none of them is built yet."""
    reference = daemon.flake(ROOT / "tests" / "flakes" / "sleepy", tmp / "flake")
    (tmp / "flake" / "salt").write_text(str(tmp))
    return reference


def test_through_a_proxy_that_bears_little(
    tmp_path: Path,
    store: Path,
    podman: Podman,
    docker: Docker,
    containerd: Containerd,
    skopeo: Skopeo,
) -> None:
    """Where a proxy waits for 3 s at most, a first pull may take longer all the same."""
    options = ("--store", str(store), "--redirect-hold", "3")
    with daemon.registry(tmp_path, anew(tmp_path), *options) as running:
        ref = running.ref("packages/sleep-10:latest")
        pulls = (
            podman.pull, docker.pull, containerd.pull, skopeo.inspect, Impatient().pull,
        )  # fmt: skip
        with ThreadPoolExecutor(len(pulls)) as pool:
            outcomes = list(pool.map(lambda pull: pull(ref), pulls))
        assert [o.text for o in outcomes if o.status != 0] == []


def test_told_to_come_again(
    tmp_path: Path, store: Path, docker: Docker, containerd: Containerd
) -> None:
    """Where nobody may wait for long, people are told to come again, and then served."""
    options = ("--store", str(store), "--max-hold", "3")
    with daemon.registry(tmp_path, anew(tmp_path), *options) as running:
        ref = running.ref("packages/sleep-10:latest")
        pulls = (docker.pull, containerd.pull, Impatient().pull)
        with ThreadPoolExecutor(len(pulls) + 1) as pool:
            raw = pool.submit(running.ask, MANIFEST)
            for outcome in pool.map(lambda pull: pull(ref), pulls):
                assert outcome.status != 0
                assert "pull again" in outcome.err
        assert raw.result().status == 429
        assert raw.result().headers["retry-after"] == "60"
        daemon.eventually(lambda: running.ask(MANIFEST).status == 200)
        for pull in pulls:
            assert pull(ref).status == 0


def test_two_hundred_names(tmp_path: Path, sleepy: str, store: Path) -> None:
    """Two hundred people who ask for as many images get them, a few builds at a time."""
    options = ("--store", str(store), "--max-builds", str(MOST_BUILDS))
    most = 0
    with daemon.registry(tmp_path, sleepy, *options) as running:

        def pull(number: int) -> int:
            connection = HTTPConnection("127.0.0.1", running.port, timeout=600)
            method = ("HEAD", "GET")[number % 2]
            path = f"/v2/packages/many-{number}/manifests/latest"
            connection.request(method, path)
            response = connection.getresponse()
            response.read()
            connection.close()
            return response.status

        over = threading.Event()

        def count() -> None:
            nonlocal most
            while not over.is_set():
                most = max(most, len(building(running)))
                time.sleep(0.01)

        counting = threading.Thread(target=count)
        counting.start()
        try:
            with ThreadPoolExecutor(MANY) as pool:
                statuses = list(pool.map(pull, range(MANY)))
        finally:
            over.set()
            counting.join()
        assert statuses == [200] * MANY
        assert 1 < most <= MOST_BUILDS
        assert running.resident_bytes() < MEMORY_BYTES


def building(running: Daemon) -> list[int]:
    """List the nix processes that build, of a registry."""
    found = []
    for pid in running.children():
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"build" in argv or b"--realise" in argv:
            found.append(pid)
    return found
