"""Tests for `forgereg.web.login`, `session`, and what the guard makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from forgereg.web.login import own_path
from forgereg.web.session import LASTS_SECONDS
from tests.client import HOST, Answer, Headers, ask
from tests.registry import ANY_FORM, Served, serving

TOKEN = "correct-horse"
LOGIN = "/-/login"
OWN = ("Origin", f"http://{HOST}")
TLS = [("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "192.0.2.1")]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Served]:
    """A registry that has a token, and a build that failed: ``id-1``."""
    (tmp_path / "token").write_text(TOKEN)
    with serving(tmp_path, admin_token_file=str(tmp_path / "token")) as served:
        served.nix.fail("build", "error: no compiler")
        served.get("/v2/packages/hello/manifests/latest", ANY_FORM)
        yield served


def log_in(
    served: Served,
    token: str = TOKEN,
    headers: Headers = (OWN,),
    next: str = "/-/builds/id-1",
    address: str = "192.0.2.1",
) -> Answer:
    """Send the form."""
    body = f"token={quote(token)}&next={quote(next, safe='')}".encode()
    return ask(served.site, "POST", LOGIN, headers, body, address)


def cookie_of(answer: Answer) -> tuple[str, str]:
    """Give the cookie back that was given, as a browser does."""
    given = answer["Set-Cookie"]
    assert given is not None
    return "Cookie", given.partition(";")[0]


def retry(served: Served, *headers: tuple[str, str], address: str = "192.0.2.1") -> int:
    """Press a button; give the status of the answer."""
    path = "/-/builds/id-1/retry"
    return ask(served.site, "POST", path, headers, address=address).status


def test_log_in(guarded: Served) -> None:
    """Who shows the token in a browser may change something from then on."""
    text = guarded.get("/-/builds/id-1").body.decode()
    assert 'href="/-/login?next=/-/builds/id-1"' in text and "Retry" not in text
    form = guarded.get("/-/login?next=/-/builds/id-1").body.decode()
    assert 'value="/-/builds/id-1"' in form and "not encrypted" in form
    answer = log_in(guarded)
    assert (answer.status, answer["Location"]) == (303, "/-/builds/id-1")
    given = answer["Set-Cookie"] or ""
    assert "HttpOnly" in given and "SameSite=strict" in given and "Path=/" in given
    assert "Secure" not in given and TOKEN not in given
    cookie = cookie_of(answer)
    text = guarded.get("/-/builds/id-1", [cookie]).body.decode()
    assert "Retry" in text and "Log out" in text
    assert retry(guarded, cookie, OWN) == 303
    ended = ask(guarded.site, "POST", f"{LOGIN}/end", [cookie, OWN], b"next=/")
    assert "Max-Age=0" in (ended["Set-Cookie"] or "") and ended["Location"] == "/"


@pytest.mark.parametrize(
    "path",
    ["/?q=x", "/-/images/packages/hello", "/-/builds", "/-/status", "/-/builds/x"],
)
def test_every_page_leads_there(guarded: Served, path: str) -> None:
    """Wherever somebody is, they can log in, and log out, and are there again."""
    guarded.get("/")
    text = guarded.get(path).body.decode()
    assert f'href="/-/login?next={quote(path)}"' in text and "Log out" not in text
    text = guarded.get(path, [cookie_of(log_in(guarded))]).body.decode()
    assert f'name="next" value="{path}"' in text and "Log in" not in text
    here = ask(guarded.site, "GET", path, (), b"", "127.0.0.1", "localhost")
    assert b"Log in" not in here.body


def test_over_tls(guarded: Served) -> None:
    """Behind TLS the cookie is for TLS alone, and for this host alone."""
    proxied = [*TLS, ("Origin", f"https://{HOST}")]
    answer = log_in(guarded, headers=proxied, address="127.0.0.1")
    given = answer["Set-Cookie"] or ""
    assert given.startswith("__Host-forge-session=") and "Secure" in given
    cookie = cookie_of(answer)
    assert retry(guarded, cookie, *proxied, address="127.0.0.1") == 303
    assert retry(guarded, cookie, OWN) == 403


@pytest.mark.parametrize(
    "headers",
    [
        [("Origin", "http://evil.test")],
        [("Origin", "null")],
        [("Sec-Fetch-Site", "cross-site"), OWN],
        [("Sec-Fetch-Site", "same-site"), OWN],
    ],
)
def test_another_site(guarded: Served, headers: Headers) -> None:
    """A page of another site neither logs anybody in, nor presses buttons."""
    assert log_in(guarded, headers=headers).status == 403
    cookie = cookie_of(log_in(guarded))
    assert retry(guarded, cookie, *headers) == 403
    assert retry(guarded, cookie, ("Sec-Fetch-Site", "same-origin")) == 303


def test_wrong_token(guarded: Served) -> None:
    """Who guesses has to wait after a few tries; others have not."""
    for _ in range(5):
        answer = log_in(guarded, "gu\u00e9ss")
        assert answer.status == 403 and answer["Set-Cookie"] is None
        assert b"not the token" in answer.body and TOKEN.encode() not in answer.body
    answer = log_in(guarded)
    assert (answer.status, answer["Retry-After"]) == (429, "60")
    assert log_in(guarded, address="192.0.2.2").status == 303
    guarded.clock.advance(61)
    assert log_in(guarded).status == 303


def test_forged_cookies(guarded: Served) -> None:
    """Only what the registry has signed, and not long ago, is a session."""
    name, cookie = cookie_of(log_in(guarded))
    for forged in (cookie[:-1], cookie + "x", "forge-session=", "forge-session=a.b.c"):
        assert retry(guarded, (name, forged), OWN) == 403
    guarded.clock.advance(LASTS_SECONDS - 1)
    assert retry(guarded, (name, cookie), OWN) == 303
    guarded.clock.advance(2)
    assert retry(guarded, (name, cookie), OWN) == 403


def test_new_token(guarded: Served, tmp_path: Path) -> None:
    """Another token ends every session; and so does none."""
    cookie = cookie_of(log_in(guarded))
    (tmp_path / "token").write_text("another")
    guarded.set()
    assert retry(guarded, cookie, OWN) == 403
    guarded.set(admin_token_file="")
    assert retry(guarded, cookie, OWN) == 403
    assert b"no token here" in guarded.get(LOGIN).body
    assert log_in(guarded, "").status == 200


@pytest.mark.parametrize(
    "body", [b"", b"token=", b"\xff", b"token=" + b"x" * 2**15, b"&&=&%00=%"]
)
def test_nonsense(guarded: Served, body: bytes) -> None:
    """What is no form of ours is refused with a page that says so."""
    answer = ask(guarded.site, "POST", LOGIN, [OWN], body)
    assert answer.status in (400, 403) and answer["Set-Cookie"] is None


@pytest.mark.parametrize(
    "path",
    ["//evil.test", "/\\evil.test", "http://evil.test", "", "x", "/\r\nx", "/a\\b"],
)
def test_where_to_go(path: str) -> None:
    """Nobody is sent to another site once they have logged in."""
    assert own_path(path) == "/-/builds"
    assert own_path("/-/builds/x?q=%2F") == "/-/builds/x?q=%2F"
