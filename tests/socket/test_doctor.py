"""The doctor as its users have it: each failure is a real one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from attrs import frozen

from tests.certificates import certify
from tests.daemon import ROOT, environment, flake, free_port, registry

NOWHERE = "path:/nowhere"
FORGE = ROOT / "examples" / "forge"


@frozen
class Told:
    """What the doctor has said, and with which status it ended."""

    status: int
    findings: list[dict[str, str]]

    def of(self, what: str) -> tuple[str, str]:
        """Give how bad something is, and what was said of it."""
        found = [each for each in self.findings if each["what"] == what]
        assert found, self.findings
        worst = max(
            found, key=lambda each: ["ok", "warning", "error"].index(each["level"])
        )
        return worst["level"], f"{worst['detail']}; {worst['advice']}"


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
) -> Told:
    """Ask the doctor about a registry whose state is below a folder."""
    state = ["--state-dir", str(folder / "state")]
    if "--port" not in words:
        state += ["--port", str(free_port())]
    outcome = run(folder, "--json", "--flake", flake, *state, *words, wrap=wrap, **env)
    assert "Traceback" not in outcome.stderr, outcome.stderr
    told = json.loads(outcome.stdout)
    assert told["ok"] == (outcome.returncode == 0)
    return Told(outcome.returncode, told["findings"])


def test_a_machine_that_is_well(tmp_path: Path) -> None:
    """Where all is well the status is 0, and each flake's images are counted."""
    told = ask(tmp_path, flake=flake(FORGE, tmp_path / "forge"))
    assert told.status == 0, told.findings
    assert told.of("builds")[0] == told.of("state")[0] == told.of("port")[0] == "ok"
    assert "7 packages and 1 applications have images" in told.of("flake")[1]
    assert not (tmp_path / "state").exists()


def test_as_a_person_reads_it(tmp_path: Path) -> None:
    """Each finding is one line, and ends with what to do."""
    outcome = run(tmp_path, "--flake", NOWHERE, "--port", str(free_port()))
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
    assert told.status == 1 and len(told.findings) == 1
    assert "CACHE_SIZE is 'much'; it must be" in told.of("settings")[1]


