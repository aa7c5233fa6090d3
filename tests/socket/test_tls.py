"""Tests for `forgereg.web.tls`, with real connections."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from forgereg.flow.source import FileSource
from forgereg.flow.threads import InThread
from forgereg.web.stream import ClientLeft, send

SIZE = 2**26
#: Twisted's own doing.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL")


@define(eq=False)
class Blob(Resource):
    """A blob, or a stretch of it, as the path says."""

    file: Path
    sent: list[Deferred[None]] = field(init=False, factory=list)
    isLeaf = True

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def render_GET(self, request: Request) -> int:  # noqa: N802
        start, stop = (int(part) for part in request.postpath or [])
        request.setHeader("Content-Length", str(stop - start))
        file = self.file.open("rb", buffering=0)
        source = FileSource(file, SIZE, cast(InThread, deferToThread))
        sent = Deferred.fromCoroutine(send(source, [(start, stop)], request))
        self.sent.append(sent)
        sent.addCallback(lambda _: request.finish())
        return NOT_DONE_YET


@define
class Client:
    """What speaks HTTPS to it."""

    port: int

    def connect(self, version: ssl.TLSVersion) -> http.client.HTTPSConnection:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = version
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=60, context=context
        )

    def fetch(
        self,
        stretches: list[tuple[int, int]],
        piece: int,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> list[str]:
        """Blocking: get stretches over one connection, and give their digests."""
        connection = self.connect(version)
        digests = []
        for start, stop in stretches:
            connection.request("GET", f"/{start}/{stop}")
            answer, digest = connection.getresponse(), hashlib.sha256()
            while data := answer.read(piece):
                digest.update(data)
            digests.append(digest.hexdigest())
        connection.close()
        return digests

    def leave(self) -> None:
        """Blocking: hang up in the middle of a blob."""
        connection = self.connect(ssl.TLSVersion.TLSv1_3)
        connection.request("GET", f"/0/{SIZE}")
        connection.getresponse().read(2**20)
        connection.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pem = tmp_path_factory.mktemp("certificate") / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=localhost", "-keyout", "-", "-out", "-"]
    pem.write_bytes(subprocess.run(argv, check=True, capture_output=True).stdout)
    return pem


@pytest.fixture
def blob(tmp_path: Path) -> Blob:
    file = tmp_path / "blob"
    file.write_bytes(os.urandom(SIZE))
    return Blob(file)


@pytest_twisted.async_yield_fixture
async def client(blob: Blob, certificate: Path) -> AsyncIterator[Client]:
    endpoint = f"ssl:0:privateKey={certificate}:certKey={certificate}"
    server = serverFromString(reactor, f"{endpoint}:interface=127.0.0.1")
    port = await server.listen(Site(blob))
    yield Client(port.getHost().port)
    await port.stopListening()


def digests(blob: Blob, stretches: list[tuple[int, int]]) -> list[str]:
    data = memoryview(blob.file.read_bytes())
    return [hashlib.sha256(data[a:b]).hexdigest() for a, b in stretches]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("piece", [2**20, 2**12])
@pytest_twisted.ensureDeferred
async def test_bytes(
    blob: Blob, client: Client, version: ssl.TLSVersion, piece: int
) -> None:
    """Whole blobs and stretches come as they are, one after another."""
    stretches = [(0, SIZE), (SIZE // 3, SIZE - 5), (7, 9), (2**20, 2**21), (0, SIZE)]
    fetched = await deferToThread(client.fetch, stretches, piece, version)
    assert fetched == digests(blob, stretches)


@pytest_twisted.ensureDeferred
async def test_side_by_side(blob: Blob, client: Client) -> None:
    """Slow clients and fast ones get the same, also while others hang up."""
    whole = [(0, SIZE)]
    fetches = [deferToThread(client.fetch, whole, 2**size) for size in (20, 10, 17)]
    await deferToThread(client.leave)
    for fetch in fetches:
        assert await fetch == digests(blob, whole)
    outcomes = [
        await sent.addErrback(lambda f: f.trap(ClientLeft)) for sent in blob.sent
    ]
    assert outcomes.count(ClientLeft) == 1
