"""
Let whoever has the administrator's token show it in a browser, at ``/-/login``.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import parse_qs

from attrs import define, field
from cachetools import TTLCache
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from forgereg.logs import logger
from forgereg.oci.errors import Forbidden, RequestInvalid
from forgereg.web.guard import Clients, is_own_page
from forgereg.web.pages import Pages, go, tell_errors
from forgereg.web.session import Sessions

_log = logger(__name__)

#: How large a form may be, in bytes.
MAX_BODY = 2**14
LOGIN = "/-/login"
#: How many wrong tokens a client may show within how many seconds, and of how many
#: clients that is known.
_MOST_WRONG, _WRONG_SECONDS, _MOST_CLIENTS = 5, 60.0, 10_000
#: A path of ours, and nothing that a browser could take for another host.
_OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")


@define(eq=False)
class Login:
    """
    The page where the token is shown, and where that is taken back.

    :ivar token: gives it; None for none.
    """

    pages: Pages
    _sessions: Sessions
    _token: Callable[[], str | None]
    _clients: Clients
    _clock: IReactorTime
    #: client → how often it was wrong lately
    _wrong: TTLCache[str, int] = field(init=False)

    app = Klein()
    app.url_map.merge_slashes = False

    def __attrs_post_init__(self) -> None:
        self._wrong = TTLCache(_MOST_CLIENTS, _WRONG_SECONDS, timer=self._clock.seconds)

    @app.route(LOGIN, methods=["GET"])
    async def ask(self, request: Request) -> bytes:
        """Ask for the token."""
        next = own_path(request.args.get(b"next", [b""])[-1].decode("utf-8", "replace"))
        return await self._ask(request, next)

    async def _ask(self, request: Request, next: str, wrong: str = "") -> bytes:
        return await self.pages.show(request, "login", next=next, wrong=wrong)

    @app.route(LOGIN, methods=["POST"])
    async def begin(self, request: Request) -> bytes:
        """Take the token."""
        form, client = _form(request), self._clients.name(request)
        next, token = own_path(form.get("next", "")), self._token()
        if not token:
            return await self._ask(request, next)
        count = self._wrong.get(client, 0)
        if count >= _MOST_WRONG:
            request.setHeader("Retry-After", f"{_WRONG_SECONDS:.0f}")
            request.setResponseCode(HTTPStatus.TOO_MANY_REQUESTS)
            return await self._ask(request, next, "Too many tries: wait a minute.")
        shown = form.get("token", "").strip()
        if not hmac.compare_digest(shown.encode("utf-8", "replace"), token.encode()):
            self._wrong[client] = count + 1
            _log.warn("{client} has shown a wrong token", client=client)
            request.setResponseCode(HTTPStatus.FORBIDDEN)
            return await self._ask(request, next, "That is not the token.")
        self._sessions.begin(request)
        return go(request, next)

    @app.route(f"{LOGIN}/end", methods=["POST"])
    def end(self, request: Request) -> bytes:
        """Forget that it was shown."""
        form = _form(request)
        self._sessions.end(request)
        return go(request, own_path(form.get("next", "")))

    tell_errors(app, lambda self: self.pages)


def own_path(text: str) -> str:
    """Give a path of ours that somebody is to be sent to, or that of the builds."""
    return text if _OWN_PATH.fullmatch(text) else "/-/builds"


def _form(request: Request) -> dict[str, str]:
    """
    Read a form of our own.

    :raises Forbidden: another site's page has sent it.
    """
    if not is_own_page(request):
        raise Forbidden("another site's page has sent this")
    return read_form(request, MAX_BODY)


def read_form(request: Request, most: int) -> dict[str, str]:
    """
    Read the fields of a form, the last of each name.

    :param most: how long it may be, in bytes.
    :raises RequestInvalid: it is no form, or too long.
    """
    body = request.content.read(most + 1) if request.content else b""
    if len(body) > most:
        raise RequestInvalid(f"no more than {most} bytes are read")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True)
    except ValueError as e:
        raise RequestInvalid("what was sent is not a form") from e
    return {name: values[-1] for name, values in fields.items()}
