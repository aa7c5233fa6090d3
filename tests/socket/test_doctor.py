"""The doctor as its users have it: each failure is a real one."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from attrs import frozen

from forgereg.cli.address import look_at_port
from forgereg.cli.findings import Finding, Level
from forgereg.endpoint import parse_endpoint
from tests.certificates import certify
from tests.daemon import ROOT, environment, flake, free_port, registry
from tests.findings import Told

NOWHERE = "path:/nowhere"
FORGE = ROOT / "examples" / "forge"


@frozen
class Outcome(Told):
    """What the doctor has said, and with which status it ended."""

    status: int


def run(
    folder: Path, *words: str, wrap: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Call the doctor."""
    argv = [*wrap, sys.executable, "-c", "from forgereg.cli import run; run()"]
    return subprocess.run(
        [*argv, "doctor", *words],
        cwd=folder,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ask(
    folder: Path,
    *words: str,
    flake: str = NOWHERE,
    wrap: tuple[str, ...] = (),
    **env: str,
) -> Outcome:
    """Ask the doctor about a registry whose state is below a folder."""
    state = ["--state-dir", str(folder / "state")]
    if "--port" not in words:
        state += ["--port", str(free_port())]
    outcome = run(folder, "--json", "--flake", flake, *state, *words, wrap=wrap, **env)
    assert "Traceback" not in outcome.stderr, outcome.stderr
    told = json.loads(outcome.stdout)
    assert told["ok"] == (outcome.returncode == 0)
    findings = [
        Finding(**{**each, "level": Level(each["level"])}) for each in told["findings"]
    ]
    return Outcome(findings, outcome.returncode)


def test_a_machine_that_is_well(tmp_path: Path) -> None:
    """Where all is well the status is 0, and each flake's images are counted."""
    told = ask(tmp_path, flake=flake(FORGE, tmp_path / "forge"))
    assert told.status == 0, told.findings
    assert told.of("builds")[0] == told.of("state")[0] == told.of("port")[0] == "ok"
    assert "7 packages and 1 applications have images" in told.of("flake")[1]
    assert not (tmp_path / "state").exists()


def test_as_a_person_reads_it(tmp_path: Path) -> None:
    """Each finding is one line, and ends with what to do."""
    words = ("--flake", NOWHERE, "--port", str(free_port()))
    outcome = run(tmp_path, *words, "--state-dir", str(tmp_path / "state"))
    assert outcome.returncode == 1
    lines = outcome.stdout.splitlines()
    assert "ok      settings: make sense" in lines
    (line,) = (each for each in lines if each.startswith("error"))
    assert line.startswith("error   flake: path:/nowhere cannot be read: ")
    assert line.endswith("; see that it is spelt right")


def test_called_wrongly(tmp_path: Path) -> None:
    """A word that the doctor does not know is told by status 2."""
    for words in (["--colour", "red"], ["hand"]):
        outcome = run(tmp_path, *words)
        assert (outcome.returncode, outcome.stdout) == (2, "")
        assert outcome.stderr.startswith("forge-registry doctor: ")


def test_settings(tmp_path: Path) -> None:
    """Settings are read as at the start, and told of in the same line."""
    (tmp_path / ".env").write_text("CACHE_SIZE=much\n")
    told = ask(tmp_path)
    assert told.status == 1 and told.of("everything else")[0] == "skipped"
    assert "CACHE_SIZE is 'much'; it must be" in told.of("settings")[1]


def test_a_misspelt_setting(tmp_path: Path) -> None:
    """A setting that is none is told of by the doctor, and when the registry starts."""
    (tmp_path / ".env").write_text("FORGE_MAX_BILDS=3\n")
    said = "FORGE_MAX_BILDS is no setting; did you mean FORGE_MAX_BUILDS?"
    assert ask(tmp_path).of("settings") == ("warning", said)
    with registry(tmp_path, NOWHERE) as running:
        running.wait_for(said)


def test_no_nix(tmp_path: Path) -> None:
    """Without nix, that is said, and flakes are not asked for."""
    (tmp_path / "bin").mkdir()
    for name in ("setsid", "setpriv", "prlimit"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    told = ask(tmp_path, PATH=str(tmp_path / "bin"))
    assert told.of("nix")[0] == "error" and "install nix" in told.of("nix")[1]
    assert told.of("git")[0] == told.of("bubblewrap")[0] == "warning"
    why = "not looked at, because nix does not work"
    assert told.of("builds") == told.of("flake") == ("skipped", why)
    told = ask(tmp_path, PATH=str(tmp_path))
    assert told.of("nix")[1].startswith("nix not found")
    assert "install util-linux" in told.of("nix")[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone builds as other users")
def test_no_users_to_build(tmp_path: Path) -> None:
    """Root without the group nixbld reads which setting is missing."""
    config = "build-users-group = no-such-group\nsubstituters =\n"
    told = ask(tmp_path, "--store", str(tmp_path / "s"), NIX_CONFIG=config)
    level, said = told.of("builds")
    assert level == "error" and "no-such-group" in said
    assert told.of("flake")[0] == "skipped"


def test_another_system(tmp_path: Path) -> None:
    """Packages of another system need a builder, and have to be there."""
    told = ask(
        tmp_path, "--system", "riscv64-linux", flake=flake(FORGE, tmp_path / "forge")
    )
    assert told.of("system")[0] == "warning"
    assert told.of("flake")[0] == "error" and "FORGE_SYSTEM" in told.of("flake")[1]


def test_flakes(tmp_path: Path) -> None:
    """Of several flakes, each is told of by its name, and its secrets are not."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "flake.nix").write_text(
        "{ outputs = _: { packages = 1 +; }; }"
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "flake.nix").write_text(
        "{ outputs = _: { packages.x86_64-linux = { a = { }; }; }; }"
    )
    flakes = (
        f'{{broken = "path:{tmp_path}/broken", empty = "path:{tmp_path}/empty",'
        ' gone = "git+http://me:secret@127.0.0.1:1/x"}'
    )
    told = ask(tmp_path, "--flakes", flakes, "--system", "x86_64-linux")
    assert told.of("flake broken")[0] == "error"
    assert "syntax error" in told.of("flake broken")[1]
    assert told.of("flake empty")[0] == "warning"
    assert told.of("flake gone")[0] == "error"
    assert "secret" not in str(told.findings)


def test_secret_files(tmp_path: Path) -> None:
    """Secrets that others can read, or nobody, are told of, and stay secret."""
    open_to_all, private = tmp_path / "open", tmp_path / "private"
    for path, mode, times in ((open_to_all, 0o644, 1), (private, 0o600, 4)):
        path.write_text("sesame" * times)
        path.chmod(mode)
    told = ask(
        tmp_path,
        "--admin-token-file", str(open_to_all),
        "--hook-secret-file", str(private),
        "--token-file", str(tmp_path / "gone"),
    )  # fmt: skip
    level, said = told.of("FORGE_ADMIN_TOKEN_FILE")
    assert level == "warning" and f"chmod 600 {open_to_all}" in said
    assert told.of("FORGE_HOOK_SECRET_FILE")[0] == "ok"
    assert f"what {open_to_all} holds can be guessed" in str(told.findings)
    assert f"what {private} holds" not in str(told.findings)
    assert told.of("flake")[0] == "error"
    assert "sesame" not in str(told.findings)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to lay down what root may do")
def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A state directory that cannot be written, or made, is told of."""
    wrap = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--")
    (tmp_path / "locked").mkdir(mode=0o500)
    for folder in (tmp_path / "locked", tmp_path / "locked" / "state"):
        told = ask(tmp_path, "--state-dir", str(folder), wrap=wrap)
        level, said = told.of("state")
        assert level == "error" and "cannot be written" in said
    (tmp_path / "file").touch()
    assert (
        ask(tmp_path, "--state-dir", str(tmp_path / "file")).of("state")[0] == "error"
    )


def test_a_directory_that_looks_as_if(tmp_path: Path) -> None:
    """What cannot be made, though its permissions say so, is told of as at the start."""
    told = ask(tmp_path, "--state-dir", "/proc/forge/state")
    assert told.of("state")[0] == "error" and told.status == 1
    (tmp_path / "state" / "lock").mkdir(parents=True)
    level, said = ask(tmp_path).of("state")
    assert level == "error" and "not lock in it" in said


def test_traces(tmp_path: Path) -> None:
    """A collector that is none is told of as at the start."""
    told = ask(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="notaurl")
    assert "is not the URL of a collector" in told.of("traces")[1]
    assert told.of("traces")[0] == "error"


def test_an_endpoint_that_the_start_refuses(tmp_path: Path) -> None:
    """What Twisted does not know of an endpoint is told of as at the start."""
    level, said = ask(tmp_path, "--port", f"tcp:{free_port()}:colour=red").of("port")
    assert level == "error" and "which is no endpoint" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    """Who is not the registry's user is told whom to be."""
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    level, said = ask(tmp_path).of("state")
    assert level == "warning" and "belongs to 12345" in said


def test_room(tmp_path: Path) -> None:
    """More room for layers than the disk has is told of."""
    level, said = ask(tmp_path, "--blobs-size", str(2**59)).of("room")
    assert level == "warning" and "lower FORGE_BLOBS_SIZE" in said


def unversioned(file: Path) -> bytes:
    """Records from before they said of which version they are."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE sources (id)")
    return file.read_bytes()


def test_records(tmp_path: Path) -> None:
    """Records that are damaged, or of another version, are told of, and left alone."""
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "registry.sqlite"
    for content, said in (
        (b"something else" * 10, "is damaged"),
        (b"SQLite format 3\0" + bytes(47) + b"\xff" + bytes(100), "another version"),
        (unversioned(tmp_path / "other"), "another version"),
    ):
        file.write_bytes(content)
        told = ask(tmp_path)
        assert told.of("records")[0] == "error" and said in told.of("records")[1]
        assert list(file.parent.iterdir()) == [file]


def test_a_registry_that_runs(tmp_path: Path) -> None:
    """Beside a registry that runs, nothing of it is wrong, and it does not notice."""
    with registry(tmp_path, NOWHERE) as running:
        before = running.logged().count("error")
        told = ask(tmp_path, "--port", str(running.port))
        assert told.of("registry")[0] == told.of("port")[0] == "ok"
        assert "a forge-registry answers" in told.of("port")[1]
        assert told.of("records")[0] == told.of("state")[0] == "ok"
        assert ask(tmp_path).of("port")[0] == "warning"  # it listens elsewhere
        assert running.ask("/readyz").status == 200
        assert running.logged().count("error") == before


def test_behind_a_proxy(tmp_path: Path) -> None:
    """A registry that wants to be told who asks is told, and answers the doctor."""
    port = f"haproxy:tcp:{free_port()}:interface=127.0.0.1"
    with registry(tmp_path, NOWHERE, "--port", port, port=int(port.split(":")[2])):
        assert "a forge-registry answers" in ask(tmp_path, "--port", port).of("port")[1]


class Other(BaseHTTPRequestHandler):
    """A server that is no registry."""

    def do_HEAD(self) -> None:  # noqa: N802
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def other() -> Iterator[int]:
    """The port of a server that is no registry."""
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def port(text: str) -> Told:
    """Ask about an endpoint where no registry runs."""
    return Told(list(look_at_port(parse_endpoint(text), False)))


def test_a_port_that_is_taken(other: int) -> None:
    """A port that somebody else has is told of, and how to find out who."""
    level, said = port(f"tcp:{other}:interface=127.0.0.1").of("port")
    assert level == "error" and f"ss -ltnp sport = :{other}" in said


def test_somebody_who_says_nothing() -> None:
    """A port where somebody listens and does not answer is taken."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        thread = threading.Thread(target=lambda: silent.accept()[0].close())
        thread.start()
        told = port(f"tcp:{silent.getsockname()[1]}:interface=127.0.0.1")
        thread.join()
    assert told.of("port")[0] == "error"


@pytest.mark.parametrize(
    ("where", "level"),
    [
        ("tcp:{}:interface=127.0.0.1", "ok"),
        ("tcp:{}:interface=192.0.2.1", "error"),
        ("tcp:{}:interface=no.such.host.invalid", "error"),
        ("tcp:99999", "error"),
        ("carrier:pigeon", "error"),
        ("systemd:domain=INET:index=0", "ok"),
        ("unix:/nowhere/at/all", "error"),
        ("unix:address=/tmp/forge-registry", "ok"),
    ],
)
def test_addresses(where: str, level: str) -> None:
    """An address that is none, or none of this machine's, is told of."""
    assert port(where.format(free_port())).of("port")[0] == level


@pytest.mark.parametrize("host", ["192.0.2.1", "10.9.9.9", "no" * 40])
def test_an_address_of_another_machine(host: str) -> None:
    """An address that is not this machine's is not asked who listens there."""
    level, said = port(f"tcp:6443:interface={host}").of("port")
    assert level == "error" and f"{host} is no address of this machine" in said


def test_an_address_for_everybody() -> None:
    """Who lets other machines in without TLS is told what these need to be told."""
    assert port(f"tcp:{free_port()}").of("tls")[0] == "warning"
    assert len(port(f"haproxy:tcp:{free_port()}").findings) == 1


def test_a_certificate_that_was_replaced(tmp_path: Path) -> None:
    """A registry that goes on showing its old certificate is to be restarted."""
    files = certify("forge", "localhost").write(tmp_path)
    number = free_port()
    port = f"ssl:{number}:{files}:interface=127.0.0.1"
    with registry(tmp_path, NOWHERE, "--port", port, port=number):
        told = ask(tmp_path, "--port", port)
        assert told.of("port")[0] == "ok" and told.of("tls trust")[0] == "warning"
        certify("forge", "localhost").write(tmp_path)
        assert ask(tmp_path, "--port", port).of("tls")[0] == "warning"
