"""
Clients, the same for us and for the peers. Blocking.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from forgereg.oci.media import MANIFESTS
from tests.live.clients import Outcome, Podman

ACCEPT = f"Accept: {', '.join(MANIFESTS)}"

_REPORT = '{"status":%{http_code},"size":%{size_download},"seconds":%{time_total}}\n'


@frozen
class Fetched:
    """
    What curl got.

    :ivar size: that travelled, in bytes.
    """

    status: int
    size: int
    seconds: float


def curl_argv(url: str, *options: str, into: Path | None = None) -> list[str]:
    """Say how to fetch something with curl, and to tell of it in a line of JSON."""
    where = str(into or "/dev/null")
    return ["curl", "-sS", "--insecure", "-o", where, "-w", _REPORT, *options, url]


def read_report(line: str) -> Fetched:
    """
    Read what curl told. Pure.

    :raises RuntimeError: it was not given what it asked for.
    """
    found = Fetched(**json.loads(line))
    if found.status != 200:
        raise RuntimeError(f"curl was answered {found.status}")
    return found


def curl(
    url: str, *options: str, into: Path | None = None, before: Sequence[str] = ()
) -> Fetched:
    """
    Fetch something, and by default throw it away.

    :param before: what curl is started by.
    """
    argv = [*before, *curl_argv(url, *options, into=into)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return read_report(done.stdout)


def curl_together(url: str, times: int) -> list[Fetched]:
    """Fetch something as many times at once."""
    argv = curl_argv(url)
    started = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(times)
    ]
    return [read_report(process.communicate()[0]) for process in started]


@contextlib.contextmanager
def fetching(url: str, times: int) -> Iterator[None]:
    """
    Have so many clients fetch something again and again while the block is entered.

    They stand for other machines, so what is measured here goes before them.
    """
    curl(f"{url}?0")  # else they might be fetching errors
    argv = ["nice", "-n", "19", "curl", "-sS", f"{url}?[1-100000]", "-o", "/dev/null"]
    started = [subprocess.Popen(argv, stderr=subprocess.DEVNULL) for _ in range(times)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def skopeo_copy(port: int, name: str, target: Path) -> float:
    """Copy an image to a new directory; give how long it took."""
    argv = [
        "skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false",
        f"docker://localhost:{port}/{name}", f"dir:{target}",
    ]  # fmt: skip
    start = time.monotonic()
    subprocess.run(argv, check=True)
    taken = time.monotonic() - start
    subprocess.run(["rm", "-r", target], check=True)
    return taken


def wrk(url: str, *, connections: int, seconds: int, cores: set[int]) -> float:
    """
    Ask for something as often as can be.

    :returns: requests in a second.
    :raises RuntimeError: not all were answered well.
    """
    core = ",".join(map(str, sorted(cores)))
    argv = ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    done = subprocess.run(
        [*argv, "-H", ACCEPT, url], stdout=subprocess.PIPE, text=True, check=True
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"wrk: {done.stdout}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


@contextlib.contextmanager
def keep_alive(port: int) -> Iterator[Callable[[str], float]]:
    """Give what asks for a manifest over one connection, and says how long it took."""
    name, value = ACCEPT.split(": ", 1)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(path: str) -> float:
        start = time.monotonic()
        connection.request("GET", path, headers={name: value})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body!r}")
        return time.monotonic() - start

    with contextlib.closing(connection):
        yield ask


def keep_asking(port: int, path: str, until: Callable[[], bool]) -> list[float]:
    """
    Ask for a manifest again and again, over one connection.

    :param until: tells when it is enough.
    :returns: how long each took, in seconds.
    """
    waits = []
    with keep_alive(port) as ask:
        while not until():
            waits.append(ask(path))
            time.sleep(0.005)
    return waits


@contextlib.contextmanager
def first_in_line() -> Iterator[None]:
    """Go before other processes, as far as the kernel lets us."""
    before = os.nice(0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@contextlib.contextmanager
def reading_slowly(port: int, path: str, clients: int) -> Iterator[list[socket.socket]]:
    """Have so many clients begin to fetch something, of which each reads a little."""
    begun: list[socket.socket] = []
    try:
        for _ in range(clients):
            client = socket.socket()
            begun.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            client.connect(("127.0.0.1", port))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        yield begun
    finally:
        for client in begun:
            client.close()


class Overlay(Podman):
    """Podman as it is used: layers lie over one another, none is copied."""

    def __init__(self, state: Path) -> None:
        """Start a nest in which its commands run."""
        super().__init__(state)
        self._write(
            "storage.conf",
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.state}/root"\n'
            'runroot = "/run/podman/run"\n',
        )

    def forget(self) -> None:
        """Forget every image."""
        told(self.call("rmi", "--all", "--force"))


def told(outcome: Outcome) -> str:
    """
    Give what a command printed.

    :raises RuntimeError: it failed.
    """
    if outcome.status:
        raise RuntimeError(outcome.text)
    return outcome.out
