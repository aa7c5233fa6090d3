"""Start the registry as its users do: a process of its own, spoken to over a socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

#: Builds work for root without the group nixbld, and nobody asks a cache that is
#: not there.
NIX_CONFIG = "build-users-group =\nsubstituters =\n"

START_SECONDS = 30.0
STOP_SECONDS = 30.0


@frozen
class Answer:
    """What came back over HTTP."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of the first error."""
        return str(self.json["errors"][0]["message"])


@define
class Daemon:
    """
    A registry that is running, or was.

    :ivar log: what it wrote to standard output and standard error.
    """

    port: int
    state: Path
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """The registry's process."""
        return self.process.pid

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Make one request; underscores in header names stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=sent)
            response = connection.getresponse()
            body = response.read()
        return Answer(
            response.status,
            response.reason,
            {name.lower(): value for name, value in response.getheaders()},
            body,
        )

    def ref(self, name: str) -> str:
        """Write an image's name as a client is given it."""
        return f"localhost:{self.port}/{name}"

    def logged(self) -> str:
        """Everything it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        """Wait until it has said something."""
        eventually(lambda: text in self.logged(), seconds)

    def children(self) -> list[int]:
        """List the processes that it has started and that are there."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def resident_bytes(self) -> int:
        """Give the most memory that it had at any time."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (row for row in status.splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def open_files(self, below: Path) -> list[str]:
        """List the files below a directory that it has open."""
        links = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(link))
        return [link for link in links if link.startswith(str(below))]

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as an operator does; give its exit status, or minus the signal."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def eventually(holds: Any, seconds: float = 30.0) -> None:
    """Wait until something holds; fail if it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """What a registry under test sees of the environment: no setting but these."""
    kept = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    return {**env, "NIX_CONFIG": NIX_CONFIG, **more}


@contextlib.contextmanager
def registry(
    tmp: Path,
    flake: str,
    *options: str,
    port: int | None = None,
    listener: socket.socket | None = None,
    twistd: tuple[str, ...] = (),
    **env: str,
) -> Iterator[Daemon]:
    """
    Run a registry that serves a flake, until the block is left.

    :param tmp: where its state and its log go; used again, the state is still there.
    :param twistd: options of twistd's own.
    :param listener: what it is to listen on, as systemd hands it over; it stays open.
    """
    port = port or (listener.getsockname()[1] if listener else free_port())
    log = tmp / f"registry-{time.monotonic_ns()}.log"
    argv = [
        str(BIN / "twistd"), "--nodaemon", "--pidfile=", *twistd, "forge-registry",
        "--flake", flake, "--state-dir", str(tmp / "state"),
        "--port", str(port), "--log-level", "debug", *options,
    ]  # fmt: skip
    handed_over = []
    if listener is not None:
        # Source: sd_listen_fds(3).
        argv = [*argv, "--port", "systemd:domain=INET:index=0"]
        env |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "registry"}
        script = f'export LISTEN_PID=$$; exec "$@" 3<&{listener.fileno()}'
        argv = ["bash", "-c", script, "bash", *argv]
        handed_over = [listener.fileno()]
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv,
            cwd=tmp,
            env=environment(XDG_CACHE_HOME=str(tmp / "cache"), **env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=handed_over,
        )
    daemon = Daemon(port, tmp / "state", log, process)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, f"it ended at once: {daemon.logged()}"
            assert time.monotonic() < deadline, f"it never began: {daemon.logged()}"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.02)
        yield daemon
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def flake(source: Path, target: Path) -> str:
    """Copy a flake, give it the machine's busybox, and write its flake ref."""
    shutil.copytree(source, target)
    (target / "busybox").mkdir(exist_ok=True)
    shutil.copy("/bin/busybox", target / "busybox" / "busybox")
    return f"path:{target}"


def collect_garbage(store: Path) -> None:
    """Have Nix delete what no root keeps."""
    subprocess.run(
        ["nix-store", "--store", store, "--gc"],
        check=True,
        capture_output=True,
        env=environment(),
    )
