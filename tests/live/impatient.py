"""
A client that asks as containerd 2.3 does, and leaves as soon.

It stands in for the releases that are not packaged yet. What they do that older ones do
not: they give up on a response whose header is not there 30 s after the request.

Source: containerd 2.3, core/remotes/docker: registry.go, resolver.go, fetcher.go.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import urljoin, urlsplit

from attrs import define, field, frozen

from tests.live.clients import Outcome

#: How long after a request its response's header must be there, in seconds.
HEADER_SECONDS = 30.0
#: How large a manifest may be, in bytes.
MAX_MANIFEST = 4 * 1048 * 1048
#: How often one request is made at most, be it refused or redirected.
MOST_TIMES, MOST_REDIRECTS = 6, 10

#: Media types that are fetched as manifests; all others are blobs.
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
ACCEPT = ", ".join((*MANIFESTS, "*/*"))

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Failed(Exception):
    """The pull failed; the text is what containerd says."""


@frozen
class Descriptor:
    """What a manifest says, or a resolver finds out, of some content."""

    media_type: str
    digest: str
    size: int

    @classmethod
    def read(cls, document: Any) -> Descriptor:
        """Read it from a manifest's JSON."""
        return cls(document["mediaType"], document["digest"], document["size"])


@frozen
class Response:
    """A final response, read to its end."""

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """Its Content-Type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip()


@define
class Impatient:
    """
    The client.

    :ivar images: what it has pulled, whole and checked: manifests by reference.
    :ivar requests: methods and paths, in order.
    """

    images: dict[str, bytes] = field(factory=dict)
    requests: list[str] = field(factory=list)

    def pull(self, ref: str) -> Outcome:
        """Pull ``host:port/name:tag``, as real clients are asked to."""
        try:
            manifest = self._pull(ref)
        except Failed as e:
            return Outcome(1, "", f"ctr: {e}\n")
        self.images[ref] = manifest
        return Outcome(0, f"{ref} done\n", "")

    def _pull(self, ref: str) -> bytes:
        locator, _, tag = ref.rpartition(":")
        host, _, name = locator.partition("/")
        base = f"http://{host}/v2/{name}/"
        try:
            found = self._resolve(ref, f"{base}manifests/{tag}")
        except Failed as e:
            raise Failed(f'failed to resolve reference "{ref}": {e}') from e
        manifest = self._fetch(base, found)
        document = json.loads(manifest)
        if "manifests" in document:
            raise Failed(
                f"media-type: expected manifest but found index ({found.media_type})"
            )
        if "config" not in document:
            raise Failed(f"failed to unpack image {ref}: no config")
        for part in (document["config"], *document["layers"]):
            self._fetch(base, Descriptor.read(part))
        return manifest

    def _resolve(self, ref: str, url: str) -> Descriptor:
        answer = self._ask("HEAD", url, ACCEPT)
        if answer.status == 404:
            raise Failed(f"{ref}: not found")
        if answer.status > 299:
            raise Failed(_unexpected("HEAD", answer))
        digest = answer.headers.get("docker-content-digest", "")
        length = answer.headers.get("content-length")
        if digest and length is not None:
            if not _DIGEST.fullmatch(digest):
                raise Failed(f'"{digest}" in header not a valid digest')
            size = int(length)
        else:
            # Whatever the status: what comes is hashed, and asked for by its digest.
            answer = self._ask("GET", url, ACCEPT)
            digest, size = _digest(answer.body), len(answer.body)
        if size > MAX_MANIFEST:
            raise Failed(f"rejecting {size} byte manifest for {ref}: not found")
        return Descriptor(answer.media_type, digest, size)

    def _fetch(self, base: str, wanted: Descriptor) -> bytes:
        kind = "manifests" if wanted.media_type in MANIFESTS else "blobs"
        url = f"{base}{kind}/{wanted.digest}"
        answer = self._ask("GET", url, f"{wanted.media_type}, */*")
        if answer.status == 404:
            raise Failed(
                f"could not fetch content descriptor {wanted.digest}"
                f" ({wanted.media_type}) from remote: not found"
            )
        if answer.status > 299:
            raise Failed(_unexpected("GET", answer))
        what = f'failed commit on ref "{kind[:-1]}-{wanted.digest}": unexpected commit'
        if len(answer.body) != wanted.size:
            raise Failed(f"{what} size {len(answer.body)}, expected {wanted.size}")
        if _digest(answer.body) != wanted.digest:
            raise Failed(
                f"{what} digest {_digest(answer.body)}, expected {wanted.digest}"
            )
        return answer.body

    def _ask(self, method: str, url: str, accept: str) -> Response:
        """Ask until there is an answer that it does not ask again for."""
        statuses: list[int] = []
        while True:
            answer = self._follow(method, url, accept)
            statuses.append(answer.status)
            again = answer.status in (408, 429) or (
                answer.status in (500, 503, 504) and statuses[-2:-1] != statuses[-1:]
            )
            if not again or len(statuses) == MOST_TIMES:
                return answer

    def _follow(self, method: str, url: str, accept: str) -> Response:
        start = url
        for _ in range(MOST_REDIRECTS):
            try:
                answer = self._once(method, url, accept)
            except (OSError, HTTPException) as e:
                why = f'{method.title()} "{url}": {e or type(e).__name__}'
                raise Failed(f"failed to do request: {why}") from e
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            url = urljoin(url, answer.headers["location"])
        why = f'{method.title()} "{start}": stopped after {MOST_REDIRECTS} redirects'
        raise Failed(f"failed to do request: {why}")

    def _once(self, method: str, url: str, accept: str) -> Response:
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self.requests.append(f"{method} {path}")
        with closing(HTTPConnection(parts.netloc)) as connection:
            headers = {"Accept": accept, "User-Agent": "containerd/v2.3.4"}
            connection.request(method, path, headers=headers)
            response = _in_time(connection)
            body = response.read()  # for as long as it takes
            return Response(
                url,
                response.status,
                response.reason,
                {name.lower(): value for name, value in response.getheaders()},
                body,
            )


def _in_time(connection: HTTPConnection) -> HTTPResponse:
    """
    Wait for the whole header, however it trickles.

    :raises TimeoutError: it came too late.
    """
    late = threading.Event()
    # Closing it would take it away from under whoever reads.
    end = connection.sock.shutdown

    def give_up() -> None:
        late.set()
        end(SHUT_RDWR)

    timer = threading.Timer(HEADER_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        response = connection.getresponse()
    except (OSError, HTTPException):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():  # half a header may have passed for a whole one
        raise TimeoutError("net/http: timeout awaiting response headers")
    return response


def _unexpected(method: str, answer: Response) -> str:
    status = f"{answer.status} {answer.reason}"
    said = f"unexpected status from {method} request to {answer.url}: {status}"
    try:
        errors = json.loads(answer.body)["errors"]
        texts = [f"{e['code'].lower()}: {e['message']}" for e in errors]
    except (ValueError, KeyError, TypeError):
        return said
    return f"{said} - Server message: {', '.join(texts)}"


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
