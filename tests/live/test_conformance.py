"""Ask a running registry what OCI's own conformance suite asks of a read-only one.

In: ``registry.port``, plain HTTP on 127.0.0.1, served by another process (these
requests block). Told anew from what the suite does for pull and content discovery:
https://github.com/opencontainers/distribution-spec/tree/main/conformance (`run.go`,
`api.go`; before that `01_pull_test.go`, `03_discovery_test.go`, `setup.go`). A comment
says so where a test asks more than a read-only run of the suite.
"""

import gzip
import hashlib
import json
from contextlib import closing
from http.client import HTTPConnection, HTTPMessage
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

import pytest

REPOSITORY = "packages/hello"
TAGS = ["2.12", "latest"]
TIMEOUT_SECONDS = 120.0  # the first manifest is built while the client waits

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

# distribution-spec 1.1, "Error Codes": those that a registry without pushes can need
CODES = {"BLOB_UNKNOWN", "DENIED", "DIGEST_INVALID", "MANIFEST_INVALID"}
CODES |= {"MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "UNSUPPORTED"}

Headers = list[tuple[str, str]]
Blobs = dict[str, int]  # size by digest
GZIP: Headers = [("Accept-Encoding", "gzip")]  # Go's client offers it by itself
NO_ACCEPT: Headers = []
ONE_ACCEPT: Headers = [("Accept", OCI_MANIFEST)]
TWO_ACCEPTS: Headers = [("Accept", OCI_INDEX), *ONE_ACCEPT, *GZIP]  # on two lines
DOCKER_ACCEPT: Headers = [("Accept", DOCKER_MANIFEST)]

suite_accepts = pytest.mark.parametrize(
    "accept", [NO_ACCEPT, ONE_ACCEPT, TWO_ACCEPTS], ids=["none", "one", "two-lines"]
)


class Registry(Protocol):
    port: int


class Response(NamedTuple):
    """An answer as it came over the wire: nothing followed, nothing decoded."""

    status: int
    headers: HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connect(registry: Registry) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", registry.port, timeout=TIMEOUT_SECONDS)


def send(
    connection: HTTPConnection,
    method: str,
    path: str,
    headers: Headers = NO_ACCEPT,
    body: bytes = b"",
) -> Response:
    """Send these headers and no others but Host, and the length of a body."""
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    response = connection.getresponse()
    return Response(response.status, response.headers, response.read())


def ask(
    registry: Registry, path: str, headers: Headers = NO_ACCEPT, method: str = "GET"
) -> Response:
    """Ask for what follows ``/v2/<repository>/``, on a connection of its own."""
    with closing(connect(registry)) as connection:
        return send(connection, method, f"/v2/{REPOSITORY}/{path}", headers)


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


UNKNOWN = [digest_of(b"hello world", hash_) for hash_ in ("sha256", "sha512")]


def assert_problem(response: Response, codes: set[str] = CODES) -> None:
    """Check that the body is OCI's form of an error, with none but these codes."""
    assert response.headers["Content-Type"].startswith("application/json")
    errors = response.json()["errors"]
    assert errors
    assert {error["code"] for error in errors} <= codes


def assert_is_manifest(response: Response, media_type: str) -> None:
    """Check that status, headers and body speak of one manifest, sent as it is."""
    assert response.status == 200
    assert response.headers["Content-Type"] == media_type  # without parameters
    assert response.headers["Content-Encoding"] is None
    assert response.headers["Content-Length"] == str(len(response.body))
    assert response.headers["Docker-Content-Digest"] == digest_of(response.body)
    assert response.json()["mediaType"] == media_type
    assert response.json()["schemaVersion"] == 2


@pytest.fixture
def manifest(registry: Registry) -> Response:
    """The OCI manifest of the newest image."""
    return ask(registry, "manifests/latest", ONE_ACCEPT)


@pytest.fixture
def blobs(manifest: Response) -> Blobs:
    """The size of each blob of the image, by digest; the last one is a layer."""
    described = [manifest.json()["config"], *manifest.json()["layers"]]
    return {descriptor["digest"]: descriptor["size"] for descriptor in described}


def test_the_registry_says_that_it_speaks_version_two(registry: Registry) -> None:
    """A client that first asks for /v2/ learns that this is a registry."""
    with closing(connect(registry)) as connection:
        assert send(connection, "GET", "/v2/").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "manifests/missing-k3v9w2q8",
        "manifests/.INVALID_MANIFEST_NAME",  # no tag by the grammar, but never 400
        *(f"manifests/{digest}" for digest in UNKNOWN),
        *(f"blobs/{digest}" for digest in UNKNOWN),
    ],
)
@suite_accepts
def test_what_nobody_has_is_not_found(
    registry: Registry, accept: Headers, path: str
) -> None:
    """Asking for an unknown tag or digest answers 404 and says why in JSON."""
    assert ask(registry, path, accept, method="HEAD").status == 404
    answer = ask(registry, path, accept)
    assert answer.status == 404
    assert_problem(answer)


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("manifests/sha256:totallywrong", {400, 404}),
        ("manifests/sha256:baddigeststring", {400, 404}),
        ("referrers/sha256:totallywrong", {400}),  # the specification's MUST
    ],
)
def test_a_malformed_digest_is_refused(
    registry: Registry, path: str, statuses: set[int]
) -> None:
    """A digest that cannot be one is refused in JSON, and the connection lives on."""
    # The older suite gives this GET a type and a body; its library may drop the body.
    headers = [("Content-Type", OCI_MANIFEST)]
    path = f"/v2/{REPOSITORY}/{path}"
    with closing(connect(registry)) as connection:
        answer = send(connection, "GET", path, headers, b"blablabla")
        assert answer.status in statuses
        assert_problem(answer)
        assert send(connection, "GET", "/v2/").status == 200