def test_no_nix(tmp_path: Path) -> None:
    """Without nix, that is said, and flakes are not asked for."""
    (tmp_path / "bin").mkdir()
    for name in ("setsid", "setpriv", "prlimit"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    told = ask(tmp_path, PATH=str(tmp_path / "bin"))
    assert told.of("nix")[0] == "error" and "install nix" in told.of("nix")[1]
    assert told.of("git")[0] == told.of("bubblewrap")[0] == "warning"
    assert not any(each["what"] == "flake" for each in told.findings)
    told = ask(tmp_path, PATH=str(tmp_path))
    assert "install util-linux" in told.of("nix")[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone builds as other users")
def test_no_users_to_build(tmp_path: Path) -> None:
    """Root without the group nixbld reads which setting is missing."""
    config = "build-users-group = no-such-group\nsubstituters =\n"
    level, said = ask(tmp_path, "--store", str(tmp_path / "s"), NIX_CONFIG=config).of(
        "builds"
    )
    assert level == "error" and "no-such-group" in said


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
    for path, mode in ((open_to_all, 0o644), (private, 0o600)):
        path.write_text("sesame\n")
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


def test_records(tmp_path: Path) -> None:
    """Records that are damaged, or of another version, are told of, and left alone."""
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "registry.sqlite"
    for content, said in (
        (b"something else" * 10, "is damaged"),
        (b"SQLite format 3\0" + bytes(47) + b"\xff" + bytes(100), "another version"),
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


def test_a_port_that_is_taken(tmp_path: Path, other: int) -> None:
    """A port that somebody else has is told of, and how to find out who."""
    level, said = ask(tmp_path, "--port", str(other)).of("port")
    assert level == "error" and f"ss -ltnp sport = :{other}" in said


def test_other_addresses(tmp_path: Path) -> None:
    """An address that is none of this machine's is told of; so is one open to others."""
    told = ask(tmp_path, "--host", "192.0.2.1")
    assert told.of("port")[0] == "error"
    assert ask(tmp_path, "--host", "no.such.host.invalid").of("port")[0] == "error"
    assert ask(tmp_path, "--port", "carrier:pigeon").of("port")[0] == "error"
    assert ask(tmp_path, "--port", "systemd:domain=INET:index=0").of("port")[0] == "ok"
    assert ask(tmp_path, "--host", "0.0.0.0").of("tls")[0] == "warning"


def tls(tmp_path: Path, files: str, *words: str, **env: str) -> Told:
    """Ask about an endpoint with TLS."""
    port = f"ssl:{free_port()}:{files}:interface=127.0.0.1"
    return ask(tmp_path, "--port", port, *words, **env)


def test_a_good_certificate(tmp_path: Path) -> None:
    """A certificate that this machine trusts, for the name that clients use, is well."""
    ca = certify("A CA", is_ca=True)
    pair = certify("forge", "forge.test", "10.0.0.1", by=ca)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    told = tls(
        tmp_path, pair.write(tmp_path), "--name", "forge.test", "--name", "10.0.0.1",
        SSL_CERT_FILE=str(tmp_path / "ca.pem"),
    )  # fmt: skip
    for what in ("tls key", "tls dates", "tls name", "tls trust"):
        assert told.of(what)[0] == "ok", told.findings


def test_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    """Who has signed their own certificate reads where clients look for it."""
    told = tls(tmp_path, certify("forge", "forge.test").write(tmp_path))
    level, said = told.of("tls trust")
    assert level == "warning" and "self" in said
    for place in ("/etc/docker/certs.d/forge.test:", "/etc/containers/", "hosts.toml"):
        assert place in said
    assert told.of("tls name")[0] == "warning"


def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    """A certificate that does not name the registry as clients do is told of."""
    files = certify("forge", "forge.test", "*.forge.test").write(tmp_path)
    told = tls(tmp_path, files, "--name", "a.forge.test", "--name", "other.test")
    assert told.of("tls name") == (
        "error",
        "the certificate is for forge.test, *.forge.test, not for other.test; have one"
        " made that names it, or call the registry as it says",
    )


def test_a_certificate_without_names(tmp_path: Path) -> None:
    """A certificate that has a common name alone is refused by clients written in Go."""
    level, said = tls(tmp_path, certify("localhost").write(tmp_path)).of("tls name")
    assert level == "error" and "no subjectAltName" in said


@pytest.mark.parametrize(
    ("begin", "days", "level", "said"),
    [
        (-9, -1, "error", "ended on"),
        (-9, 5, "warning", "ends on"),
        (3, 9, "error", "is valid from"),
    ],
)
def test_dates(tmp_path: Path, begin: int, days: int, level: str, said: str) -> None:
    """A certificate that is too old, too young, or soon will be, is told of."""
    pair = certify("forge", "localhost", begin=begin, days=days)
    told = tls(tmp_path, pair.write(tmp_path)).of("tls dates")
    assert told[0] == level and said in told[1]


def test_certificates_that_are_not_sent(tmp_path: Path) -> None:
    """Certificates behind the first one are not sent, which a chain of their own mends."""
    ca = certify("A CA", is_ca=True)
    between = certify("Between", is_ca=True, by=ca)
    files = (pair := certify("forge", "forge.test", by=between)).write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    (tmp_path / "cert.pem").write_bytes(pair.pem + between.pem)
    trusted = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    told = tls(tmp_path, files, **trusted)
    assert told.of("tls chain")[0] == told.of("tls trust")[0] == "warning"
    assert "CN=Between" in told.of("tls trust")[1]
    (tmp_path / "chain.pem").write_bytes(between.pem)
    told = tls(tmp_path, f"{files}:extraCertChain={tmp_path}/chain.pem", **trusted)
    assert told.of("tls trust")[0] == "ok"


def test_files_that_do_not_serve(tmp_path: Path) -> None:
    """Files that are gone, mixed up or locked are told of, with what to do."""
    pair = certify("forge", "localhost")
    files = pair.write(tmp_path)
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    other = tmp_path / "other.pem"
    other.write_bytes(certify("other", "localhost").key_pem())
    locked = tmp_path / "locked.pem"
    locked.write_bytes(pair.key_pem(b"sesame"))
    for given, what, said in (
        (f"privateKey=/gone:certKey={cert}", "tls key", "/gone cannot be read"),
        (f"privateKey={key}:certKey=/gone", "tls certificate", "/gone cannot be read"),
        (f"privateKey={cert}:certKey={cert}", "tls key", "has no private key"),
        (f"privateKey={key}:certKey={key}", "tls certificate", "has no certificate"),
        (f"privateKey={other}:certKey={cert}", "tls key", "is not the key of"),
        (f"privateKey={locked}:certKey={cert}", "tls key", "has a password"),
    ):
        level, told = tls(tmp_path, given).of(what)
        assert level == "error" and said in told
    key.chmod(0o644)
    assert tls(tmp_path, files).of("tls key")[0] == "warning"


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


def test_somebody_who_says_nothing(tmp_path: Path) -> None:
    """A port where somebody listens and does not answer is taken."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        thread = threading.Thread(target=lambda: silent.accept()[0].close())
        thread.start()
        port = str(silent.getsockname()[1])
        assert ask(tmp_path, "--port", port).of("port")[0] == "error"
        thread.join()
