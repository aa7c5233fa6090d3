"""Real container clients for the live tests: podman, skopeo, docker, containerd.

Every client keeps what it stores below the folder that it is given.  Those that
start processes which outlive one command (podman's conmon, dockerd, containerd,
their shims and containers) run in a nest: a pid and a mount namespace of their own,
in which `/run` is a private tmpfs.  There the programs find neither the machine's
sockets nor one another's, no socket has a path too long for the kernel, and the
end of the nest is the end of every process and every mount in it.  (Archives to be
saved or loaded must not be below a folder that is `HIDDEN` in there.)
"""

from __future__ import annotations

import abc
import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

TIMEOUT = 300.0
"""Seconds that one command may take."""

START_TIMEOUT = 60.0
"""Seconds in which a daemon must answer."""

STOP_TIMEOUT = 20.0
"""Seconds in which a daemon must end before it is killed."""

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the programs are looked for, so that those from Debian's packages are used."""

CGROUPS = Path("/sys/fs/cgroup")
"""Where the machine's control groups are mounted."""

HIDDEN = ("/opt", "/run", "/var/lib")
"""What is a private tmpfs inside a nest.

Some paths below these folders cannot be configured: containerd's shims have their
sockets in `/run/containerd/s`, the containerd of dockerd makes `/opt/containerd`, and
podman remembers blobs in `/var/lib/containers/cache`.
"""

TRANSPORTS = (
    "containers-storage:",
    "dir:",
    "docker-archive:",
    "docker-daemon:",
    "docker://",
    "oci-archive:",
    "oci:",
)
"""How a name begins that skopeo takes as it is."""


@attrs.frozen
class Outcome:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that was printed."""
        return self.out + self.err


class ClientError(Exception):
    """A client that could not be started or ended."""


def execute(argv: list[str], env: dict[str, str], timeout: float) -> Outcome:
    """Run a command to its end, or kill it and its process group in time."""
    # Files, not pipes: a process that was left behind may hold a pipe for ever.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(127, "", f"{argv[0]}: {error}\n")
        late = ""
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = 124
            late = f"killed after {timeout:g} s: {' '.join(argv)}\n"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        return Outcome(status, texts[0], texts[1] + late)


class Nest:
    """A main process in a pid and a mount namespace of its own."""

    def __init__(self, main: list[str], env: dict[str, str], log: Path) -> None:
        """Start the main process and wait until the namespaces are ready."""
        self.log = log
        self.env = env
        for folder in HIDDEN:
            if log.is_relative_to(folder):
                raise ClientError(f"{log} is below {folder}, which is hidden")
        self.cgroup = f"live-{secrets.token_hex(6)}"
        # If the tests are killed, the kernel kills the nest as soon as the thread
        # that started it is gone; only the main thread lives as long as the tests.
        guard = ["setpriv", "--pdeathsig", "KILL"]
        if threading.current_thread() is not threading.main_thread():
            guard = []
        unshare = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork"]
        mounts = [f"mount -t tmpfs -o mode=755 tmpfs {folder}" for folder in HIDDEN]
        inside = " && ".join([*mounts, "echo", 'exec "$@" >&2'])
        with log.open("ab") as stderr:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [
                    *(*guard, *unshare, "--kill-child=KILL", "--mount-proc", "--"),
                    *("tini", "--", "sh", "-c", inside, "sh", *main),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd="/",
                env=env,
                start_new_session=True,
            )
        self._spaces = Path(f"/proc/{self._process.pid}/ns")
        self._pids = ""
        try:
            stdout = self._process.stdout
            assert stdout is not None
            with stdout:
                ready = stdout.readline()
            if not ready:
                raise self.error("no namespaces")
            self._pids = os.readlink(self._spaces / "pid_for_children")
        except BaseException:
            self.close()
            raise

    def error(self, what: str) -> ClientError:
        """Return an error that ends with the tail of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return ClientError("\n".join([f"{what}; the end of {self.log}:", *lines[-40:]]))

    def call(self, argv: list[str], timeout: float) -> Outcome:
        """Run a command inside the nest."""
        if (status := self._process.poll()) is not None:
            gone = self.error(f"{argv[0]}: the nest ended with status {status}")
            return Outcome(125, "", f"{gone}\n")
        enter = [
            "nsenter",
            f"--mount={self._spaces / 'mnt'}",
            f"--pid={self._spaces / 'pid_for_children'}",
            "--",
        ]
        return execute([*enter, *argv], self.env, timeout)

    def wait(self, probe: list[str]) -> None:
        """Wait until a command succeeds inside the nest, or close it and raise."""
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while (outcome := self.call(probe, timeout=10)).status:
                if self._process.poll() is not None:
                    raise self.error(f"ended with status {self._process.returncode}")
                if time.monotonic() > deadline:
                    raise self.error(f"no answer: {outcome.text.strip()}")
                time.sleep(0.05)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the main process, and with it all that runs or is mounted inside."""
        if self._process.poll() is None:
            # `unshare` blocks SIGTERM, `tini` passes it on to the main process.
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        deadline = time.monotonic() + STOP_TIMEOUT
        while left := self._members():
            if time.monotonic() > deadline:
                raise self.error(f"processes {left} do not end")
            time.sleep(0.02)
        for folder in CGROUPS.glob(f"**/{self.cgroup}"):
            for path, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)

    def _members(self) -> list[int]:
        """Return the processes inside the nest that have not ended."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                inside = os.readlink(entry / "ns/pid") == self._pids
                if inside and b"\nState:\tZ" not in (entry / "status").read_bytes():
                    found.append(int(entry.name))
        return found