@pytest.mark.parametrize("tag", TAGS)
@suite_accepts
def test_a_manifest_can_be_pulled(
    registry: Registry, tag: str, accept: Headers
) -> None:
    """HEAD and GET, by tag and by digest, all speak of one and the same manifest."""
    manifest = ask(registry, f"manifests/{tag}", accept)
    for reference in (tag, digest_of(manifest.body)):
        got = ask(registry, f"manifests/{reference}", accept)
        assert_is_manifest(got, OCI_MANIFEST)
        assert got.body == manifest.body
        head = ask(registry, f"manifests/{reference}", accept, method="HEAD")
        assert head.status == 200
        for name in ("Content-Type", "Content-Length", "Docker-Content-Digest"):
            assert head.headers[name] == got.headers[name]


def test_a_digest_always_gives_the_bytes_it_names(
    registry: Registry, manifest: Response
) -> None:
    """What a digest names does not change with the types that a client accepts."""
    # More than the suite: it knows one manifest for each tag, this registry has two.
    docker = ask(registry, "manifests/latest", DOCKER_ACCEPT)
    assert_is_manifest(docker, DOCKER_MANIFEST)
    for named in (manifest, docker):
        for accept in (NO_ACCEPT, ONE_ACCEPT, TWO_ACCEPTS, DOCKER_ACCEPT):
            got = ask(registry, f"manifests/{digest_of(named.body)}", accept)
            assert got.body == named.body
            assert_is_manifest(got, named.json()["mediaType"])


def test_every_blob_can_be_pulled(registry: Registry, blobs: Blobs) -> None:
    """Configuration and layers arrive whole, packed only for who offers gzip."""
    for digest, size in blobs.items():
        head = ask(registry, f"blobs/{digest}", method="HEAD")
        plain = ask(registry, f"blobs/{digest}")
        packed = ask(registry, f"blobs/{digest}", GZIP)
        for answer in (head, plain, packed):
            assert answer.status == 200
            assert answer.headers["Docker-Content-Digest"] == digest
        for answer in (head, plain):
            assert answer.headers["Content-Length"] == str(size)
        assert digest_of(plain.body) == digest
        if packed.headers["Content-Encoding"] == "gzip":
            assert digest_of(gzip.decompress(packed.body)) == digest
        else:
            assert packed.body == plain.body


# The suite asks for ranges only of blobs that it pushed itself.
@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("10-19", slice(10, 20)),
        ("10-", slice(10, None)),
        ("-10", slice(-10, None)),
        ("10-{past_the_end}", slice(10, None)),
    ],
)
def test_a_download_can_be_resumed(
    registry: Registry, blobs: Blobs, wanted: str, part: slice
) -> None:
    """A client gets the part of a blob it asks for, cut off where the blob ends."""
    digest, size = list(blobs.items())[-1]
    start, stop, _ = part.indices(size)
    wanted = wanted.format(past_the_end=size + 999)
    got = ask(registry, f"blobs/{digest}", [("Range", f"bytes={wanted}")])
    assert got.status == 206
    assert got.headers["Content-Length"] == str(stop - start)
    stretch = f"bytes {start}-{stop - 1}"
    assert got.headers["Content-Range"] in (f"{stretch}/{size}", f"{stretch}/*")
    assert got.body == ask(registry, f"blobs/{digest}").body[part]


