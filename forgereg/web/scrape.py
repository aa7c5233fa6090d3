"""
Show the metrics to whoever scrapes them: ``GET /metrics``.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from attrs import define
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from forgereg.flow.threads import InThread
from forgereg.metrics import Metrics
from forgereg.web.answer import accepted, fail, refuse, whole
from forgereg.web.problem import problem


@define(eq=False)
class Scrape:
    """
    What is scraped.

    :ivar new_incident: gives a name for something that went wrong unexpectedly.
    """

    _metrics: Metrics
    _in_thread: InThread
    _new_incident: Callable[[], str]

    app = Klein()

    @app.route("/metrics", methods=["GET", "HEAD"])
    async def metrics(self, request: Request) -> bytes:
        """Give all metrics as they are now."""
        self._metrics.look()
        accept = accepted(request) or ""
        media_type, text = await self._in_thread(self._metrics.text, accept)
        request.setHeader("Vary", "Accept")
        request.setHeader("Cache-Control", "no-store")
        return whole(request, media_type, text)

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def _misrouted(self, request: Request, failure: Failure) -> bytes:
        request.setHeader("Allow", "GET, HEAD")
        status, message = HTTPStatus.METHOD_NOT_ALLOWED, "metrics are read with GET"
        return refuse(request, problem(status, "UNSUPPORTED", message))

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def _unexpected(self, request: Request, failure: Failure) -> bytes:
        return fail(request, failure, self._new_incident())
