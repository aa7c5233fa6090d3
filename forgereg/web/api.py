"""
The read side of the distribution specification, below ``/v2/``.

Source: OCI distribution-spec v1.1, "Endpoints".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

from attrs import define, field
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from forgereg.flow.registry import Blob, Registry
from forgereg.flow.source import Source
from forgereg.logs import logger
from forgereg.oci.errors import (
    ManifestUnknown,
    PageInvalid,
    RangeNotSatisfiable,
    RegistryError,
    ShuttingDown,
)
from forgereg.oci.media import OCI_INDEX, OCTETS
from forgereg.oci.ranges import parse_range
from forgereg.oci.reference import (
    Digest,
    Name,
    parse_digest,
    parse_name,
    parse_reference,
)
from forgereg.traces import NoTraces, Tracer
from forgereg.web.answer import (
    JSON,
    accepted,
    break_off,
    cut,
    fail,
    header,
    hops,
    is_known,
    refuse,
    send_here_again,
    whole,
)
from forgereg.web.coding import Codings, declare
from forgereg.web.guard import Clients
from forgereg.web.hold import Pending
from forgereg.web.host import describe_to
from forgereg.web.manifests import Manifests
from forgereg.web.patience import MOST_REDIRECTS, Limits, blob_seconds, family_of
from forgereg.web.problem import problem
from forgereg.web.stream import ClientLeft, Truncated, send
from forgereg.web.turns import Turns

_log = logger(__name__)


class _Anything(BaseConverter):
    """What may stand for a name: slashes too, and what is no name at all."""

    part_isolating = False
    regex = "(?s:.*)"


@define
class Api:
    """
    The HTTP API.

    :ivar limits: how long clients may be kept waiting.
    :ivar hands_over: whether another process goes on with the same port when this one
        stops.
    :ivar tracer: told when a blob is sent.
    :ivar clock: times how long clients wait.
    :ivar max_name_length: of a repository name, in characters.
    :ivar max_tag_length: in characters.
    :ivar new_incident: gives a name for something that went wrong unexpectedly.
    """

    _registry: Registry
    _manifests: Manifests
    _clients: Clients
    _codings: Codings
    _clock: IReactorTime
    _max_name_length: int
    _max_tag_length: int
    _new_incident: Callable[[], str]
    limits: Limits = Limits()
    _turns: Turns = field(init=False)
    hands_over: bool = False
    tracer: Tracer = field(factory=NoTraces)

    def __attrs_post_init__(self) -> None:
        self._turns = Turns(self._clock)

    app = Klein()
    app.url_map.converters["anything"] = _Anything
    app.url_map.merge_slashes = False

    @app.route("/v2")
    @app.route("/v2/")
    def version(self, request: Request) -> bytes:
        """Say that this is a registry."""
        return whole(request, JSON, b"{}")

    @app.route("/v2/_catalog")
    async def catalogue(self, request: Request) -> bytes:
        """List the repositories."""
        repositories = await self._registry.catalogue(self._clients.name(request))
        page = _page(request, "/v2/_catalog", repositories)
        return whole(request, JSON, _dump({"repositories": page}))

    @app.route("/v2/<anything:name>/tags/list")
    async def tags(self, request: Request, name: str) -> bytes:
        """List the tags of a repository."""
        parsed = self._name(name)
        tags = await self._registry.tags(parsed, self._clients.name(request))
        page = _page(request, f"/v2/{parsed}/tags/list", tags)
        return whole(request, JSON, _dump({"name": str(parsed), "tags": page}))

    @app.route("/v2/<anything:name>/referrers/<digest>")
    def referrers(self, request: Request, name: str, digest: str) -> bytes:
        """List what refers to a manifest: nothing does."""
        self._name(name)
        parse_digest(digest)
        if b"artifactType" in request.args:
            request.setHeader("OCI-Filters-Applied", "artifactType")
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        return whole(request, OCI_INDEX, _dump(index))

    @app.route("/v2/<anything:name>/manifests/<reference>")
    async def manifest(self, request: Request, name: str, reference: str) -> bytes:
        """Give a manifest."""
        request.setHeader("Vary", "Accept")
        parsed = self._name(name)
        wanted = parse_reference(reference, self._max_tag_length)
        return await self._manifests.give(request, parsed, wanted, self.limits)

    @app.route("/v2/<anything:name>/blobs/<digest>")
    async def blob(self, request: Request, name: str, digest: str) -> bytes:
        """Send a blob, or stretches of it."""
        parsed, wanted = self._name(name), parse_digest(digest)
        coding = self._codings.offered_by(request)
        client = self._clients.name(request)
        work = self._registry.blob(parsed, wanted, client, coding)
        opening = Pending(self._clock, Deferred.fromCoroutine(work), Blob.close)
        patience = blob_seconds(family_of(accepted(request)))
        try:
            is_there = await opening.within(patience)
            request.setHeader("Accept-Ranges", "bytes")
            request.setHeader("Cache-Control", "public, max-age=31536000, immutable")
            request.setHeader("Vary", "Accept-Encoding")
            if is_known(request, wanted):
                return b""
            # What is begun before it is there is begun plain.
            blob = opening.result() if is_there else None
            parts: Sequence[bytes | tuple[int, int | None]]
            if blob and blob.coding:
                declare(request, wanted, blob.coding)
                parts = _whole(request, blob.source)
            else:
                size = blob.size if blob else None
                if size is None:
                    size = await self._registry.blob_size(parsed, wanted)
                parts = _parts(request, size, wanted)
            if request.method == b"HEAD":
                return b""
            if blob is None:
                request.write(b"")
                await opening.within()
                blob = opening.result()
                if blob.coding:
                    blob.close()
                    blob = await self._registry.blob(parsed, wanted, client)
            with self.tracer.sending():
                await send(blob.source, parts, request, self._turns)
        except (Truncated, RegistryError) as e:
            if not request.startedWriting:
                raise
            # The length was promised: all that is left is to break the connection.
            _log.error("{digest}: {error}", digest=wanted, error=e)
            break_off(request)
        except ClientLeft:
            cut(request)
        finally:
            opening.leave()
        return b""

    @app.route("/<anything:path>")
    def nothing(self, request: Request, path: str) -> bytes:
        """Answer what is at no endpoint."""
        endpoints = "/v2/<name>/manifests/<reference>, /v2/<name>/blobs/<digest>"
        raise ManifestUnknown(
            f"there is nothing here; this is an OCI registry: {endpoints},"
            " /v2/<name>/tags/list, /v2/_catalog"
        )

    @app.handle_errors(RegistryError)  # type: ignore[arg-type]
    def _refused(self, request: Request, failure: Failure) -> bytes:
        error = cast(RegistryError, failure.value)
        if isinstance(error, ShuttingDown) and self.hands_over:
            if hops(request) < MOST_REDIRECTS:
                cast(Any, request.channel).end_soon()
                return send_here_again(request)
        return refuse(request, describe_to(request, self._clients, error))

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def _misrouted(self, request: Request, failure: Failure) -> bytes:
        error = cast(HTTPException, failure.value)
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        return refuse(request, problem(status, "UNSUPPORTED", error.name))

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def _unexpected(self, request: Request, failure: Failure) -> bytes:
        return fail(request, failure, self._new_incident())

    def _name(self, text: str) -> Name:
        return parse_name(text, self._max_name_length)


def refuse_method(request: Request) -> bytes:
    """Answer a method that would change something: nothing can be changed here."""
    request.setHeader("Allow", "GET, HEAD")
    message = "this registry is read-only: its images are built from a Nix flake"
    return refuse(
        request, problem(HTTPStatus.METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    )


def refuse_path(request: Request) -> bytes:
    """Answer a path that is not text."""
    message = "the path is not percent-encoded UTF-8"
    return refuse(request, problem(HTTPStatus.BAD_REQUEST, "NAME_INVALID", message))


def _parts(
    request: Request, size: int, digest: Digest
) -> Sequence[bytes | tuple[int, int | None]]:
    """
    Set status and headers for the stretches of a blob that are asked for.

    :returns: what makes up the body.
    Source: RFC 9110, sections 13.1.5, 14 and 15.3.7.
    """
    ranges, condition = header(request, "range"), header(request, "if-range")
    stretches = None
    if ranges is not None and request.method == b"GET":
        if condition is None or condition.strip() == f'"{digest}"':
            try:
                stretches = parse_range(ranges, size)
            except RangeNotSatisfiable:
                request.setHeader("Content-Range", f"bytes */{size}")
                raise
    if stretches is None:
        request.setHeader("Content-Type", OCTETS)
        request.setHeader("Content-Length", str(size))
        return [(0, size)]
    request.setResponseCode(HTTPStatus.PARTIAL_CONTENT)
    if len(stretches) == 1:
        (start, stop) = stretches[0]
        request.setHeader("Content-Type", OCTETS)
        request.setHeader("Content-Length", str(stop - start))
        request.setHeader("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        return stretches
    # The digest cannot be in the bytes that it is of.
    boundary = digest.encoded
    parts: list[bytes | tuple[int, int | None]] = []
    length = 0
    for start, stop in stretches:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {OCTETS}\r\n"
            f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
        ).encode()
        parts += [head, (start, stop)]
        length += len(head) + stop - start
    tail = f"\r\n--{boundary}--\r\n".encode()
    request.setHeader("Content-Type", f"multipart/byteranges; boundary={boundary}")
    request.setHeader("Content-Length", str(length + len(tail)))
    return [*parts, tail]


def _whole(request: Request, source: Source) -> Sequence[tuple[int, int | None]]:
    """
    Set the headers for all of an encoded form.

    :returns: what makes up the body; its end is unknown while it is being made.
    """
    request.setHeader("Content-Type", OCTETS)
    if source.size is not None:
        request.setHeader("Content-Length", str(source.size))
    return [(0, source.size)]


def _page(request: Request, path: str, everything: list[str]) -> list[str]:
    """
    Cut a sorted list to the page that is asked for, and link to the next.

    Source: OCI distribution-spec v1.1, "Listing Tags".
    """
    last = request.args.get(b"last", [b""])[0].decode("utf-8", "replace")
    rest = [text for text in everything if text > last]
    if b"n" not in request.args:
        return rest
    text = request.args[b"n"][0].decode("utf-8", "replace")
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise PageInvalid(f"n is {text[:20]!r}; it must be a number of entries")
    page = rest[: int(text)]
    if page and len(page) < len(rest):
        link = f"<{path}?last={quote(page[-1], safe='')}&n={int(text)}>"
        request.setHeader("Link", f'{link}; rel="next"')
    return page


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()
