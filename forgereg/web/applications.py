"""
Give applications' compose files, below ``/-/applications/``.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import cast

from attrs import define
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import PathConverter

from forgereg.flow.applications import Applications
from forgereg.flow.registry import Registry
from forgereg.oci.errors import RegistryError, RequestInvalid
from forgereg.oci.reference import Tag, parse_name, parse_reference
from forgereg.web.answer import fail, hops, refuse, send_here_again, whole
from forgereg.web.guard import Clients
from forgereg.web.hold import Pending, still_building
from forgereg.web.host import describe_to, host_of
from forgereg.web.manifests import warn
from forgereg.web.patience import Family, Limits, Then, patience
from forgereg.web.problem import Problem, problem


@define
class ApplicationFiles:
    """
    What there is of an application beside its images.

    :ivar clock: times how long clients wait.
    :ivar now: gives seconds since the epoch.
    :ivar limits: gives how long they may be kept waiting.
    :ivar max_name_length: of an application's name, in characters.
    :ivar max_tag_length: in characters.
    :ivar new_incident: gives a name for something that went wrong unexpectedly.
    """

    _applications: Applications
    _registry: Registry
    _clients: Clients
    _clock: IReactorTime
    _now: Callable[[], float]
    _limits: Callable[[], Limits]
    _max_name_length: int
    _max_tag_length: int
    _new_incident: Callable[[], str]

    app = Klein()
    app.url_map.converters["several"] = PathConverter
    app.url_map.merge_slashes = False

    @app.route("/-/applications/<several:path>/compose.yaml", methods=["GET"])
    async def compose(self, request: Request, path: str) -> bytes:
        """Give an application's compose file, its images pinned by digest."""
        prefix, slash, application = path.rpartition("/")
        name = parse_name(
            f"{prefix}{slash}applications/{application}", self._max_name_length
        )
        words = request.args.get(b"tag", [b"latest"])
        tag = parse_reference(
            words[-1].decode("utf-8", "replace"), self._max_tag_length
        )
        if not isinstance(tag, Tag):
            raise RequestInvalid("an application has tags, and no digest")
        host = host_of(request, self._clients)
        work = self._applications.compose(name, tag, host, self._clients.name(request))
        pending = Pending(self._clock, Deferred.fromCoroutine(work))
        plan = patience(
            Family.OTHER, request.method, True, self._limits(), hops(request)
        )
        if not await pending.within(plan.hold_seconds):
            pending.leave()
            if plan.then is Then.REDIRECT:
                return send_here_again(request)
            build = self._registry.waiting_for(name, tag)
            raise still_building(f"{name}:{tag}", build, self._now())
        composed = pending.result()
        if composed.stale is not None:
            warn(request, composed.stale)
        request.setHeader("Vary", "Host")
        request.setHeader("Cache-Control", "no-store")
        return whole(request, "application/yaml", composed.text.encode())

    @app.handle_errors(RegistryError)  # type: ignore[arg-type]
    def _refused(self, request: Request, failure: Failure) -> bytes:
        error = cast(RegistryError, failure.value)
        return _refuse(request, describe_to(request, self._clients, error))

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def _misrouted(self, request: Request, failure: Failure) -> bytes:
        error = cast(HTTPException, failure.value)
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        message = (
            "there is nothing here; an application's compose file is"
            " /-/applications/<application>/compose.yaml"
        )
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            request.setHeader("Allow", "GET, HEAD")
            message = "what is here takes GET, HEAD"
        return _refuse(request, problem(status, "UNSUPPORTED", message))

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def _unexpected(self, request: Request, failure: Failure) -> bytes:
        return fail(request, failure, self._new_incident())


def _refuse(request: Request, refusal: Problem) -> bytes:
    body = refuse(request, refusal)
    request.setHeader("Cache-Control", "no-store")
    return body
