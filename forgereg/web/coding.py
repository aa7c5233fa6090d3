"""
Choose whether a blob or a text is compressed on its way to a client, and say so.

The digest of a blob is that of the plain bytes all the same, as is every `Range`: clients count
and verify what they have decoded. Source: RFC 9110, sections 8.4 and 12.5.3; tried with
every client that is served.
"""

from __future__ import annotations

from typing import Protocol

from attrs import define
from twisted.web.server import Request
from werkzeug.http import parse_accept_header

from forgereg.blobs.encoder import Encoder
from forgereg.oci.reference import Digest
from forgereg.web.answer import header
from forgereg.web.guard import Asked, Clients

#: What is shorter fits into one packet as it is, in bytes.
_SHORT = 1200
#: How long a list of codings may be that is read, in characters: parsing takes its time.
_MOST_OFFERED = 2**10


class Asking(Asked, Protocol):
    """What is looked at of a request."""

    method: bytes
    clientproto: bytes


def choose_coding(accept_encoding: str | None) -> str | None:
    """
    Choose among the content-codings that a client offers. Pure.

    :returns: ``zstd``, ``gzip``, or None for the plain bytes; `zstd` only where it is
        named, since ``*`` is also what is said by who knows nothing of it.
    """
    liked = parse_accept_header((accept_encoding or "")[:_MOST_OFFERED])
    named = {item.lower() for item, _ in liked}
    codings = ("zstd", "gzip") if "zstd" in named else ("gzip",)
    best = max(codings, key=liked.quality)
    # Plain is always allowed, and liked least where it is not named.
    plain = liked.quality("identity") if "identity" in named else 0.0
    return best if liked.quality(best) >= max(plain, 0.001) else None


@define
class Codings:
    """
    Chooses how blobs travel.

    :ivar mode: ``auto`` for plain bytes to clients that are near, ``always`` or
        ``never``.
    """

    _clients: Clients
    mode: str = "auto"

    def offered_by(self, request: Asking) -> str | None:
        """
        Choose how a blob is sent, if that pays.

        :returns: as of `choose_coding`.
        """
        headers = request.requestHeaders
        # Before HTTP/1.1 nothing tells an answer without length from one cut short.
        can_end = request.clientproto == b"HTTP/1.1"
        if request.method != b"GET" or headers.hasHeader(b"range") or not can_end:
            return None
        is_near = self.mode == "auto" and self._clients.is_near(request)
        if is_near or self.mode == "never":
            return None
        lines = headers.getRawHeaders(b"accept-encoding", [])
        return choose_coding(b",".join(lines).decode("latin-1"))


def declare(request: Request, digest: Digest, coding: str) -> None:
    """Say that a blob, which `identify` has told of, is sent in a coding."""
    request.setHeader("Content-Encoding", coding)
    # Other bytes than those that a strong ETag is of, and that a Range counts.
    request.setHeader("ETag", f'W/"{digest}"')


def compress(request: Request, text: bytes) -> bytes:
    """
    Compress a text as the client likes it best, and say so.

    That takes some 0.1 ms for 100 KB, so even who is near has it sooner. Nothing that is
    sent so has a secret beside what a client has said. Source: breachattack.com.
    """
    vary = request.responseHeaders.getRawHeaders("Vary", [])
    request.setHeader("Vary", ", ".join([*vary, "Accept-Encoding"]))
    coding = choose_coding(header(request, "accept-encoding"))
    if coding is None or len(text) < _SHORT:
        return text
    request.setHeader("Content-Encoding", coding)
    encoder = Encoder(coding)
    return encoder.encode(text) + encoder.finish()
