"""
Look at the address where the registry listens, or is to listen. Blocking.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from forgereg.cli.findings import Finding, doubtful, fine, wrong
from forgereg.endpoint import ON_TCP, Endpoint

_ASKED = b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANSWER = re.compile(rb"^server: *forge-registry", re.IGNORECASE | re.MULTILINE)


def look_at_port(endpoint: Endpoint, is_running: bool) -> Iterator[Finding]:
    """
    See who listens there, or that the registry can.

    :param is_running: whether a registry has the state directory.
    """
    if endpoint.kind == "unix":
        yield _unix(endpoint)
        return
    known = {each.prefix for each in getPlugins(IStreamServerEndpointStringParser)}
    if endpoint.kind not in known.union(ON_TCP) or endpoint.port > 65535:
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