def test_a_part_that_is_none_is_refused(registry: Registry, blobs: Blobs) -> None:
    """A range past the end answers 416; one that ends before it starts may be 200."""
    digest, size = list(blobs.items())[-1]
    for wanted, statuses in ((f"{size}-{size + 9}", {416}), ("500-0", {416, 200})):
        got = ask(registry, f"blobs/{digest}", [("Range", f"bytes={wanted}")])
        assert got.status in statuses
        assert got.status == 416 or digest_of(got.body) == digest


@pytest.mark.parametrize("path", ["manifests/latest", "manifests/.no", "blobs/{}"])
def test_head_is_never_followed_by_a_body(registry: Registry, path: str) -> None:
    """HEAD sends headers alone, also for errors, so a kept connection stays in step."""
    path = f"/v2/{REPOSITORY}/{path.format(UNKNOWN[0])}"
    with closing(connect(registry)) as connection:
        connection.putrequest("HEAD", path, skip_accept_encoding=True)
        connection.putheader("Connection", "close")
        connection.endheaders()
        raw: bytes = connection.sock.makefile("rb").read()
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert rest == b""


def tags(registry: Registry, **query: str | int) -> list[str]:
    answer = ask(registry, f"tags/list?{urlencode(query)}".rstrip("?"))
    assert answer.status == 200
    assert answer.json()["name"] == REPOSITORY
    found: list[str] = answer.json()["tags"]
    return found


def test_tags_can_be_read_page_by_page(registry: Registry) -> None:
    """Tags come in the order of their bytes, n of them, after the last one seen."""
    found = tags(registry)
    assert set(TAGS) <= set(found)
    assert found == sorted(set(found))
    half = len(found) // 2
    assert tags(registry, n=half) == found[:half]
    assert tags(registry, n=half, last=found[half - 1]) == found[half : 2 * half]
    assert tags(registry, last=found[half - 1]) == found[half:]  # no n: all the rest
    assert tags(registry, n=0) == []  # the specification's, not the suite's
    assert ask(registry, "tags/list?n=0").headers["Link"] is None


@pytest.mark.parametrize("subject", [*UNKNOWN, "latest"])
def test_nothing_refers_to_anything(
    registry: Registry, manifest: Response, subject: str
) -> None:
    """Referrers are an empty index, never 404, and a filter is said to be applied."""
    digest = digest_of(manifest.body) if subject == "latest" else subject
    query = urlencode({"artifactType": "application/vnd.example+json"})
    every = ask(registry, f"referrers/{digest}")
    some = ask(registry, f"referrers/{digest}?{query}")
    for answer in (every, some):
        assert answer.status == 200
        assert answer.headers["Content-Type"] == OCI_INDEX  # without parameters
        assert answer.json()["schemaVersion"] == 2
        assert answer.json()["mediaType"] == OCI_INDEX
        assert answer.json()["manifests"] == []
    assert some.headers["OCI-Filters-Applied"] == "artifactType"


@pytest.mark.parametrize(
    "request_line",
    [
        "PUT manifests/latest",
        "DELETE manifests/latest",
        "DELETE manifests/{}",
        "DELETE blobs/{}",
        "POST blobs/uploads/",
        "PATCH blobs/uploads/1f0e",
        "PUT blobs/uploads/1f0e?digest={}",
    ],
)
def test_nothing_can_be_written(registry: Registry, request_line: str) -> None:
    """Writing answers 405 and says that this registry does not support it."""
    # 405 is what the suite counts as "unsupported"; 401, 403 or 501 is a failure.
    method, path = request_line.format(UNKNOWN[0]).split()
    path = f"/v2/{REPOSITORY}/{path}"
    with closing(connect(registry)) as connection:
        answer = send(connection, method, path, body=b"hello world")
    assert answer.status == 405
    assert_problem(answer, {"UNSUPPORTED"})
