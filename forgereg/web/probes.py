"""
Answer those who look whether the registry is alive, and whether it can serve.

``/healthz`` is answered by the reactor alone, ``/readyz`` with what `flow.health` found:
as text for people, as JSON for programs that want it (``Accept``, or ``?format=json``).
Both are open to everyone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol, cast

from attrs import asdict, define
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from forgereg.flow.health import Check, is_ready
from forgereg.web.answer import JSON, allow, fail, reads, refuse, whole
from forgereg.web.arguments import word
from forgereg.web.problem import problem

_TEXT = "text/plain"


class Health(Protocol):
    """What looks at everything: `flow.health.Health`."""

    async def checks(self) -> list[Check]: ...


@define
class Probes:
    """
    The two probes.

    :ivar new_incident: gives a name for something that went wrong unexpectedly.
    """

    _health: Health
    _new_incident: Callable[[], str]

    app = Klein()

    @app.route("/healthz", methods=["GET"])
    def alive(self, request: Request) -> bytes:
        """Answer: that is all."""
        return _answer(request, "alive", ())

    @app.route("/readyz", methods=["GET"])
    async def ready(self, request: Request) -> bytes:
        """Say whether clients should come here, and what was looked at."""
        checks = await self._health.checks()
        if is_ready(checks):
            return _answer(request, "ready", checks)
        request.setResponseCode(HTTPStatus.SERVICE_UNAVAILABLE)
        return _answer(request, "not ready", checks)

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def _misrouted(self, request: Request, failure: Failure) -> bytes:
        error = cast(HTTPException, failure.value)
        if isinstance(error, MethodNotAllowed):
            allow(request, error)
        message = "what is here takes GET and HEAD"
        return refuse(request, problem(error.code or 500, "UNSUPPORTED", message))

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def _unexpected(self, request: Request, failure: Failure) -> bytes:
        return fail(request, failure, self._new_incident())


def _answer(request: Request, status: str, checks: Sequence[Check]) -> bytes:
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("Vary", "Accept")
    if _wants_json(request):
        told = {"status": status, "checks": [_json(check) for check in checks]}
        return whole(request, JSON, json.dumps(told).encode() + b"\n")
    lines = [status, *map(_line, checks)]
    text = "".join(f"{line}\n" for line in lines)
    return whole(request, f"{_TEXT}; charset=utf-8", text.encode())


def _wants_json(request: Request) -> bool:
    asked = word(request, "format")
    if asked in ("json", "text"):
        return asked == "json"
    return bool(reads(request).best_match([_TEXT, JSON]) == JSON)


def _json(check: Check) -> dict[str, object]:
    return asdict(check) | {"seconds": round(check.seconds, 4)}


def _line(check: Check) -> str:
    word = "ok" if check.is_ok else "failed" if check.is_required else "warning"
    return f"{word:8}{check.name:12} {check.seconds:6.3f} s  {check.detail}"
