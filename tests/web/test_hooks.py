"""Tests for `forgereg.web.hooks`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.server import Site

from forgereg.flow.push import Push
from forgereg.oci.errors import ShuttingDown
from forgereg.web.hooks import MAX_BODY, Hooks, is_signed
from tests import client
from tests.client import Answer

PATH = "/-/hooks/push"
SECRET = "geheim, grün"
SIGNING_TOKEN = "whsec_" + base64.b64encode(b"k" * 32).decode()
PAYLOAD = {
    "ref": "refs/heads/main",
    "repository": {"clone_url": "https://forge.example/acme/café.git"},
}
BODY = json.dumps(PAYLOAD, ensure_ascii=False).encode()
PUSH = Push(frozenset({"forge.example/acme/café"}), "refs/heads/main", None)


def sha256(body: bytes, key: bytes = SECRET.encode()) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def github(body: bytes) -> tuple[str, str]:
    return "X-Hub-Signature-256", f"sha256={sha256(body)}"


def signed(body: bytes, key: bytes = b"k" * 32, first: str = "") -> Any:
    """Sign as GitLab does with a signing token."""
    digest = hmac.digest(key, b"msg_1.1674087231." + body, "sha256")
    return [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1674087231"),
        ("webhook-signature", f"{first}v1,{base64.b64encode(digest).decode()}"),
    ]


@define
class Forge:
    """A forge that tells a registry of pushes, and the registry that hears them."""

    heard: list[Push] = field(factory=list)
    error: Exception | None = None
    hooks: Hooks = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hooks = Hooks(SECRET, self._pushed, lambda: "f00")

    async def _pushed(self, push: Push) -> list[str]:
        if self.error is not None:
            raise self.error
        self.heard.append(push)
        return ["team-a"]

    def ask(
        self,
        *headers: tuple[str, str],
        body: bytes = BODY,
        method: str = "POST",
        path: str = PATH,
    ) -> Answer:
        return client.ask(self.site(), method, path, headers, body)

    def site(self) -> Site:
        site = Site(self.hooks.app.resource())
        site.protocol = HTTPChannel  # type: ignore[assignment, method-assign]
        return site


@pytest.fixture
def forge() -> Forge:
    return Forge()


def latin(text: str) -> str:
    """Write a header so that its bytes are those of UTF-8."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    "headers",
    [
        [github(BODY)],
        [github(BODY), ("X-GitHub-Event", "push")],
        [("X-Forgejo-Signature", sha256(BODY)), ("X-Forgejo-Event", "push")],
        [("X-Gitea-Signature", sha256(BODY)), ("X-Gitea-Event", "push")],
        [("X-Gitlab-Token", latin(SECRET)), ("X-Gitlab-Event", "Push Hook")],
        [("X-Gitlab-Token", latin(SECRET)), ("X-Gitlab-Event", "Tag Push Hook")],
        [*signed(BODY, SECRET.encode()), ("X-Gitlab-Event", "Push Hook")],
    ],
)
def test_push(forge: Forge, headers: list[tuple[str, str]]) -> None:
    """A push that any of the forges signed is heard, and answered with the flakes."""
    answer = forge.ask(*headers)
    assert (answer.status, answer.json) == (202, {"flakes": ["team-a"]})
    assert answer["Content-Type"] == "application/json"
    assert forge.heard == [PUSH]


@pytest.mark.parametrize("first", ["", "v1,b2xk ", "v2,xyz "])
def test_signing_token(forge: Forge, first: str) -> None:
    """GitLab's signing token works as it is, also while it is being replaced."""
    forge.hooks.secret = SIGNING_TOKEN
    assert forge.ask(*signed(BODY, first=first)).status == 202


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-Hub-Signature-256", sha256(BODY))],
        [("X-Hub-Signature-256", "sha256=" + sha256(BODY + b" "))],
        [("X-Hub-Signature-256", "sha256=")],
        [("X-Hub-Signature-256", "\xff")],
        [("X-Hub-Signature", "sha1=" + hmac.new(b"", BODY, "sha1").hexdigest())],
        [("X-Forgejo-Signature", sha256(BODY, b""))],
        [("X-Gitea-Signature", "")],
        [("X-Gitlab-Token", "")],
        [("X-Gitlab-Token", latin(SECRET) + "x")],
        signed(BODY),
        signed(BODY, SECRET.encode())[1:],
        [*signed(BODY, SECRET.encode())[:2], ("webhook-signature", "v1,")],
        [("Authorization", f"Bearer {latin(SECRET)}")],
    ],
)
def test_not_signed(forge: Forge, headers: list[tuple[str, str]]) -> None:
    """Who does not know the secret is refused before what he sent is read."""
    answer = forge.ask(*headers)
    assert answer.status == 403
    code, message = answer.error
    assert code == "DENIED" and "FORGE_HOOK_SECRET_FILE" in message
    assert forge.ask(*headers, body=b"{").status == 403
    assert not forge.heard


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!"])
def test_signing_token_without_key(secret: str) -> None:
    """A signing token that was cut short does not let everyone sign."""
    headers = Headers()
    for name, value in signed(BODY, b""):
        headers.addRawHeader(name, value)
    assert not is_signed(secret, headers, BODY)


