"""
Hear from a forge that somebody has pushed: ``POST /-/hooks/push``.

Source: "Validating webhook deliveries" of GitHub, "Webhooks" of GitLab, Forgejo and
Gitea; Standard Webhooks, "Signature scheme".
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import IO, Any, cast
from urllib.parse import parse_qs

from attrs import define, field
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from forgereg.flow.push import Push, parse_push
from forgereg.oci.errors import Forbidden, RegistryError, RequestInvalid
from forgereg.web.answer import JSON, fail, refuse, whole
from forgereg.web.problem import describe, problem

#: In bytes. GitHub sends up to 25 MB, of which 2048 commits with a kilobyte or two each
#: are all that happens; whoever has no secret is read this much. A push that was too
#: much is noticed all the same, when the flake is looked up next.
MAX_BODY = 4 * 2**20

_EVENTS = (b"x-forgejo-event", b"x-gitea-event", b"x-github-event", b"x-gitlab-event")
_PUSHES = ("push", "tag_push", "push hook", "tag push hook")


@define(eq=False)
class Hooks:
    """
    The webhooks.

    :ivar secret: with which pushes are signed; None for no webhooks at all.
    :ivar pushed: does what there is to do, and names the flakes that it was about. It
        answers soon: a forge waits for ten seconds.
    :ivar new_incident: gives a name for something that went wrong unexpectedly.
    """

    secret: str | None = field(repr=False)
    _pushed: Callable[[Push], Awaitable[list[str]]]
    _new_incident: Callable[[], str]

    app = Klein()

    @app.route("/-/hooks/push")
    async def push(self, request: Request) -> bytes:
        """Look at what was pushed."""
        if not self.secret:
            return _refuse(request, HTTPStatus.NOT_FOUND, "there is nothing here")
        if request.method != b"POST":
            request.setHeader("Allow", "POST")
            message = "a webhook is sent with POST"
            return _refuse(request, HTTPStatus.METHOD_NOT_ALLOWED, message)
        content = cast(IO[bytes], request.content)
        content.seek(0)
        body = content.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            message = f"a push may have {MAX_BODY} bytes"
            return _refuse(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        if not is_signed(self.secret, request.requestHeaders, body):
            raise Forbidden(
                "this is not signed with the secret in FORGE_HOOK_SECRET_FILE: give the"
                " webhook the same secret"
            )
        payload = _parse(body)
        if not _is_push(request.requestHeaders, payload):
            return _answer(request, HTTPStatus.OK, {"flakes": []})
        flakes = await self._pushed(parse_push(payload))
        return _answer(request, HTTPStatus.ACCEPTED, {"flakes": flakes})

    @app.handle_errors(RegistryError)  # type: ignore[arg-type]
    def _refused(self, request: Request, failure: Failure) -> bytes:
        return refuse(request, describe(cast(RegistryError, failure.value)))

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def _misrouted(self, request: Request, failure: Failure) -> bytes:
        return _refuse(request, HTTPStatus.NOT_FOUND, "there is nothing here")

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def _unexpected(self, request: Request, failure: Failure) -> bytes:
        return fail(request, failure, self._new_incident())


def is_signed(secret: str, headers: Headers, body: bytes) -> bool:
    """Whether whoever sent this knows the secret, in any of the ways to show it."""
    matches = [
        hmac.compare_digest(right, shown.strip())
        for right, shown in _proofs(secret, headers, body)
    ]
    return any(matches)


def _proofs(
    secret: str, headers: Headers, body: bytes
) -> Iterator[tuple[bytes, bytes]]:
    """Give what each header has to say, and what it says."""

    def shown(name: str) -> list[bytes]:
        return list(headers.getRawHeaders(name.encode(), []))

    key = secret.encode()
    signature = hmac.new(key, body, "sha256").hexdigest().encode()
    for given in shown("x-hub-signature-256"):
        yield b"sha256=" + signature, given
    for given in shown("x-forgejo-signature") + shown("x-gitea-signature"):
        yield signature, given
    for given in shown("x-gitlab-token"):
        yield key, given
    # GitLab's signing tokens are Standard Webhooks. How old one is does not matter: to
    # send it again only has the flake looked up again, and the others do not tell.
    signed = [shown("webhook-id"), shown("webhook-timestamp"), [body]]
    if all(signed):
        content = b".".join(part[0] for part in signed)
        right = hmac.digest(_signing_key(secret), content, "sha256")
        for each in b" ".join(shown("webhook-signature")).split():
            yield b"v1," + base64.b64encode(right), each


def _signing_key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        with suppress(ValueError):
            # Where nothing follows, nobody may sign with nothing.
            return base64.b64decode(secret[6:], validate=True) or secret.encode()
    return secret.encode()


def _parse(body: bytes) -> Any:
    """Read JSON, or a form with JSON in it, as GitHub sends it unless told otherwise."""
    try:
        if body.startswith(b"payload="):
            form = parse_qs(body.decode("ascii"), max_num_fields=9)
            return json.loads(form["payload"][0])
        return json.loads(body)
    except (ValueError, LookupError, RecursionError) as e:
        raise RequestInvalid("the body is not JSON") from e


def _is_push(headers: Headers, payload: Any) -> bool:
    """Whether it is a push, and not a ping or another event: a plain one is."""
    events = [e for name in _EVENTS for e in headers.getRawHeaders(name, [])]
    event = events[0].decode("latin-1").lower() if events else "push"
    if event == "system hook" and isinstance(payload, dict):
        return payload.get("event_name") in _PUSHES
    return event in _PUSHES


def _refuse(request: Request, status: HTTPStatus, message: str) -> bytes:
    return refuse(request, problem(status, "UNSUPPORTED", message))


def _answer(request: Request, status: HTTPStatus, value: Any) -> bytes:
    request.setResponseCode(status)
    return whole(request, JSON, json.dumps(value).encode())
