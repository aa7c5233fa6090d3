"""Behind nginx, Caddy and HAProxy, set up as the documentation has it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests import daemon
from tests.daemon import Daemon, eventually, free_port
from tests.live.clients import Skopeo
from tests.live.documented import documented

#: Another machine, as far as anybody can tell: what nobody's proxy is.
CLIENT = "127.0.0.9"
PROXIES = "127.0.0.1/32"

TOKEN = "for-the-tests-alone"  # noqa: S105

NGINX = """
daemon off;
pid {tmp}/nginx.pid;
error_log {tmp}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {tmp}/body;
  proxy_temp_path {tmp}/proxy;
  fastcgi_temp_path {tmp}/fastcgi;
  uwsgi_temp_path {tmp}/uwsgi;
  scgi_temp_path {tmp}/scgi;
{documented}
}}
"""

CADDY = """
{{
  admin off
  skip_install_trust
}}
{documented}
"""


@frozen
class Proxy:
    """
    A kind of reverse proxy.

    :ivar around: what the documented settings are put into.
    :ivar changed: what is another for the tests, in the documented settings.
    :ivar argv: how it is started, in the foreground.
    :ivar listens: what the registry behind it is to listen on.
    """

    around: str
    changed: dict[str, str]
    argv: list[str]
    listens: str = "tcp:{port}:interface=127.0.0.1"

    def settings(self, kind: str, **values: Any) -> str:
        """Write its settings down, from the documentation's."""
        changed = {**self.changed, "127.0.0.1:6443": "{upstream}"}
        filled = {old: new.format(**values) for old, new in changed.items()}
        text = documented(f"{kind}\n", filled)
        return self.around.format(documented=text, **values)


KINDS = {
    "nginx": Proxy(
        NGINX,
        {
            "listen 443 ssl": "listen 127.0.0.1:{port} ssl",
            "/etc/ssl/certs/forge.pem": "{pem}",
            "/etc/ssl/private/forge.pem": "{pem}",
        },
        ["nginx", "-c", "{file}", "-e", "{tmp}/error.log"],
    ),
    "caddyfile": Proxy(
        CADDY,
        {"forge.example.org {": "https://localhost:{port} {{\n tls {pem} {pem}\n"},
        ["caddy", "run", "--config", "{file}", "--adapter", "caddyfile"],
    ),
    "haproxy": Proxy(
        "{documented}",
        {":443": "127.0.0.1:{port}", "/etc/haproxy/forge.pem": "{pem}"},
        ["haproxy", "-db", "-f", "{file}"],
        "haproxy:tcp:{port}:interface=127.0.0.1",
    ),
}


@contextlib.contextmanager
def proxying(kind: str, tmp: Path, upstream: int) -> Iterator[int]:
    """Run a proxy in front of a port of this machine; give its own."""
    port, pem, file = free_port(), tmp / "forge.pem", tmp / kind
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", pem, "-out", tmp / "certificate.pem",
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    pem.write_text(pem.read_text() + (tmp / "certificate.pem").read_text())
    values = {"port": port, "pem": pem, "tmp": tmp, "file": file}
    proxy = KINDS[kind]
    text = proxy.settings(kind, upstream=f"127.0.0.1:{upstream}", **values)
    file.write_text(text)
    log = tmp / f"{kind}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [word.format(**values) for word in proxy.argv],
            env=daemon.environment(XDG_DATA_HOME=str(tmp), XDG_CONFIG_HOME=str(tmp)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens)
        yield port
    finally:
        process.terminate()
        process.wait(daemon.STOP_SECONDS)


@frozen
class Front:
    """A registry, and the port of the proxy in front of it."""

    registry: Daemon
    port: int

    def ask(self, path: str, send: str | None = None, **headers: str) -> daemon.Answer:
        """Ask the proxy, as a client of another machine."""
        with asking(self.port, path, send, **headers) as response:
            body = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        return daemon.Answer(response.status, response.reason, found, body)


@contextlib.contextmanager
def asking(
    port: int, path: str, send: str | None = None, **headers: str
) -> Iterator[HTTPResponse]:
    """Ask over TLS, from another machine's address; give what begins to come back."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    connection = HTTPSConnection(
        "localhost", port, timeout=60, source_address=(CLIENT, 0), context=trusting
    )
    with contextlib.closing(connection):
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if send is None else "POST", path, send, sent)
        yield connection.getresponse()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The documented settings of one proxy."""
    return str(request.param)


