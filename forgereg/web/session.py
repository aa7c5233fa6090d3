"""
Let a browser that has shown the token once be known by a cookie.

The cookie is signed with a key that comes of the token: another token, and nobody is
known any more. It says nothing but when it was given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from attrs import define
from itsdangerous import BadSignature, TimestampSigner
from twisted.web.server import Request

from forgereg.web.guard import Clients
from forgereg.web.host import is_secure

#: How long a browser is known, in seconds.
LASTS_SECONDS = 12 * 3600
_NAME = b"forge-session"
_SALT = b"forge-registry session"


class _Signer(TimestampSigner):
    """Signs with a time that is told it."""

    def __init__(self, token: str, now: int) -> None:
        super().__init__(
            token, _SALT, key_derivation="hmac", digest_method=hashlib.sha256
        )
        self._now = now

    def get_timestamp(self) -> int:
        return self._now


@define(eq=False)
class Sessions:
    """
    The browsers that are known.

    :ivar token: gives the administrator's; None for none, and then nobody is known.
    :ivar now: gives seconds since the epoch.
    """

    _token: Callable[[], str | None]
    _clients: Clients
    _now: Callable[[], float]

    def is_known(self, request: Request) -> bool:
        """Say whether a browser has shown the token not long ago."""
        token, shown = self._token(), request.getCookie(self._name(request))
        if not token or not shown:
            return False
        try:
            self._signer(token).unsign(shown, max_age=LASTS_SECONDS)
        except BadSignature:
            return False
        return True

    def begin(self, request: Request) -> None:
        """Have a browser known from now on; there must be a token."""
        signed = self._signer(self._token() or "").sign(b"administrator")
        self._give(request, signed, LASTS_SECONDS)

    def end(self, request: Request) -> None:
        """Have a browser forget that it was known."""
        self._give(request, b"", 0)

    def _signer(self, token: str) -> _Signer:
        return _Signer(token, int(self._now()))

    def _name(self, request: Request) -> bytes:
        # Browsers take this name from nobody but the host itself, over TLS.
        # Source: RFC 6265bis, section 4.1.3.2.
        return b"__Host-" * is_secure(request, self._clients) + _NAME

    def _give(self, request: Request, value: bytes, seconds: int) -> None:
        request.addCookie(
            self._name(request),
            value,
            max_age=str(seconds),
            path=b"/",
            secure=is_secure(request, self._clients),
            httpOnly=True,
            sameSite="strict",
        )
