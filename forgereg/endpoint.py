"""
Read a Twisted endpoint string: where the registry listens, and with which files.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen

#: How long a connection may take, in seconds.
_SECONDS = 10.0
#: Source: "The PROXY protocol", versions 1 & 2.
_PROXY = b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 6443\r\n"
#: Kinds that Twisted has itself, and that have a TCP port.
ON_TCP = ("tcp", "tcp4", "tcp6", "ssl")
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
    def tls_files(self) -> tuple[Path, Path, Path | None]:
        """
        Its private key, its certificate, and a file with more certificates.

        Source: Twisted, `twisted.internet.endpoints`, the parser of ssl.
        """
        key = self.options.get("privateKey") or "server.pem"
        certificate = self.options.get("certKey") or key
        more = self.options.get("extraCertChain")
        return Path(key), Path(certificate), Path(more) if more else None

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
        Connect to it, as a client does that knows nothing of TLS yet. Blocking.

        :raises OSError: nobody listens there.
        """
        channel = socket.create_connection((self.near, self.port), _SECONDS)
        if self.is_told:
            channel.sendall(_PROXY)
        return channel


def parse_endpoint(text: str) -> Endpoint:
    """
    Read a Twisted endpoint string, as far as it is known here. Pure.

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
    port = options.get("port", place) if kind in ON_TCP else ""
    is_port = port.isascii() and port.isdecimal() and len(port) < 6
    if kind == "unix":
        options.setdefault("address", place)
    host = options.get("interface") or ("::" if kind == "tcp6" else "")
    return Endpoint(kind, int(port) if is_port else 0, host, options, is_told)