@pytest.fixture(scope="module")
def front(
    kind: str, tmp_path_factory: pytest.TempPathFactory, example: str, store: Path
) -> Iterator[Front]:
    """A registry that serves the example flake behind a proxy."""
    tmp = tmp_path_factory.mktemp(kind)
    (tmp / "token").write_text(TOKEN)
    port = free_port()
    options = (
        "--store", str(store), "--trusted-proxies", PROXIES,
        "--admin-token-file", str(tmp / "token"),
        "--port", KINDS[kind].listens.format(port=port),
    )  # fmt: skip
    with (
        daemon.registry(tmp, example, *options, port=port) as running,
        proxying(kind, tmp, port) as front,
    ):
        yield Front(running, front)


def test_pull(front: Front, skopeo: Skopeo) -> None:
    """A client that knows only the proxy pulls an image, whose digests are right."""
    target = skopeo.state / f"behind-{front.port}"
    source = f"docker://localhost:{front.port}/packages/hello:latest"
    outcome = skopeo.copy(source, f"dir:{target}")
    assert outcome.status == 0, outcome.text
    manifest = json.loads((target / "manifest.json").read_text())
    for layer in manifest["layers"]:
        _, _, digest = layer["digest"].partition(":")
        assert hashlib.sha256((target / digest).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("claim", ["", "192.0.2.66"])
def test_who_asked(front: Front, claim: str) -> None:
    """A build is known to be asked for by the proxy's client, whatever that one says."""
    headers = {"X_Forwarded_For": claim} if claim else {}
    image = "packages/hello-single" if claim else "packages/hello-plain"
    answer = front.ask(
        f"/v2/{image}/manifests/latest",
        Accept="application/vnd.oci.image.manifest.v1+json",
        **headers,
    )
    assert answer.status == 200
    builds = front.ask("/-/api/builds").json["builds"]
    (build,) = (build for build in builds if build["image"].startswith(image + ":"))
    assert build["asked_by"] == [CLIENT]
    front.registry.wait_for(f"{CLIENT} - ")


def test_metrics(front: Front, kind: str) -> None:
    """Nobody outside reads the metrics, where the proxy can tell them from the rest."""
    assert front.ask("/metrics").status == (200 if kind == "haproxy" else 404)
    assert front.ask("/healthz").status == 200


def test_who_may_change_something(front: Front) -> None:
    """What came through the proxy changes nothing without the token."""
    sweep = ("/-/api/sweep", json.dumps({"dry_run": True}))
    assert front.ask(*sweep).status == 403
    assert front.ask(*sweep, Authorization=f"Bearer {TOKEN}").status == 200


def test_address_in_compose_files(front: Front) -> None:
    """A compose file names the registry as the proxy's client does."""
    answer = front.ask("/-/applications/web-app/compose.yaml")
    assert answer.status == 200
    assert f'"localhost:{front.port}/applications/web-app/web@' in answer.body.decode()


def stub(answer: bytes, rest: threading.Event, end: bytes) -> tuple[int, list[bytes]]:
    """Listen for one request; answer the beginning, and the end when it is time."""
    listening = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        with listening:
            while not asked:
                connection, _ = listening.accept()
                with connection:
                    # What HAProxy says before a request may come alone.
                    head = more = connection.recv(2**16)
                    while more and b" HTTP/1.1\r\n" not in head:
                        head += (more := connection.recv(2**16))
                    if not more:
                        continue
                    asked.append(head)
                    connection.sendall(answer)
                    rest.wait(60)
                    connection.sendall(end)

    threading.Thread(target=serve, daemon=True).start()
    return int(listening.getsockname()[1]), asked


BEGUN = {
    "live log": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n7\r\n: one\n\n\r\n",
        b": one\n\n",
        b"7\r\n: two\n\n\r\n0\r\n\r\n",
    ),
    "manifest": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n",
        b" ",
        b"2\r\n{}\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize("what", BEGUN)
def test_what_has_begun_arrives(kind: str, tmp_path: Path, what: str) -> None:
    """What the registry has said is passed on before it says more, uncompressed."""
    begin, arrives, end = BEGUN[what]
    rest = threading.Event()
    upstream, asked = stub(begin, rest, end)
    with proxying(kind, tmp_path, upstream) as port:
        try:
            with asking(port, "/v2/x", Accept_Encoding="gzip") as response:
                assert response.status == 200
                assert response.read1(len(arrives)) == arrives
                rest.set()
                assert response.read()
                assert response.getheader("Content-Encoding") is None
        finally:
            rest.set()
    assert b"Accept-Encoding: gzip" in asked[0]
