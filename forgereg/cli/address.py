"""
Look at the address where the registry listens, or is to listen. Blocking.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from forgereg.cli.findings import Finding, doubtful, fine, wrong

#: How long who listens there may take to answer, in seconds.
_SECONDS = 10.0
_ASKED = b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANSWER = re.compile(rb"^server: *forge-registry", re.IGNORECASE | re.MULTILINE)
#: Source: "The PROXY protocol", versions 1 & 2.
_PROXY = b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 6443\r\n"
_ON_TCP = ("tcp", "tcp4", "tcp6", "ssl")
#: Where each kind has its own address, and every address of the machine.
_LOCAL = {"::": "::1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1"}


@frozen
class Endpoint:
    """
    A Twisted endpoint string, read.

    :ivar kind: such as ``ssl``.
    :ivar port: a TCP port; 0 where there is none.
    :ivar host: address to listen on; empty for every one.
    :ivar is_told: whether a proxy in front tells who the client is.
    """

    kind: str
    port: int
    host: str
    options: Mapping[str, str]
    is_told: bool

    @property
    def has_tls(self) -> bool:
        """Whether clients speak TLS to it."""
        return self.kind == "ssl"

    @property
    def near(self) -> str:
        """Where it is found from this machine."""
        return _LOCAL.get(self.host, self.host)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"

    def connect(self) -> socket.socket:
        """
        Connect to it, as a client does that knows nothing of TLS yet.

        :raises OSError: nobody listens there.
        """
        channel = socket.create_connection((self.near, self.port), _SECONDS)
        if self.is_told:
            channel.sendall(_PROXY)
        return channel


def parse_endpoint(text: str) -> Endpoint:
    """
    Read a Twisted endpoint string, as far as the doctor knows them. Pure.

    Source: Twisted, "Getting Connected with Endpoints".
    """
    is_told = text.startswith("haproxy:")
    text = text.removeprefix("haproxy:")
    options: dict[str, str] = {}
    words: list[str] = []
    # A backslash takes from the next character what it means.
    for piece in re.split(r"(?<!\\):", text):
        key, found, value = piece.partition("=")
        if found:
            options[key] = re.sub(r"\\(.)", r"\1", value)
        else:
            words.append(re.sub(r"\\(.)", r"\1", piece))
    kind, place = words[0] if words else "", "".join(words[1:2])
    port = options.get("port", place) if kind in _ON_TCP else ""
    is_port = port.isascii() and port.isdecimal() and len(port) < 6
    if kind == "unix":
        options.setdefault("address", place)
    host = options.get("interface") or ("::" if kind == "tcp6" else "")
    return Endpoint(kind, int(port) if is_port else 0, host, options, is_told)


def look_at_port(endpoint: Endpoint, is_running: bool) -> Iterator[Finding]:
    """
    See who listens there, or that the registry can.

    :param is_running: whether a registry has the state directory.
    """
    if endpoint.kind == "unix":
        yield _unix(endpoint)
        return
    known = {each.prefix for each in getPlugins(IStreamServerEndpointStringParser)}
    if endpoint.kind not in known.union(_ON_TCP) or endpoint.port > 65535:
        advice = "set FLASK_PORT to a port, or one of Twisted's endpoint strings"
        yield wrong("port", "FLASK_PORT is no endpoint", advice)
        return
    if not endpoint.port:
        yield fine("port", f"{endpoint.kind}: what opens it is not looked at")
        return
    yield _taken(endpoint, is_running)
    if not endpoint.has_tls and not endpoint.is_local and not endpoint.is_told:
        yield doubtful(
            "tls",
            "other machines reach it without TLS",
            "tell each client so (README, 'Clients'), or set FLASK_PORT=ssl:…, or have"
            " it listen on 127.0.0.1 behind a proxy",
        )


def _taken(endpoint: Endpoint, is_running: bool) -> Finding:
    where = f"port {endpoint.port} of {endpoint.host or 'every address'}"
    error = _refusal(endpoint)
    answer = _ask(endpoint) if _may_be_taken(error) else None
    if answer is None:
        return _free(endpoint, where, error, is_running)
    if _ANSWER.search(answer):
        return fine("port", f"a forge-registry answers at {where}")
    advice = f"find it with 'ss -ltnp sport = :{endpoint.port}', or set FLASK_PORT"
    return wrong("port", f"something else listens at {where}", advice)


def is_answered(endpoint: Endpoint) -> bool:
    """Say whether a forge-registry answers there."""
    if not _may_be_taken(_refusal(endpoint)):
        return False
    return _ANSWER.search(_ask(endpoint) or b"") is not None


def _ask(endpoint: Endpoint) -> bytes | None:
    """
    Ask who listens there.

    :returns: the head of its answer; empty if it is none, None where nobody listens.
    """
    try:
        channel: socket.socket = endpoint.connect()
    except OSError:
        return None
    with closing(channel):
        try:
            if endpoint.has_tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                channel = context.wrap_socket(channel)
            channel.sendall(_ASKED)
            answer = b""
            while (piece := channel.recv(4096)) and len(answer) < 2**16:
                answer += piece
            return answer
        except OSError:
            return b""


def _refusal(endpoint: Endpoint) -> OSError | None:
    """See whether one could listen there, without doing so; say what is against it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            endpoint.host or None,
            endpoint.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Without listening, it is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as e:
        return e
    except UnicodeError as e:  # no name that the network could know
        return OSError(errno.EADDRNOTAVAIL, str(e))
    return None


def _may_be_taken(error: OSError | None) -> bool:
    """Say whether who listens there may be asked: on another machine it is not ours."""
    return error is not None and error.errno in (errno.EADDRINUSE, errno.EACCES)


def _free(
    endpoint: Endpoint, where: str, error: OSError | None, is_running: bool
) -> Finding:
    if isinstance(error, PermissionError):
        advice = "take a port from 1024, or give the service CAP_NET_BIND_SERVICE"
        return wrong("port", f"{where} is not for this user", advice)
    if error is not None and error.errno == errno.EADDRNOTAVAIL:
        advice = "set FLASK_HOST to one that 'ip address' lists, or 0.0.0.0 for all"
        what = f"{endpoint.host} is no address of this machine"
        return wrong("port", what, advice)
    if error is not None:
        advice = "set FLASK_HOST and FLASK_PORT to what this machine has, and is free"
        return wrong("port", f"{where}: {error.strerror}", advice)
    if is_running:
        advice = "see its log, and give the doctor the settings that it has"
        return doubtful("port", f"{where} is free, though a registry runs", advice)
    return fine("port", f"{where} is free")


def _unix(endpoint: Endpoint) -> Finding:
    path = Path(endpoint.options.get("address", ""))
    if path.parent.is_dir() and os.access(path.parent, os.W_OK):
        return fine("port", f"{path.parent} can hold the socket")
    advice = "make it, and give it to the registry's user"
    return wrong("port", f"{path.parent} cannot be written", advice)