@given(value=st.binary().filter(lambda b: not {0, 10, 13} & set(b)))
def test_any_signature(value: bytes) -> None:
    """No header, whatever is in it, passes for a signature or breaks anything."""
    names = ("x-hub-signature-256", "x-gitea-signature", "x-gitlab-token")
    for name in (*names, "webhook-id", "webhook-timestamp", "webhook-signature"):
        headers = Headers({b"webhook-id": [b"1"], b"webhook-timestamp": [b"2"]})
        headers.setRawHeaders(name.encode(), [value])
        assert not is_signed(SECRET, headers, BODY)


def test_form(forge: Forge) -> None:
    """A webhook of GitHub whose content type was left as a form is heard, too."""
    body = urlencode({"payload": BODY.decode()}).encode()
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    assert forge.ask(github(body), kind, body=body).status == 202
    assert forge.heard == [PUSH]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000, b"payload=", b"payload=%7B",
     b"payload=\xff", b"payload=1" + b"&a=1" * 20],
)  # fmt: skip
def test_not_json(forge: Forge, body: bytes) -> None:
    """What is signed and no JSON is refused with a word, not with a traceback."""
    answer = forge.ask(github(body), body=body)
    assert answer.status == 400
    assert answer.error == ("UNSUPPORTED", "the body is not JSON")


def test_no_repository(forge: Forge) -> None:
    """What is JSON and no push is refused with what a push looks like."""
    answer = forge.ask(github(b"[]"), body=b"[]")
    assert answer.status == 400 and "clone_url" in answer.error[1]


@pytest.mark.parametrize(
    ("event", "body"),
    [
        (("X-GitHub-Event", "ping"), b'{"zen": "Design for failure."}'),
        (("X-GitHub-Event", "issues"), BODY),
        (("X-Gitea-Event", "create"), BODY),
        (("X-Gitlab-Event", "Merge Request Hook"), BODY),
        (("X-Gitlab-Event", "System Hook"), b'{"event_name": "user_create"}'),
        (("X-Gitlab-Event", "System Hook"), b'{"event_name": []}'),
        (("X-Gitlab-Event", "System Hook"), b"[]"),
    ],
)
def test_other_events(forge: Forge, event: tuple[str, str], body: bytes) -> None:
    """A ping, and whatever else a forge tells, is well and changes nothing."""
    answer = forge.ask(github(body), event, body=body)
    assert (answer.status, answer.json) == (200, {"flakes": []})
    assert not forge.heard


def test_system_hook(forge: Forge) -> None:
    """One webhook for a whole GitLab tells of pushes, too."""
    body = json.dumps({**PAYLOAD, "event_name": "push"}).encode()
    forge.ask(github(body), ("X-Gitlab-Event", "System Hook"), body=body)
    assert forge.heard == [PUSH]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_methods(forge: Forge, method: str) -> None:
    """Whoever looks at a webhook with a browser is told how it is used."""
    answer = forge.ask(body=b"", method=method)
    assert (answer.status, answer["Allow"]) == (405, "POST")
    answer.check()


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("secret", [None, ""])
def test_no_secret(forge: Forge, secret: str | None, method: str) -> None:
    """Without a secret there are no webhooks, whatever they are signed with."""
    forge.hooks.secret = secret
    body = BODY if method == "POST" else b""
    empty = ("X-Hub-Signature-256", "sha256=" + sha256(body, b""))
    answer = forge.ask(empty, body=body, method=method)
    assert answer.status == 404
    answer.check()


def test_size(forge: Forge) -> None:
    """A push may be large, but not endless."""
    body = BODY.ljust(MAX_BODY)
    assert forge.ask(github(body), body=body).status == 202
    body += b" "
    answer = forge.ask(github(body), body=body)
    assert answer.status == 413 and str(MAX_BODY) in answer.error[1]


def test_elsewhere(forge: Forge) -> None:
    """Beside the webhook there is nothing, and not in HTML either."""
    answer = forge.ask(path="/-/hooks/pull")
    assert answer.status == 404
    answer.check()


def test_refused_later(forge: Forge) -> None:
    """What cannot be done now is told as everything else is."""
    forge.error = ShuttingDown("the registry is stopping")
    answer = forge.ask(github(BODY))
    assert answer.status == 503
    assert answer.error == ("UNKNOWN", "the registry is stopping")


def test_bug(forge: Forge, logged_failures: list[LogEvent]) -> None:
    """A bug is told by a number that is in the log, and by nothing else."""
    forge.error = KeyError("inside")
    answer = forge.ask(github(BODY))
    assert answer.status == 500
    assert "incident f00" in answer.error[1] and "inside" not in answer.error[1]
    (event,) = logged_failures
    assert event["incident"] == "f00"
    logged_failures.clear()


def test_secrecy(forge: Forge) -> None:
    """The secret is in no log, even if the webhooks are."""
    assert SECRET not in repr(forge.hooks)