class Client(abc.ABC):
    """A program with a folder and an environment of its own."""

    def __init__(self, state: Path) -> None:
        """Make the folder and the environment."""
        self.timeout = TIMEOUT  # of one command, in seconds; a test may change it
        self.state = state.resolve()
        for name in ("home", "tmp"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        self.env = {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.state / "home"),
            "TMPDIR": str(self.state / "tmp"),
        }

    @abc.abstractmethod
    def call(self, *args: str) -> Outcome:
        """Run one of its commands."""

    @abc.abstractmethod
    def close(self) -> None:
        """End what the client started; may be called again."""

    def __enter__(self) -> Self:
        """Return the client, which is started already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the client."""
        self.close()

    def _write(self, name: str, text: str) -> str:
        """Write a file of settings, and return its path."""
        path = self.state / name
        path.write_text(text, encoding="utf-8")
        return str(path)


class Skopeo(Client):
    """Debian's skopeo; it needs no nest, for no process outlives its command."""

    def __init__(self, state: Path) -> None:
        """Give it its own registries.conf, credentials and cache of known blobs."""
        super().__init__(state)
        self.env |= {
            "CONTAINERS_REGISTRIES_CONF": self._write("registries.conf", ""),
            "REGISTRY_AUTH_FILE": self._write("auth.json", "{}"),
            "XDG_CONFIG_HOME": self.env["HOME"],
            "XDG_DATA_HOME": self.env["HOME"],
            "XDG_RUNTIME_DIR": self.env["TMPDIR"],
            # Root's cache of known blobs is /var/lib/containers/cache, whatever the
            # variables above say; that of anyone else is below XDG_DATA_HOME.
            "_CONTAINERS_ROOTLESS_UID": "65534",
        }

    def call(self, *args: str) -> Outcome:
        """Run one of its commands."""
        options = ["--insecure-policy", "--tmpdir", self.env["TMPDIR"]]
        return execute(["skopeo", *options, *args], self.env, self.timeout)

    def close(self) -> None:
        """Do nothing, for nothing is left running."""

    def inspect(self, ref: str, *options: str) -> Outcome:
        """Show an image; a name without a transport is one in a registry."""
        name = ref if ref.startswith(TRANSPORTS) else f"docker://{ref}"
        return self.call("inspect", "--tls-verify=false", *options, name)

    def copy(self, src: str, dst: str, *options: str) -> Outcome:
        """Copy an image; both names have a transport."""
        http = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        return self.call("copy", *http, *options, src, dst)


class Nested(Client):
    """A client whose commands, and whose daemon if it has one, run in a nest."""

    _command: tuple[str, ...]
    _nest: Nest

    def call(self, *args: str) -> Outcome:
        """Run one of its commands."""
        return self._nest.call([*self._command, *args], self.timeout)

    def shell(self, script: str, **env: str) -> Outcome:
        """Run a shell's script where its commands run, the client as `$client`."""
        given = {"client": " ".join(self._command), **env}
        words = ["env", *(f"{name}={value}" for name, value in given.items())]
        return self._nest.call(
            [*words, "bash", "-o", "pipefail", "-euc", script], self.timeout
        )

    def close(self) -> None:
        """End the nest; may be called again."""
        self._nest.close()


