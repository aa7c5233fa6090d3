"""Tests for the double of containerd, with a server that says what it is told to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import frozen

from tests.live.impatient import ACCEPT, MANIFESTS, Impatient

OCI = "application/vnd.oci.image.manifest.v1+json"
CONFIG = b"{}"


def digest_of(body: bytes) -> str:
    """Give the digest of some bytes."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


MANIFEST = (
    b" " * 256
    + json.dumps(
        {
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(CONFIG),
                "size": len(CONFIG),
            },
            "layers": [],
        }
    ).encode()
)
TAG = "/v2/some/name/manifests/latest"
BY_DIGEST = f"/v2/some/name/manifests/{digest_of(MANIFEST)}"
BLOB = f"/v2/some/name/blobs/{digest_of(CONFIG)}"


@frozen
class Says:
    """
    An answer.

    :ivar length: whether it is promised; without it the body comes in chunks.
    """

    status: int = 200
    body: bytes = b""
    digest: str | None = None
    length: bool = True
    media_type: str = OCI


@contextmanager
def serving(answers: dict[str, Says]) -> Iterator[tuple[str, list[str | None]]]:
    """Serve answers by method and path; give a reference, and each Accept."""
    accepts: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            accepts.append(self.headers["Accept"])
            says = answers.get(f"{self.command} {self.path}", Says(404))
            self.send_response(says.status)
            self.send_header("Content-Type", says.media_type)
            if says.digest is not None:
                self.send_header("Docker-Content-Digest", says.digest)
            if says.length:
                self.send_header("Content-Length", str(len(says.body)))
            else:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command == "HEAD":
                return
            if says.length:
                self.wfile.write(says.body)
                return
            for byte in (says.body[:1], says.body[1:]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(byte), byte))
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_HEAD = answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"localhost:{server.server_port}/some/name:latest", accepts
        finally:
            server.shutdown()
            thread.join()


IMAGE = {
    f"HEAD {TAG}": Says(body=MANIFEST, digest=digest_of(MANIFEST)),
    f"GET {BY_DIGEST}": Says(body=MANIFEST),
    f"GET {BLOB}": Says(body=CONFIG),
}
EARLY = IMAGE | {
    f"HEAD {TAG}": Says(length=False),
    f"GET {TAG}": Says(body=MANIFEST, length=False),
}


def test_an_image_that_is_there() -> None:
    """It asks for the tag's digest, and fetches what that names."""
    client = Impatient()
    with serving(IMAGE) as (ref, accepts):
        assert client.pull(ref).status == 0
    assert client.requests == list(IMAGE)
    assert accepts[:2] == [ACCEPT, f"{OCI}, */*"]
    assert client.images == {ref: MANIFEST}


def test_an_early_answer() -> None:
    """Where the answer to HEAD has no digest, it hashes what GET gives."""
    client = Impatient()
    with serving(EARLY) as (ref, _):
        assert client.pull(ref).status == 0
    get = f"GET {TAG}"
    assert client.requests == [f"HEAD {TAG}", get, f"GET {BY_DIGEST}", f"GET {BLOB}"]


def test_an_error_after_an_early_answer() -> None:
    """An error document at the end of an early body is asked for, and its text shown."""
    errors = [{"code": "MANIFEST_UNKNOWN", "message": "cannot find -lmissing"}]
    body = b" " + json.dumps({"errors": errors}).encode()
    answers = {
        f"HEAD {TAG}": Says(length=False),
        f"GET {TAG}": Says(body=body, length=False),
        f"GET /v2/some/name/manifests/{digest_of(body)}": Says(422, body),
    }
    client = Impatient()
    with serving(answers) as (ref, _):
        outcome = client.pull(ref)
    assert outcome.status == 1
    assert "cannot find -lmissing" in outcome.err
    assert client.images == {}


def test_an_error_that_is_lost() -> None:
    """A refusal of GET by tag is taken for content, and nobody knows its digest."""
    answers = EARLY | {
        f"GET {TAG}": Says(422, b'{"errors": []}', media_type="application/json")
    }
    client = Impatient()
    with serving(answers) as (ref, _):
        assert "could not fetch content descriptor" in client.pull(ref).err
    assert "/blobs/" in client.requests[-1]


def test_wrong_bytes() -> None:
    """Bytes that do not match their digest are not kept, even if they look right."""
    answers = IMAGE | {f"GET {BLOB}": Says(body=b"[]")}
    client = Impatient()
    with serving(answers) as (ref, _):
        assert "unexpected commit digest" in client.pull(ref).err
    assert client.images == {}


def test_told_to_come_later() -> None:
    """It does not wait when it is told to come later: it asks again at once, and gives up."""
    client = Impatient()
    with serving({f"HEAD {TAG}": Says(429)}) as (ref, _):
        assert "429 Too Many Requests" in client.pull(ref).err
    assert client.requests == [f"HEAD {TAG}"] * 6


def test_it_is_known_by_what_it_accepts() -> None:
    """It names the media types of manifests, and what else there may be."""
    assert ACCEPT.split(", ") == [*MANIFESTS, "*/*"]
