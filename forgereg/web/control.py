"""
Watch and steer builds, below ``/-/api/``: requests in, JSON out.

`openapi.json`, beside this file, says the same to programs; a test holds them together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Protocol, cast

from attrs import define
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from forgereg.flow.report import Choice, Report, SweepReport
from forgereg.oci.errors import Forbidden, RegistryError, RequestInvalid
from forgereg.web.answer import JSON, allow, fail, refuse, whole
from forgereg.web.arguments import number, states
from forgereg.web.coding import compress
from forgereg.web.problem import Problem, describe, problem
from forgereg.web.reports import BUILDS, build_json, sweep_json

#: How large what is sent may be, in bytes.
MAX_BODY = 2**16
#: How much of a log one answer has, in bytes.
_MAX_LOG = 2**20
#: How many builds one answer lists, if no number is given, and at most.
_SOME_BUILDS, _MAX_BUILDS = 100, 1000
_KINDS = {str: "a string", bool: "true or false"}
_OPENAPI = files(__package__).joinpath("openapi.json").read_bytes()


class Works(Protocol):
    """
    The builds: what runs, what ran, and what can be done about it.

    Any of it may raise other errors of `forgereg.oci.errors` besides those named.
    """

    async def builds(self, most: int, choice: Choice) -> list[Report]:
        """Give up to so many builds: active ones first, then the newest first."""

    async def build(self, id: str) -> Report:
        """
        Give one build.

        :raises BuildUnknown: it is not remembered.
        """

    async def log(self, id: str, offset: int, most: int) -> bytes:
        """
        Give what nix said, from an offset in bytes; empty where there is no more yet.

        :param most: how many bytes at most.
        :raises BuildUnknown: it is not remembered.
        """

    async def start(self, image: str, client: str) -> Report:
        """
        Build an image, or join the build that runs.

        :param image: repository and tag, joined by a colon.
        """

    async def cancel(self, id: str) -> Report:
        """
        End a build.

        :raises BuildUnknown: it is not remembered.
        :raises BuildOver: it has ended before.
        """

    async def retry(self, id: str, client: str) -> Report:
        """
        Forget that a build failed, and start anew.

        :raises BuildUnknown: it is not remembered.
        """

    async def sweep(self, dry_run: bool) -> SweepReport:
        """Let go of what is not needed, or only say what that is."""


@define
class Control:
    """
    The control API.

    :ivar check: raises `Forbidden` if who asks may change nothing.
    :ivar client_of: gives the address of who asks.
    :ivar new_incident: gives a name for something that went wrong unexpectedly.
    """

    _works: Works
    _check: Callable[[Request], None]
    _client_of: Callable[[Request], str]
    _new_incident: Callable[[], str]

    app = Klein()
    app.url_map.merge_slashes = False

    @app.route("/-/api/openapi.json", methods=["GET"])
    def openapi(self, request: Request) -> bytes:
        """Give the description of this API."""
        return _answer(request, _OPENAPI)

    @app.route(BUILDS, methods=["GET"])
    async def builds(self, request: Request) -> bytes:
        """List builds."""
        limit = number(request, "limit", _SOME_BUILDS)
        if not 1 <= limit <= _MAX_BUILDS:
            raise RequestInvalid(f"limit is {limit}; it must be 1 to {_MAX_BUILDS}")
        found = await self._works.builds(limit, Choice(states(request)))
        try:
            self._check(request)
            may_change = True
        except Forbidden:
            may_change = False
        builds = [build_json(each) for each in found]
        return _json(request, {"builds": builds, "may_change": may_change})

    @app.route(BUILDS, methods=["POST"])
    async def start(self, request: Request) -> bytes:
        """Build an image without pulling it."""
        self._check(request)
        image = _fields(request, image=str)["image"]
        return _accepted(
            request, await self._works.start(image, self._client_of(request))
        )

    @app.route(f"{BUILDS}/<id>", methods=["GET"])
    async def build(self, request: Request, id: str) -> bytes:
        """Give one build."""
        return _json(request, build_json(await self._works.build(id)))

    @app.route(f"{BUILDS}/<id>/log", methods=["GET"])
    async def log(self, request: Request, id: str) -> bytes:
        """Give what nix said, from an offset."""
        offset = number(request, "offset", 0)
        # First the state: once that is the last one, the log is whole.
        state = (await self._works.build(id)).state
        text = await self._works.log(id, offset, _MAX_LOG)
        request.setHeader("X-Log-Offset", str(offset + len(text)))
        request.setHeader("X-Build-State", state.value)
        return _answer(request, text, "text/plain; charset=utf-8")

    @app.route(f"{BUILDS}/<id>/cancel", methods=["POST"])
    async def cancel(self, request: Request, id: str) -> bytes:
        """End a build."""
        self._check(request)
        _fields(request)
        return _json(request, build_json(await self._works.cancel(id)))

    @app.route(f"{BUILDS}/<id>/retry", methods=["POST"])
    async def retry(self, request: Request, id: str) -> bytes:
        """Build again what failed."""
        self._check(request)
        _fields(request)
        return _accepted(request, await self._works.retry(id, self._client_of(request)))

    @app.route("/-/api/sweep", methods=["POST"])
    async def sweep(self, request: Request) -> bytes:
        """Let go of what is not needed."""
        self._check(request)
        dry_run = _fields(request, dry_run=bool)["dry_run"]
        return _json(request, sweep_json(await self._works.sweep(dry_run)))

    @app.handle_errors(RegistryError)  # type: ignore[arg-type]
    def _refused(self, request: Request, failure: Failure) -> bytes:
        return _refuse(request, describe(cast(RegistryError, failure.value)))

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def _misrouted(self, request: Request, failure: Failure) -> bytes:
        error = cast(HTTPException, failure.value)
        status, message = error.code or 500, error.description or error.name
        if isinstance(error, MethodNotAllowed):
            message = f"what is here takes {allow(request, error)}"
        elif status == HTTPStatus.NOT_FOUND:
            message = "there is nothing here; /-/api/openapi.json says what there is"
        return _refuse(request, problem(status, "UNSUPPORTED", message))

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def _unexpected(self, request: Request, failure: Failure) -> bytes:
        body = fail(request, failure, self._new_incident())
        request.setHeader("Cache-Control", "no-store")
        return body


def _fields(request: Request, **kinds: type) -> Mapping[str, Any]:
    """
    Read the JSON object that was sent, with just these fields.

    :raises RequestInvalid: it is something else. Where there are no fields to be sent,
        nothing need be.
    """
    body = request.content.read(MAX_BODY + 1) if request.content else b""
    if len(body) > MAX_BODY:
        raise RequestEntityTooLarge(f"no more than {MAX_BODY} bytes are read")
    if not body.strip() and not kinds:
        return {}
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise RequestInvalid("what was sent is not JSON") from e
    if not isinstance(sent, dict) or sent.keys() != kinds.keys():
        wanted = f"just {', '.join(kinds)}" if kinds else "no fields"
        raise RequestInvalid(f"what is sent must be a JSON object with {wanted}")
    for name, kind in kinds.items():
        if not isinstance(sent[name], kind):
            raise RequestInvalid(f"{name} must be {_KINDS[kind]}")
    return sent


def _accepted(request: Request, report: Report) -> bytes:
    request.setResponseCode(HTTPStatus.ACCEPTED)
    request.setHeader("Location", f"{BUILDS}/{report.id}")
    return _json(request, build_json(report))


def _refuse(request: Request, refusal: Problem) -> bytes:
    body = refuse(request, refusal)
    request.setHeader("Cache-Control", "no-store")
    return body


def _json(request: Request, value: Any) -> bytes:
    return _answer(request, json.dumps(value).encode())


def _answer(request: Request, body: bytes, content_type: str = JSON) -> bytes:
    request.setHeader("Cache-Control", "no-store")
    return whole(request, content_type, compress(request, body))
