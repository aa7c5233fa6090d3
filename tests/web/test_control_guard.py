"""Tests for `forgereg.web.control` and `guard` as they are put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client import Answer, Connection, Headers, ask
from tests.registry import ANY_FORM, Served, serving

LATEST = "/v2/packages/hello/manifests/latest"


def send(
    served: Served,
    path: str,
    address: str,
    headers: Headers = (),
    body: bytes = b"",
    host: str = "localhost",
) -> Answer:
    """POST from an address."""
    return ask(served.site, "POST", path, headers, body, address, host)


def begun(served: Served) -> tuple[Connection, str]:
    """Begin a build; give who waits for it, and the path of the build."""
    served.nix.pause()
    client = served.begin(LATEST, ANY_FORM)
    served.nix.step()
    served.nix.step()
    (build,) = served.get("/-/api/builds").json["builds"]
    return client, f"/-/api/builds/{build['id']}"


@pytest.mark.parametrize(
    ("address", "headers", "host"),
    [
        ("192.0.2.1", (), "localhost"),
        ("192.0.2.1", [("X-Forwarded-For", "127.0.0.1")], "localhost"),
        ("192.0.2.1", [("Authorization", "Bearer x")], "localhost"),
        ("127.0.0.1", [("Authorization", "Bearer x")], "localhost"),
        ("127.0.0.1", [("X-Forwarded-For", "192.0.2.1")], "localhost"),
        ("127.0.0.1", [("Origin", "http://evil.test")], "localhost"),
        ("127.0.0.1", (), "evil.test"),
    ],
)
def test_who_may_not(served: Served, address: str, headers: Headers, host: str) -> None:
    """Nobody else ends, starts or sweeps anything, and the build goes on."""
    client, build = begun(served)
    for path, body in (
        (f"{build}/cancel", b""),
        (f"{build}/retry", b""),
        ("/-/api/builds", b'{"image": "packages/hello"}'),
        ("/-/api/sweep", b'{"dry_run": false}'),
    ):
        answer = send(served, path, address, headers, body, host)
        assert (answer.status, answer.error[0]) == (403, "DENIED")
    served.nix.finish()
    assert client.answer().status == 200


def test_this_machine_may(served: Served) -> None:
    """Who is on this machine may end a build; all that wait for it read so."""
    client, build = begun(served)
    assert send(served, f"{build}/cancel", "127.0.0.1").status == 200
    answer = client.answer()
    assert answer.status == 422 and "cancelled" in answer.reason
    assert served.get(build).json["state"] == "cancelled"
    assert send(served, f"{build}/cancel", "127.0.0.1").status == 409
    served.nix.finish()


def test_token(tmp_path: Path) -> None:
    """Who shows the token may, from anywhere; and no answer has the token in it."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    with serving(tmp_path, admin_token_file=str(token)) as served:
        client, build = begun(served)
        wrong = send(served, f"{build}/cancel", "192.0.2.1", [("Authorization", "x")])
        assert wrong.status == 403 and b"secret" not in wrong.body
        shown = [("Authorization", "Bearer secret")]
        assert send(served, f"{build}/cancel", "192.0.2.1", shown).status == 200
        assert client.answer().status == 422
        served.nix.finish()


def test_reading_is_for_all(served: Served) -> None:
    """Anyone sees how builds stand, and whether they themselves may change them."""
    _, build = begun(served)
    for address in ("192.0.2.1", "127.0.0.1"):
        assert ask(served.site, "GET", build, address=address).status == 200
    assert served.get("/-/api/builds").json["may_change"] is False
    served.nix.finish()


def test_head(served: Served) -> None:
    """HEAD tells of every path what GET does, but for the body."""
    _, build = begun(served)
    served.nix.finish()
    paths = ["/-/api/builds", build, f"{build}/log", "/-/api/openapi.json", "/-/api/x"]
    for path in [*paths, "/-/api/builds/x", "/-/hooks/push", "/-/x", "/-/"]:
        got, headed = served.get(path), served.head(path)
        assert (got.status, got.reason) == (headed.status, headed.reason), path
        assert got["Content-Length"] == headed["Content-Length"] is not None
        assert headed.body == b""
