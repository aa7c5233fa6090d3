"""
Peers to measure against, from Debian's packages: nginx and docker-registry.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from tests.daemon import Daemon, free_port

START_SECONDS = 30.0
STOP_SECONDS = 10.0

_NGINX = """
daemon off;
user root;
worker_processes auto;
pid {tmp}/nginx.pid;
error_log {tmp}/nginx.log;
events {{ worker_connections 2048; }}
http {{
  include /etc/nginx/mime.types;
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {tmp}/body;
  proxy_temp_path {tmp}/proxy;
  fastcgi_temp_path {tmp}/fastcgi;
  uwsgi_temp_path {tmp}/uwsgi;
  scgi_temp_path {tmp}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    listen 127.0.0.1:{tls} ssl backlog=1024;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    root {root};
  }}
}}
"""


@frozen
class Certificate:
    """A self-signed certificate for this machine, and its key."""

    path: Path
    key: Path


@frozen
class Nginx:
    """An nginx that is running, and what it serves."""

    port: int
    tls: int
    root: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate, as many servers have one: RSA, 2048 bits."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-keyout", made.key, "-out", made.path,
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return made


@contextlib.contextmanager
def run(
    argv: Sequence[str], port: int, cwd: Path, cores: set[int] | None = None
) -> Iterator[None]:
    """
    Run a server while the block is entered, from when it listens on a port.

    :param cores: those that it runs on; None for all.
    """

    def pin() -> None:
        if cores is not None:
            os.sched_setaffinity(0, cores)

    env = dict(os.environ)
    if cores is not None:
        env["GOMAXPROCS"] = str(len(cores))
    with (cwd / f"{argv[0]}-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdout=log, stderr=log, preexec_fn=pin
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} does not start; its log is {log.name}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nginx(tmp: Path, certificate: Certificate) -> Iterator[Nginx]:
    """Run Debian's nginx."""
    served = Nginx(free_port(), free_port(), tmp / "served")
    served.root.mkdir()
    config = tmp / "nginx.conf"
    config.write_text(
        _NGINX.format(
            tmp=tmp,
            port=served.port,
            tls=served.tls,
            certificate=certificate.path,
            key=certificate.key,
            root=served.root,
        )
    )
    with run(["nginx", "-p", str(tmp), "-c", str(config)], served.port, tmp):
        yield served


@contextlib.contextmanager
def docker_registry(tmp: Path, cores: set[int] | None = None) -> Iterator[int]:
    """Run Debian's docker-registry, which keeps all in files; give its port."""
    port = free_port()
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp / "docker-registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    path = tmp / "docker-registry.yml"
    path.write_text(json.dumps(config))
    with run(["docker-registry", "serve", str(path)], port, tmp, cores):
        yield port


def give(running: Daemon, name: str, port: int) -> None:
    """
    Put an image of ours into docker-registry: the same manifest, the same bytes.

    :param name: without ``packages/``; it has the tag ``latest`` here and there.
    """
    ours = f"http://127.0.0.1:{running.port}/v2/packages/{name}"
    theirs = f"http://127.0.0.1:{port}/v2/packages/{name}"
    manifest = running.ask(f"/v2/packages/{name}/manifests/latest")
    parts = [manifest.json["config"], *manifest.json["layers"]]
    for digest in dict.fromkeys(part["digest"] for part in parts):
        start = _curl("-X", "POST", "-D", "-", f"{theirs}/blobs/uploads/")
        location = next(
            line.split(": ", 1)[1].strip()
            for line in start.decode().splitlines()
            if line.lower().startswith("location: ")
        )
        # The whole of a layer does not fit into curl's memory, so by way of a pipe.
        get = subprocess.Popen(
            ["curl", "-sSf", f"{ours}/blobs/{digest}"], stdout=subprocess.PIPE
        )
        with get:
            put = f"{location}&digest={digest}"
            _curl("-T", "-", "-X", "PUT", put, stdin=get.stdout)
    kind = f"Content-Type: {manifest.headers['content-type']}"
    url = f"{theirs}/manifests/latest"
    _curl("-X", "PUT", "-H", kind, "--data-binary", "@-", url, given=manifest.body)


def _curl(*args: str, **streams: object) -> bytes:
    given = streams.get("given")
    done = subprocess.run(
        ["curl", "-sSf", *args],
        check=True,
        stdout=subprocess.PIPE,
        **({"input": given} if given else streams),  # type: ignore[call-overload]
    )
    return bytes(done.stdout)
