"""
Write pages for people: templates in, HTML out, with the headers that keep it harmless.

What stands in a page comes from flakes, logs and clients, and is hostile: templates
escape all of it, and the policy of the page lets nothing run that is not a file of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from attrs import define, field
from jinja2 import Environment, PackageLoader, StrictUndefined
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from forgereg.flow.gist import gist
from forgereg.flow.threads import InThread
from forgereg.lines import HARMLESS, visible
from forgereg.logs import logger
from forgereg.oci.errors import RegistryError, RequestInvalid
from forgereg.sizes import size
from forgereg.web.answer import allow, break_off, whole
from forgereg.web.coding import compress
from forgereg.web.guard import Clients, Guard
from forgereg.web.host import host_of, is_secure
from forgereg.web.problem import describe
from forgereg.web.static import Static

_log = logger(__name__)

HTML = "text/html; charset=utf-8"
#: Source: Content Security Policy Level 3.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@define(eq=False)
class Pages:
    """
    Writes pages.

    :ivar now: gives seconds since the epoch.
    :ivar new_incident: gives a name for something that went wrong unexpectedly.
    """

    static: Static
    clients: Clients
    guard: Guard
    in_thread: InThread
    now: Callable[[], float]
    new_incident: Callable[[], str]
    _templates: Environment = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("forgereg.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals["asset"] = self.static.address
        filters = self._templates.filters
        filters |= {"age": age, "duration": duration, "instant": instant, "size": size}
        filters["gist"] = gist
        filters["visible"] = partial(visible, but=HARMLESS)

    async def show(self, request: Request, template: str, **values: Any) -> bytes:
        """
        Answer with a page, or a part of one.

        :param template: the name of its file, without ``.html``.
        :param values: what it shows, beside what every page does: see ``base.html``.
        """
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("Vary", "Host, Cookie")
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        shared = {
            "host": self.host(request),
            "is_secure": is_secure(request, self.clients),
            "may_change": self.may_change(request),
            "has_token": bool(self.guard.token),
            "is_known": self.guard.has_session(request),
            "back": _address(request),
            "now": self.now(),
        }
        text = await self.render(template, **(shared | values))
        body = compress(request, text.encode("utf-8", "replace"))
        return whole(request, HTML, body)

    async def render(self, template: str, **values: Any) -> str:
        """Fill a template for nobody in particular."""
        render = self._templates.get_template(f"{template}.html").render
        return await self.in_thread(lambda: render({"now": self.now(), **values}))

    def may_change(self, request: Request) -> bool:
        """Whether who asks may change something, as the guard sees it."""
        return self.guard.allows(request)

    def host(self, request: Request) -> str:
        """Give what images are pulled from, as the reader calls it."""
        try:
            return host_of(request, self.clients)
        except RequestInvalid:
            return "<this-registry>"

    async def refuse(
        self, request: Request, status: int, message: str, incident: str | None = None
    ) -> bytes:
        """Answer with a page that says what is wrong."""
        request.setResponseCode(status)
        return await self.show(
            request,
            "error",
            status=status,
            phrase=HTTPStatus(status).phrase,
            message=message,
            incident=incident,
        )


def tell_errors(app: Klein, pages_of: Callable[[Any], Pages]) -> None:
    """
    Have what goes wrong in an app's routes become a page that says so.

    :param pages_of: gives the pages of what has the routes.
    """

    async def refused(self: Any, request: Request, failure: Failure) -> bytes:
        error = cast(RegistryError, failure.value)
        status = describe(error).status
        return await pages_of(self).refuse(request, status, error.detail)

    async def misrouted(self: Any, request: Request, failure: Failure) -> bytes:
        error = cast(HTTPException, failure.value)
        path = request.path.rstrip(b"/")
        is_read = request.method in (b"GET", b"HEAD")
        if is_read and path != request.path and path.startswith(b"/-/"):
            return go(request, path)
        message = "There is no such page."
        if isinstance(error, MethodNotAllowed):
            allow(request, error)
            message = "This page cannot be asked in this way."
        return await pages_of(self).refuse(request, error.code or 500, message)

    async def unexpected(self: Any, request: Request, failure: Failure) -> bytes:
        pages = pages_of(self)
        incident = pages.new_incident()
        _log.failure("incident {incident}", failure, incident=incident)
        if request.startedWriting:
            return break_off(request)
        message = "The registry failed; its log says how."
        return await pages.refuse(request, 500, message, incident)

    app.handle_errors(RegistryError)(refused)  # type: ignore[arg-type]
    app.handle_errors(HTTPException)(misrouted)  # type: ignore[arg-type]
    app.handle_errors(Exception)(unexpected)  # type: ignore[arg-type]


def go(request: Request, path: str | bytes) -> bytes:
    """Have a browser look at a page, be it that it has sent a form."""
    request.setResponseCode(HTTPStatus.SEE_OTHER)
    request.setHeader("Location", path)
    request.setHeader("Cache-Control", "no-store")
    return whole(request, "text/plain; charset=utf-8", b"")


def _address(request: Request) -> str:
    """Give the address of a page that can be looked at again."""
    is_page = request.method in (b"GET", b"HEAD")
    return request.uri.decode("ascii", "replace") if is_page else "/"


def duration(seconds: float) -> str:
    """Write how long something takes for people, such as ``1 min 30 s``."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole_seconds = round(seconds)
    minutes, rest = divmod(whole_seconds, 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def age(seconds: float) -> str:
    """Write how long ago something was for people, such as ``5 min ago``."""
    if seconds < 1:
        return "just now"
    for unit, length, most in (("s", 1, 60), ("min", 60, 60), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds // 86400:.0f} days ago"


def instant(at: float) -> str:
    """Write a time, in seconds since the epoch, such as ``2026-01-31 12:00:00 UTC``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
