"""Listening for a proxy that tells, in the PROXY protocol, who asks."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.web.server import Site

from tests.client import Connection
from tests.daemon import free_port, registry
from tests.registry import ANY_FORM, Served

#: Source: the PROXY protocol, section 2.2.
_V2 = b"\r\n\r\n\0\r\nQUIT\n"

CLIENTS = ["192.0.2.7", "2001:db8::7", "127.0.0.1"]


def v1(client: str) -> bytes:
    """Say who asks, as nginx and HAProxy's send-proxy do."""
    family = "TCP6" if ":" in client else "TCP4"
    return f"PROXY {family} {client} {client} 40000 443\r\n".encode()


def v2(client: str) -> bytes:
    """Say who asks, as HAProxy's send-proxy-v2 does."""
    address = ip_address(client).packed
    said = address * 2 + struct.pack("!HH", 40000, 443)
    family = 0x21 if len(address) == 16 else 0x11
    return _V2 + struct.pack("!BBH", 0x21, family, len(said)) + said


#: What a proxy says when it asks for itself, as to see whether anyone is there.
ITSELF = _V2 + struct.pack("!BBH", 0x20, 0, 0)


def ask(port: int, opening: bytes, request: str) -> bytes:
    """Send a request behind what a proxy says; give all that comes back."""
    with closing(socket.create_connection(("127.0.0.1", port), 30)) as s:
        s.sendall(opening)
        s.sendall(f"{request} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return b"".join(iter(lambda: s.recv(2**16), b""))


def test_real_port(tmp_path: Path) -> None:
    """Over a real port, clients are logged by what the proxy says, and rule nothing."""
    port = free_port()
    endpoint = f"haproxy:tcp:{port}:interface=127.0.0.1"
    with registry(tmp_path, "path:/x", "--port", endpoint, port=port) as running:
        for client in CLIENTS:
            for say in (v1, v2):
                path = f"/v2/?{say.__name__}={client}"
                answer = ask(port, say(client), f"GET {path}")
                assert answer.startswith(b"HTTP/1.0 200 OK\r\n"), answer
                running.wait_for(path)
                (line,) = (x for x in running.logged().splitlines() if path in x)
                (logged,) = re.findall(r"(\S+) - - ", line)
                assert ip_address(logged) == ip_address(client)
                answer = ask(port, say(client), "POST /-/api/sweep")
                assert b" 403 " in answer and b"does not prove who asks" in answer
        assert b" 200 OK\r\n" in ask(port, ITSELF, "GET /v2/")
        assert b" 403 " in ask(port, ITSELF, "POST /-/api/sweep")
        assert ask(port, b"", "GET /v2/") == b""
        running.stop()
        assert "Traceback" not in running.logged()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("say", [v1, v2])
def test_who_asked(served: Served, say: Callable[[str], bytes], client: str) -> None:
    """A build is known to be asked for by who the proxy says it is."""
    factory = HAProxyWrappingFactory(served.site)
    connection = Connection.to(cast(Site, factory), address="127.0.0.1")
    connection.send(say(client))
    connection.ask("GET", "/v2/packages/hello/manifests/latest", ANY_FORM)
    assert connection.answer().status == 200
    (build,) = served.get("/-/api/builds").json["builds"]
    assert build["asked_by"] == [client]
