"""Starting and stopping the registry, in each way that people do it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.certificates import certify
from tests.daemon import BIN, ROOT, environment, eventually, free_port, registry

FLAKE = "path:/nowhere"


def start(
    *argv: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run something that is expected to end by itself."""
    return subprocess.run(
        argv,
        cwd=cwd,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(tmp_path: Path, *options: str, **env: str) -> str:
    """Start a registry that must not start; give the one line that says why."""
    outcome = start(
        str(BIN / "forge-registry"), "--state-dir", str(tmp_path / "state"), *options,
        cwd=tmp_path, env=environment(**env),
    )  # fmt: skip
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("forge-registry: ")
    assert "Traceback" not in outcome.stdout
    return line


def test_help_lists_every_option(tmp_path: Path) -> None:
    """The help has every option, its default and its unit."""
    outcome = start(str(BIN / "twistd"), "forge-registry", "--help", cwd=tmp_path)
    assert outcome.returncode == 0
    text = " ".join(outcome.stdout.split())
    assert "--port=" in text and "[default: 6443]" in text
    assert "[default: 3600 seconds]" in text
    assert "(NIX_BUILD_TIMEOUT)" in text


def test_console_script(tmp_path: Path) -> None:
    """Who does not know twistd has a command of the registry's own name."""
    outcome = start(str(BIN / "forge-registry"), "--help", cwd=tmp_path)
    assert outcome.returncode == 0 and "--nix-build-timeout=" in outcome.stdout
    outcome = start(str(BIN / "forge-registry"), "--version", cwd=tmp_path)
    assert re.fullmatch(r"forge-registry \d+\.\d+\.\d+\n", outcome.stdout)


def test_from_a_wheel(tmp_path: Path) -> None:
    """The plugin is found where only the wheel is installed."""
    wheel = start(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
        "--wheel-dir", str(tmp_path), str(ROOT), cwd=tmp_path, env=dict(os.environ),
    )  # fmt: skip
    assert wheel.returncode == 0, wheel.stderr
    (built,) = tmp_path.glob("*.whl")
    start(sys.executable, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    installed = start(
        python, "-m", "pip", "install", "--no-deps", "--no-index", str(built),
        cwd=tmp_path,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    # What the registry needs is taken from here; what makes this checkout importable
    # here is no directory on PYTHONPATH, so the registry itself is the wheel's.
    env = environment(PYTHONPATH=sysconfig.get_path("purelib"))
    where = start(
        python, "-c", "import forgereg.tap as t; print(t.__file__)",
        cwd=tmp_path, env=env,
    )  # fmt: skip
    assert where.stdout.startswith(str(tmp_path)), where.stderr
    twistd = "from twisted.scripts.twistd import run; run()"
    outcome = start(
        python, "-c", twistd, "forge-registry", "--help", cwd=tmp_path, env=env
    )
    assert "--nix-build-timeout=" in outcome.stdout, outcome.stderr


def test_from_a_checkout(tmp_path: Path) -> None:
    """The plugin is found in a checkout that is not installed."""
    env = environment(PYTHONPATH=sysconfig.get_path("purelib"))
    twistd = "from twisted.scripts.twistd import run; run()"
    start(sys.executable, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    outcome = start(python, "-c", twistd, "forge-registry", "--help", cwd=ROOT, env=env)
    assert "--nix-build-timeout=" in outcome.stdout, outcome.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "--port is '70000'; it must be a port from 1 to 65535"),
        (
            ["--port", "carrier:pigeon"],
            "--port is 'carrier:pigeon', which is no endpoint",
        ),
        (["--log-level", "loud"], "--log-level is 'loud'; it must be one of debug"),
        (["--nix-build-timeout", "soon"], "it must be a number from 1 to"),
        (["--flake", "github:a/b#c"], "it must be a flake ref without #attribute"),
        (["--store", "ssh-ng://there"], "it must be a store on this machine"),
    ],
)
def test_nonsense_stops_the_start(
    tmp_path: Path, options: list[str], said: str
) -> None:
    """A setting that makes no sense stops the start with one clear line."""
    assert said in refused(tmp_path, *options)


def test_nonsense_in_the_environment(tmp_path: Path) -> None:
    """The line names the variable where the value came from one."""
    assert "CACHE_SIZE is 'much'" in refused(tmp_path, CACHE_SIZE="much")


def test_nonsense_in_dotenv(tmp_path: Path) -> None:
    """What is set in .env counts, and is checked."""
    (tmp_path / ".env").write_text("MAX_TAG_LENGTH=0  # characters\n")
    assert "MAX_TAG_LENGTH is '0'" in refused(tmp_path)


def test_unreadable_dotenv(tmp_path: Path) -> None:
    """A .env that is no text is named as what stops the start."""
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    assert "the file .env cannot be read" in refused(tmp_path)


def test_bad_certificate(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """A key and a certificate that are none stop the start with one line."""
    key, cert = certificate
    for pair in (
        f"privateKey={key}:certKey={key}",
        f"privateKey={cert}:certKey={cert}",
    ):
        assert "is no endpoint" in refused(tmp_path, "--port", f"ssl:6443:{pair}")


def test_port_is_taken(tmp_path: Path) -> None:
    """A port that somebody else listens on stops the start with one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "cannot listen on" in refused(tmp_path, "--port", port)


def test_port_is_taken_for_a_daemon(tmp_path: Path) -> None:
    """A registry that goes into the background says at once that it cannot start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = start(
            str(BIN / "twistd"), "--pidfile=d.pid", "--logfile=d.log", "forge-registry",
            "--state-dir", str(tmp_path / "state"), "--port", port, cwd=tmp_path,
        )  # fmt: skip
    assert outcome.returncode == 1
    assert "cannot listen on" in outcome.stderr
    assert "cannot listen on" in (tmp_path / "d.log").read_text()
    # twistd tells its parent before it tidies up.
    eventually(lambda: not (tmp_path / "d.pid").exists())


def test_state_is_taken(tmp_path: Path) -> None:
    """Two registries cannot share a state directory by mistake."""
    with registry(tmp_path, FLAKE):
        line = refused(tmp_path, "--port", str(free_port()))
    assert "another registry runs in" in line


def test_damaged_records(tmp_path: Path) -> None:
    """Records that are no database stop the start with one line."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "registry.sqlite").write_text("something else " * 1000)
    assert "cannot be opened" in refused(tmp_path, "--port", str(free_port()))


def test_records_of_another_version(tmp_path: Path) -> None:
    """Records of another version stop the start with one line that says what to do."""
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "registry.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE sources (id)")
    line = refused(tmp_path, "--port", str(free_port()))
    assert "another version" in line
    assert "move registry.sqlite away" in line


def fake_nix(tmp_path: Path, script: str) -> str:
    """Put something that is called nix first on the PATH."""
    (tmp_path / "bin").mkdir()
    nix = tmp_path / "bin" / "nix"
    nix.write_text(f"#!/bin/sh\n{script}\n")
    nix.chmod(0o755)
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


def test_nix_is_missing(tmp_path: Path) -> None:
    """Where there is no nix, the start says so and what to do."""
    (tmp_path / "bin").mkdir()
    for tool in ("setsid", "setpriv", "prlimit"):
        (tmp_path / "bin" / tool).symlink_to(f"/usr/bin/{tool}")
    line = refused(tmp_path, PATH=str(tmp_path / "bin"))
    assert "nix not found on the PATH: install nix 2.8 or newer" in line


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'nix (Nix) 2.3.16'", "2.8 or newer is needed: upgrade nix"),
        ("echo 'a nice program'", "not which version it is"),
        (
            "case $1 in --version) echo 'nix (Nix) 2.30.1';; *) echo 'error: no flakes"
            " here' >&2; exit 1;; esac",
            "nix does not work: error: no flakes here",
        ),
        (
            "case $1 in --version) echo 'nix (Lix, like Nix) 2.91.0';; *) echo false;;"
            " esac",
            "has no flakes",
        ),
    ],
)
def test_nix_is_not_good_enough(tmp_path: Path, script: str, said: str) -> None:
    """A nix that is too old or has no flakes is named, with what to do."""
    assert said in refused(tmp_path, PATH=fake_nix(tmp_path, script))


def test_store_cannot_be_opened(tmp_path: Path) -> None:
    """A store that nix cannot open stops the start with nix's own words."""
    line = refused(tmp_path, "--store", "/dev/null/store")
    assert "nix does not work: " in line and "/dev/null" in line
    assert "@nix" not in line


def test_endpoint_string(tmp_path: Path) -> None:
    """The port can be any endpoint that Twisted knows."""
    port = free_port()
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    with registry(tmp_path, FLAKE, "--port", endpoint, port=port) as running:
        assert running.ask("/v2/").status == 200
        running.wait_for(f" at http://127.0.0.1:{port}/")  # for a browser


def test_stop(tmp_path: Path) -> None:
    """SIGTERM ends the registry quietly, and it can start again at once."""
    port = free_port()
    for _ in range(2):
        with registry(tmp_path, FLAKE, port=port) as running:
            assert running.ask("/v2/").status == 200
            running.stop()
            assert "Traceback" not in running.logged()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key, and a certificate for localhost that it signed itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", key, "-out", cert,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return key, cert


def test_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """With an ssl endpoint the registry speaks HTTPS, and HTTP/1.1 even if asked for 2."""
    key, cert = certificate
    port = free_port()
    endpoint = f"ssl:{port}:privateKey={key}:certKey={cert}:interface=127.0.0.1"
    context = ssl.create_default_context(cafile=str(cert))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with registry(tmp_path, FLAKE, "--port", endpoint, port=port):
        with socket.create_connection(("127.0.0.1", port), 10) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as secure:
                assert secure.selected_alpn_protocol() in (None, "http/1.1")
                secure.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert secure.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_tls_to_a_plain_port(tmp_path: Path) -> None:
    """A client that tries TLS on the plain port is told at once, in HTTP."""
    hello = bytes.fromhex("16030100050100000100")
    with registry(tmp_path, FLAKE) as running:
        # Which is also how long it is waited for each piece of the answer.
        with socket.create_connection(("127.0.0.1", running.port), 10) as raw:
            raw.sendall(hello)
            answer = b""
            while piece := raw.recv(1000):
                answer += piece
        assert answer.startswith(b"HTTP/1.0 400 ")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children heed ctrl-C, also where a shell runs the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_asked_twice_to_stop(tmp_path: Path) -> None:
    """Whoever presses ctrl-C again while the registry stops does no harm."""
    with registry(tmp_path, FLAKE) as running:
        assert running.ask("/v2/").status == 200
        for _ in range(3):
            running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == -signal.SIGINT
        assert "Traceback" not in running.logged()


def test_flake_that_is_not_there(tmp_path: Path) -> None:
    """Who starts the registry with a flake that is not there reads so in the log."""
    with registry(tmp_path, FLAKE) as running:
        running.wait_for("can be pulled until it can be read")


def test_settings_reach_the_registry(tmp_path: Path) -> None:
    """A limit from .env is the limit that clients meet."""
    (tmp_path / ".env").write_text("MAX_IMAGE_NAME_LENGTH=20\n")
    with registry(tmp_path, FLAKE) as running:
        answer = running.ask("/v2/packages/much-too-long-a-name/manifests/latest")
    assert (answer.status, answer.json["errors"][0]["code"]) == (400, "NAME_INVALID")
    assert "20 are allowed" in answer.message


def test_a_certificate_that_has_ended(tmp_path: Path) -> None:
    """A registry whose certificate has ended starts, and says so in its log."""
    files = certify("forge", "localhost", begin=-9, days=-1).write(tmp_path)
    port = free_port()
    where = f"ssl:{port}:{files}:interface=127.0.0.1"
    with registry(tmp_path, FLAKE, "--port", where, port=port) as running:
        running.wait_for("the certificate CN=forge ended on ")
        running.wait_for(f" at https://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    ("words", "env_file", "said"),
    [
        ([], "", "http://localhost:6443/ in a browser"),
        (["--port", "7"], "FLASK_PORT=8\n", "http://localhost:7/ in a browser"),
        ([], "FLASK_PORT=8\n", "localhost:8/packages/hello:latest"),
        (["--port=tcp:7"], "", "the log says where"),
    ],
)
def test_make_run(tmp_path: Path, words: list[str], env_file: str, said: str) -> None:
    """Who says make run for the first time is told what to open, and what to pull."""
    for name in ("scripts", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    program = tmp_path / ".venv" / "bin" / "forge-registry"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    (tmp_path / ".env").write_text(env_file)
    outcome = start(str(tmp_path / "scripts" / "run"), *words, cwd=tmp_path)
    assert outcome.returncode == 0 and said in outcome.stderr