class Engine(Nested):
    """What podman and docker have in common."""

    _pull: tuple[str, ...] = ()
    _run: tuple[str, ...] = ()

    def pull(self, ref: str, *options: str) -> Outcome:
        """Pull an image."""
        return self.call("pull", *self._pull, *options, ref)

    def run(self, ref: str, *args: str) -> Outcome:
        """Run a container of an image, with arguments for it, and remove it."""
        parent = f"--cgroup-parent=/{self._nest.cgroup}"
        options = ["--rm", "--network=none", parent, *self._run]
        return self.call("run", *options, ref, *args)

    def save(self, ref: str, path: Path, *options: str) -> Outcome:
        """Write an image into an archive."""
        return self.call("save", *options, "--output", str(path.absolute()), ref)

    def load(self, path: Path) -> Outcome:
        """Read the images of an archive."""
        return self.call("load", "--input", str(path.absolute()))

    def tag(self, ref: str, name: str) -> Outcome:
        """Give an image one more name."""
        return self.call("tag", ref, name)

    def images(self, *options: str) -> Outcome:
        """List the images."""
        return self.call("images", *options)

    def forget(self) -> None:
        """Remove all images, so that the next pull has to fetch every layer."""
        if known := sorted(set(self.images("--quiet", "--no-trunc").out.split())):
            self.call("rmi", "--force", *known)


class Podman(Engine):
    """Debian's podman with runc; `save` needs a path where nothing is yet."""

    _pull = ("--tls-verify=false",)
    _run = (
        "--tls-verify=false",
        # The defaults may be above the hard limits, which root may not raise here.
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1024:1024",
    )
    _command = (
        "podman",
        "--runtime=runc",
        "--cgroup-manager=cgroupfs",
        "--events-backend=file",
        "--tmpdir=/run/podman/tmp",
    )

    def __init__(self, state: Path) -> None:
        """Start a nest in which its commands run."""
        super().__init__(state)
        storage = (
            f'[storage]\ndriver = "vfs"\ngraphroot = "{self.state}/root"\n'
            'runroot = "/run/podman/run"\n'
        )
        # The default lock, in shared memory, would be one with all other podmans; the
        # default network would leave a bridge and iptables rules on the machine.
        settings = (
            '[containers]\nnetns = "none"\n[engine]\nlock_type = "file"\n'
            f'[network]\nnetwork_config_dir = "{self.state}/networks"\n'
        )
        self.env |= {
            "CONTAINERS_CONF": self._write("containers.conf", settings),
            "CONTAINERS_REGISTRIES_CONF": self._write("registries.conf", ""),
            "CONTAINERS_STORAGE_CONF": self._write("storage.conf", storage),
        }
        self._nest = Nest(["sleep", "infinity"], self.env, self.state / "nest.log")


class Docker(Engine):
    """Debian's docker with a dockerd of its own, without a network."""

    _command = ("docker", "--host=unix:///run/docker.sock")

    def __init__(self, state: Path, settings: str = "{}") -> None:
        """Start dockerd with its `daemon.json` and wait until it answers."""
        super().__init__(state)
        self.env["DOCKER_CONFIG"] = str(self.state / "config")
        daemon = [
            "dockerd",
            f"--config-file={self._write('daemon.json', settings)}",
            f"--data-root={self.state / 'root'}",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            "--host=unix:///run/docker.sock",
            "--group=",
            "--bridge=none",
            "--iptables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ]
        self._nest = Nest(daemon, self.env, self.state / "dockerd.log")
        self._nest.wait([*self._command, "version"])


class Containerd(Nested):
    """Debian's containerd, driven by ctr."""

    _command = ("ctr", "--address=/run/containerd/containerd.sock")

    def __init__(self, state: Path) -> None:
        """Start containerd and wait until it answers."""
        super().__init__(state)
        config = self._write(
            "config.toml",
            'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n',
        )
        daemon = [
            "containerd",
            f"--config={config}",
            f"--root={self.state / 'root'}",
            "--state=/run/containerd",
            "--address=/run/containerd/containerd.sock",
        ]
        self._nest = Nest(daemon, self.env, self.state / "containerd.log")
        self._nest.wait([*self._command, "version"])

    def pull(self, ref: str, *options: str) -> Outcome:
        """Pull an image by its full name, with a tag or with @ and a digest."""
        return self.call("images", "pull", "--plain-http", *options, ref)

    def forget(self) -> None:
        """Remove all images, so that the next pull has to fetch every layer."""
        if known := self.call("images", "list", "--quiet").out.split():
            self.call("images", "remove", "--sync", *known)

    def run(self, ref: str, *args: str) -> Outcome:
        """Run a container of a pulled image, with arguments for it, and remove it."""
        name = f"live-{secrets.token_hex(6)}"
        parent = f"--cgroup=/{self._nest.cgroup}/{name}"
        return self.call("run", "--rm", parent, ref, name, *args)
