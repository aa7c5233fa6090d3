"""Tests for `forgereg.web.site` and `forgereg.web.api`: whatever is sent."""

from __future__ import annotations

import string
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.client import Connection, ask
from tests.registry import Served, digest_of, serving

LATEST = "/v2/packages/hello/manifests/latest"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry that has built its image."""
    with serving(tmp_path_factory.mktemp("garbage")) as served:
        served.pull("packages/hello")
        yield served


WORDS = st.sampled_from(
    [
        "v2",
        "packages",
        "applications",
        "hello",
        "manifests",
        "blobs",
        "tags",
        "list",
        "referrers",
        "_catalog",
        "latest",
        "2.12",
        "",
        ".",
        "..",
        "uploads",
        digest_of(b""),
        "sha256:x",
        f"sha256-{'0' * 64}.sig",
    ]
)
PIECES = (
    WORDS
    | st.text(max_size=8).map(
        lambda text: quote(text.encode("utf-8", "surrogatepass"), safe="")
    )
    | st.binary(max_size=4).map(quote)
    | st.text(
        # what Twisted lets through in a request line
        st.characters(min_codepoint=33, max_codepoint=176),
        max_size=8,
    )
)
PATHS = st.lists(PIECES, max_size=7).map("/".join)


@settings(max_examples=200)
@given(prefix=st.sampled_from(["/", "/v2/", "/v2/packages/", "//"]), path=PATHS)
@example("/v2/", "packages/hello%0A/manifests/latest")
@example("/v2/", "packages/hello/manifests/%0A")
@example("/v2/", "packages/hello/manifests/latest?n=%FF&last=%00&artifactType")
@example("/v2/", "packages/hello/tags/list?ns=docker.io&n=")
@example("/v2/", "%00")
@example("/v2/", "%")
@example("/v2/", "%zz")
@example("/v2/", "packages%2F..%2F..%2Fetc%2Fpasswd/manifests/latest")
@example("/v2/", "\x7f\x80\xb0")
def test_any_path(served: Served, prefix: str, path: str) -> None:
    """Whatever path is asked for, the answer is one that clients understand."""
    answer = ask(served.site, "GET", prefix + path)
    if not (answer["Content-Type"] or "").startswith("text/html"):
        answer.check()
    else:
        assert not prefix.startswith("/v2") and answer.status == 200
    headed = ask(served.site, "HEAD", prefix + path)
    assert headed.status == answer.status


def config(served: Served) -> str:
    digest: str = served.get(LATEST).json["config"]["digest"]
    return digest


TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
VALUES = st.text(
    st.characters(max_codepoint=255, exclude_characters="\0\r\n"), max_size=40
)
NAMES = st.sampled_from(
    [
        "Accept",
        "Range",
        "If-Range",
        "If-None-Match",
        "If-Match",
        "Host",
        "Authorization",
        "Content-Type",
        "Cookie",
        "Connection",
        "Expect",
        "User-Agent",
        "Referer",
        "X-Forwarded-For",
        "Upgrade",
    ]
)
Q_VALUES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "*/*",
                "application/*",
                "*",
                "a/b",
                "",
                "/",
                "application/vnd.oci.image.manifest.v1+json",
            ]
        ),
        st.sampled_from(
            [
                "",
                ";q=0",
                ";q=1",
                ";q=2",
                ";q=-1",
                ";q=",
                ";q=x",
                ";q=nan",
                ";",
                ";a=b;q=.5",
                ';q="1',
            ]
        ),
    ).map("".join),
    max_size=4,
).map(",".join)


@settings(max_examples=200)
@given(
    headers=st.lists(st.tuples(NAMES, VALUES | Q_VALUES), max_size=4),
    method=st.sampled_from(["GET", "HEAD"]),
    blob=st.booleans(),
)
def test_any_headers(
    served: Served, headers: list[tuple[str, str]], method: str, blob: bool
) -> None:
    """Whatever headers are sent, the answer is one that clients understand."""
    path = f"/v2/packages/hello/blobs/{config(served)}" if blob else LATEST
    connection = served.connect()
    connection.ask(method, path, headers)
    for answer in connection.answers():
        answer.check()


@settings(max_examples=100)
@given(method=st.text(TOKEN, min_size=1, max_size=10))
@example("PROPFIND")
@example("GE%54")
def test_any_method(served: Served, method: str) -> None:
    """A method that is unknown is refused as those that write are."""
    answer = ask(served.site, method, LATEST)
    answer.check()
    assert (answer.status == 200) == (method in ("GET", "HEAD"))


@pytest.mark.parametrize("method", ["PUT", "POST", "GET"])
def test_a_megabyte_of_anything(served: Served, method: str) -> None:
    """A body of garbage is read to its end, and leaves no trace."""
    garbage = bytes(range(256)) * 2**12
    answer = ask(served.site, method, "/v2/", body=garbage)
    assert answer.status == (200 if method == "GET" else 405)


@settings(max_examples=200)
@given(chunks=st.lists(st.binary(max_size=200), max_size=4))
@example([b"GET /v2/ HTTP/1.1\r\nHost:", b" x\r\n\r\nGARBAGE\r\n\r\n"])
def test_any_bytes(served: Served, chunks: list[bytes]) -> None:
    """Whatever bytes are sent, nothing comes back but whole answers."""
    connection = Connection.to(served.site)
    for chunk in chunks:
        connection.send(chunk)
    if chunks and b"".join(chunks).startswith(b"\x16"):
        return
    for answer in connection.answers():
        answer.check()
    connection.hang_up()


def test_still_there(served: Served) -> None:
    """After all that the registry serves its image."""
    served.pull("packages/hello")
