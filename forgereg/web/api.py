"""
The read side of the distribution specification, below ``/v2/``.

Source: OCI distribution-spec v1.1, "Endpoints".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import attrs
from attrs import define, frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_accept_header, parse_etags
from werkzeug.routing import BaseConverter

from forgereg.flow.registry import Found, OpenBlob, Registry
from forgereg.flow.threads import InThread
from forgereg.logs import logger
from forgereg.oci.errors import (
    ManifestUnknown,
    PageInvalid,
    RangeNotSatisfiable,
    ReferrersUnknown,
    RegistryError,
    StillBuilding,
)
from forgereg.oci.media import MANIFESTS, OCI_INDEX, OCI_MANIFEST, OCTETS
from forgereg.oci.ranges import parse_range
from forgereg.oci.reference import (
    Digest,
    Name,
    Tag,
    parse_digest,
    parse_name,
    parse_reference,
)
from forgereg.web.guard import client_of
from forgereg.web.hold import Pending, describe_wait, trickle
from forgereg.web.patience import (
    RETRY_AFTER_SECONDS,
    Family,
    Limits,
    Patience,
    Then,
    family_of,
    patience,
)
from forgereg.web.problem import Problem, describe, problem
from forgereg.web.stream import ClientLeft, Truncated, send
from forgereg.web.tombstone import Tombstones

_log = logger(__name__)

_JSON = "application/json"

#: The parameter that counts how often a client was sent to the same place.
_HOP = b"hop"
#: What may not stand in a header between quotes, and how long a warning may be.
_NOT_QUOTABLE = re.compile(r'[^\x20-\x7e]+|["\\]')
_MAX_WARNING = 500


class _Anything(BaseConverter):
    """What may stand for a name: slashes too, and what is no name at all."""

    part_isolating = False
    regex = "(?s:.*)"


@frozen
class _Asked:
    """
    Who asks for which manifest.

    :ivar hops: how often they were sent to the same place.
    """

    name: Name
    reference: Tag | Digest
    family: Family
    hops: int


@define
class Api:
    """
    The HTTP API.

    :ivar limits: how long clients may be kept waiting.
    :ivar clock: times them; and ``now`` gives seconds since the epoch.
    :ivar max_name_length: of a repository name, in characters.
    :ivar max_tag_length: in characters.
    :ivar new_incident: gives a name for something that went wrong unexpectedly.
    """

    _registry: Registry
    _tombstones: Tombstones
    _in_thread: InThread
    _clock: IReactorTime
    _now: Callable[[], float]
    _max_name_length: int
    _max_tag_length: int
    _new_incident: Callable[[], str]
    limits: Limits = Limits()

    app = Klein()
    app.url_map.converters["anything"] = _Anything
    app.url_map.merge_slashes = False

    @app.route("/v2")
    @app.route("/v2/")
    def version(self, request: Request) -> bytes:
        """Say that this is a registry."""
        return _whole(request, _JSON, b"{}")

    @app.route("/v2/_catalog")
    async def catalogue(self, request: Request) -> bytes:
        """List the repositories."""
        repositories = await self._registry.catalogue(client_of(request))
        page = _page(request, "/v2/_catalog", repositories)
        return _whole(request, _JSON, _dump({"repositories": page}))

    @app.route("/v2/<anything:name>/tags/list")
    async def tags(self, request: Request, name: str) -> bytes:
        """List the tags of a repository."""
        parsed = self._name(name)
        tags = await self._registry.tags(parsed, client_of(request))
        page = _page(request, f"/v2/{parsed}/tags/list", tags)
        return _whole(request, _JSON, _dump({"name": str(parsed), "tags": page}))

    @app.route("/v2/<anything:name>/referrers/<digest>")
    def referrers(self, request: Request, name: str, digest: str) -> bytes:
        """List what refers to a manifest: nothing does."""
        self._name(name)
        parse_digest(digest)
        if b"artifactType" in request.args:
            request.setHeader("OCI-Filters-Applied", "artifactType")
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
        return _whole(request, OCI_INDEX, _dump(index))

    @app.route("/v2/<anything:name>/manifests/<reference>")
    async def manifest(self, request: Request, name: str, reference: str) -> bytes:
        """Give a manifest."""
        request.setHeader("Vary", "Accept")
        accept = _header(request, "accept")
        parsed = self._name(name)
        wanted = parse_reference(reference, self._max_tag_length)
        if isinstance(wanted, Digest):
            refusal = self._tombstones.find(wanted)
            if refusal is not None:
                return _refuse(request, refusal)
        asked = _Asked(parsed, wanted, family_of(accept), _hops(request))
        forms = _accepted(accept)
        work = self._registry.manifest(parsed, wanted, forms, client_of(request))
        pending = Pending(self._clock, Deferred.fromCoroutine(work))
        by_tag = isinstance(wanted, Tag)
        plan = patience(asked.family, request.method, by_tag, self.limits, asked.hops)
        hold_seconds = math.inf if plan.hold_seconds is None else plan.hold_seconds
        if not await pending.within(hold_seconds):
            if plan.then is Then.EARLY_BODY:
                return await self._begin_early(request, asked, forms[0], pending, plan)
            pending.abandon()
            if plan.then is Then.EARLY_HEAD:
                return _early(request, forms[0])
            if plan.then is Then.REDIRECT:
                return _send_here_again(request, asked.hops + 1)
        try:
            answer = self._outcome(pending, asked)
        except RegistryError as e:
            return self._refuse_manifest(request, asked, e)
        if answer.stale is not None:
            _warn(request, answer.stale)
        if _is_known(request, answer.manifest.digest):
            return b""
        return _whole(request, answer.manifest.media_type, answer.manifest.body)

    def _outcome(self, pending: Pending[Found], asked: _Asked) -> Found:
        """Give what was waited for, or say that it is not there yet."""
        if pending.is_there:
            return pending.result()
        pending.abandon()
        image = f"{asked.name}:{asked.reference}"
        build = None
        if isinstance(asked.reference, Tag):
            build = self._registry.waiting_for(asked.name, asked.reference)
        raise StillBuilding(describe_wait(image, build, self._now()))

    def _refuse_manifest(
        self, request: Request, asked: _Asked, error: RegistryError
    ) -> bytes:
        is_told = asked.family is Family.CONTAINERD and isinstance(asked.reference, Tag)
        # Signatures that they look for need not be there.
        if not is_told or isinstance(error, ReferrersUnknown):
            raise error
        refusal = describe(error)
        digest = self._tombstones.lay(refusal)
        if request.method != b"HEAD":
            # After a HEAD that said nothing they hash what they read, whatever the
            # status, and ask for that digest, if it is said to be a manifest; on some
            # statuses they only ask again. Source: containerd, resolver.go, Resolve.
            if refusal.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
                refusal = attrs.evolve(refusal, status=HTTPStatus.UNPROCESSABLE_ENTITY)
            return _refuse(request, refusal, OCI_MANIFEST)
        _identify(request, digest)
        return _whole(request, OCI_MANIFEST, refusal.body)

    async def _begin_early(
        self,
        request: Request,
        asked: _Asked,
        media_type: str,
        pending: Pending[Found],
        plan: Patience,
    ) -> bytes:
        """Begin an answer before it is known how it goes on."""
        _early(request, media_type)
        request.write(b"")
        end = math.inf
        if plan.end_seconds is not None and plan.hold_seconds is not None:
            end = plan.end_seconds - plan.hold_seconds
        written = await trickle(pending, request.write, plan.space_seconds, end)
        try:
            manifest = self._outcome(pending, asked).manifest
        except RegistryError as e:
            refusal = describe(e)
            self._tombstones.lay(refusal, written)
            return refusal.body
        if manifest.media_type != media_type or not manifest.body.startswith(written):
            request.channel.forceAbortClient()
            return b""
        return manifest.body[len(written) :]

    @app.route("/v2/<anything:name>/blobs/<digest>")
    async def blob(self, request: Request, name: str, digest: str) -> bytes:
        """Send a blob, or stretches of it."""
        wanted = parse_digest(digest)
        blob = await self._registry.blob(self._name(name), wanted, client_of(request))
        try:
            request.setHeader("Accept-Ranges", "bytes")
            request.setHeader("Cache-Control", "public, max-age=31536000, immutable")
            if _is_known(request, wanted):
                return b""
            parts = _parts(request, blob, wanted)
            if request.method == b"HEAD":
                return b""
            await send(blob.file, parts, request, self._in_thread)
        except Truncated as e:
            # The length was promised: all that is left is to break the connection.
            _log.error("{digest}: {error}", digest=wanted, error=e)
            request.channel.forceAbortClient()
        except ClientLeft:
            pass
        finally:
            blob.file.close()
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
        return _refuse(request, describe(cast(RegistryError, failure.value)))

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def _misrouted(self, request: Request, failure: Failure) -> bytes:
        error = cast(HTTPException, failure.value)
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        return _refuse(request, problem(status, "UNSUPPORTED", error.name))

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def _unexpected(self, request: Request, failure: Failure) -> bytes:
        incident = self._new_incident()
        _log.failure("incident {incident}", failure, incident=incident)
        if request.startedWriting:
            request.channel.forceAbortClient()
            return b""
        message = f"the registry failed; its log has more under incident {incident}"
        return _refuse(
            request, problem(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", message)
        )

    def _name(self, text: str) -> Name:
        return parse_name(text, self._max_name_length)


def refuse_method(request: Request) -> bytes:
    """Answer a method that would change something: nothing can be changed here."""
    request.setHeader("Allow", "GET, HEAD")
    message = "this registry is read-only: its images are built from a Nix flake"
    return _refuse(
        request, problem(HTTPStatus.METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    )


def refuse_path(request: Request) -> bytes:
    """Answer a path that is not text."""
    message = "the path is not percent-encoded UTF-8"
    return _refuse(request, problem(HTTPStatus.BAD_REQUEST, "NAME_INVALID", message))


def _refuse(request: Request, refusal: Problem, content_type: str = _JSON) -> bytes:
    for name in ("ETag", "Docker-Content-Digest", "Cache-Control", "Accept-Ranges"):
        request.responseHeaders.removeHeader(name)
    request.setResponseCode(refusal.status, refusal.reason)
    if refusal.status == HTTPStatus.TOO_MANY_REQUESTS:
        request.setHeader("Retry-After", str(RETRY_AFTER_SECONDS))
    return _whole(request, content_type, refusal.body)


def _early(request: Request, media_type: str) -> bytes:
    """Begin to answer with what is known already, which is no digest and no length."""
    request.setHeader("Content-Type", media_type)
    # A proxy that collects the answer would keep back what is sent to pass the time.
    request.setHeader("X-Accel-Buffering", "no")
    request.setHeader("Cache-Control", "no-store")
    return b""


def _hops(request: Request) -> int:
    text = request.args.get(_HOP, [b""])[0]
    return int(text) if text.isdigit() and len(text) < 3 else 0


def _send_here_again(request: Request, hop: int) -> bytes:
    path, _, query = request.uri.partition(b"?")
    words = [w for w in query.split(b"&") if w and not w.startswith(_HOP + b"=")]
    words.append(b"%b=%d" % (_HOP, hop))
    # Two slashes at the begin would name a host.
    target = b"/" + path.lstrip(b"/") + b"?" + b"&".join(words)
    request.setResponseCode(HTTPStatus.TEMPORARY_REDIRECT)
    request.setHeader("Location", target)
    return _whole(request, "text/plain", b"")


def _warn(request: Request, why: str) -> None:
    """
    Say that the answer may be out of date.

    Source: RFC 7234, section 5.5; 299 is "Miscellaneous Persistent Warning".
    """
    text = _NOT_QUOTABLE.sub(" ", why)[:_MAX_WARNING].strip()
    warning = f'299 forge-registry "the last image that worked: {text}"'
    request.setHeader("Warning", warning)


def _whole(request: Request, content_type: str, body: bytes) -> bytes:
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    return body


def _identify(request: Request, digest: Digest) -> None:
    request.setHeader("Docker-Content-Digest", str(digest))
    request.setHeader("ETag", f'"{digest}"')


def _is_known(request: Request, digest: Digest) -> bool:
    """Say what the answer is; if the client has it already, answer just that."""
    _identify(request, digest)
    known = parse_etags(_header(request, "if-none-match"))
    if not known.contains_weak(str(digest)):
        return False
    request.setResponseCode(HTTPStatus.NOT_MODIFIED)
    return True


def _header(request: Request, name: str) -> str | None:
    """Give a header, the lines of it joined as RFC 9110, section 5.3, has it."""
    lines = request.requestHeaders.getRawHeaders(name.encode())
    if lines is None:
        return None
    return ", ".join(line.decode("latin-1") for line in lines)


def _accepted(accept: str | None) -> list[str]:
    """
    Say which forms of a manifest a client reads.

    :returns: those it likes best first, and ours where it does not care.
    """
    if accept is None or not accept.strip(", \t"):
        return list(MANIFESTS)
    liked = parse_accept_header(accept, MIMEAccept)
    accepted = [form for form in MANIFESTS if liked.quality(form) > 0]
    return sorted(accepted, key=lambda form: -liked.quality(form))


def _parts(
    request: Request, blob: OpenBlob, digest: Digest
) -> Sequence[bytes | tuple[int, int]]:
    """
    Set status and headers for the stretches of a blob that are asked for.

    :returns: what makes up the body.
    Source: RFC 9110, sections 13.1.5, 14 and 15.3.7.
    """
    header, condition = _header(request, "range"), _header(request, "if-range")
    stretches = None
    if header is not None and request.method == b"GET":
        if condition is None or condition.strip() == f'"{digest}"':
            try:
                stretches = parse_range(header, blob.size)
            except RangeNotSatisfiable:
                request.setHeader("Content-Range", f"bytes */{blob.size}")
                raise
    if stretches is None:
        request.setHeader("Content-Type", OCTETS)
        request.setHeader("Content-Length", str(blob.size))
        return [(0, blob.size)]
    request.setResponseCode(HTTPStatus.PARTIAL_CONTENT)
    if len(stretches) == 1:
        (start, stop) = stretches[0]
        request.setHeader("Content-Type", OCTETS)
        request.setHeader("Content-Length", str(stop - start))
        request.setHeader("Content-Range", f"bytes {start}-{stop - 1}/{blob.size}")
        return stretches
    # The digest cannot be in the bytes that it is of.
    boundary = digest.encoded
    parts: list[bytes | tuple[int, int]] = []
    length = 0
    for start, stop in stretches:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {OCTETS}\r\n"
            f"Content-Range: bytes {start}-{stop - 1}/{blob.size}\r\n\r\n"
        ).encode()
        parts += [head, (start, stop)]
        length += len(head) + stop - start
    tail = f"\r\n--{boundary}--\r\n".encode()
    request.setHeader("Content-Type", f"multipart/byteranges; boundary={boundary}")
    request.setHeader("Content-Length", str(length + len(tail)))
    return [*parts, tail]


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
