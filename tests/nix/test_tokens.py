"""Tests for `forgereg.nix.tokens`."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from string import ascii_letters, digits

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from forgereg.nix.tokens import MAX_BYTES, Token, environment, read_token, redact

SECRET = "ghp_0123456789"


@frozen
class _Holder:
    token: Token


def test_a_token_is_not_shown() -> None:
    """A token that gets into a log or a traceback is not readable there."""
    token = Token(SECRET)
    shown = [repr(token), str(token), f"{token}", f"{token!r:>9}", repr(_Holder(token))]
    assert SECRET not in "".join(shown)
    assert str(token) == "***"
    assert token.reveal() == SECRET


def test_reading_a_token(tmp_path: Path) -> None:
    """A token is read from its file, whatever white space an editor left there."""
    file = tmp_path / "token"
    file.write_text(f" {SECRET}\r\n\n")
    assert read_token(str(file)) == Token(SECRET)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b"two words",
        b"secret\nsandbox = false",
        b"secret#x",
        "sécret".encode(),
        b"\xffsecret",
        b"secret\0",
        b"secret" * MAX_BYTES,
    ],
)
def test_a_file_that_holds_no_token(tmp_path: Path, content: bytes) -> None:
    """What is no token is refused by its file's name, and not repeated."""
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=str(file)) as caught:
        read_token(str(file))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A token's file that is not there is named, with what is wrong with it."""
    file = str(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read: [A-Z]") as caught:
        read_token(file)
    assert file in str(caught.value)


@pytest.mark.parametrize("text", ["a\nsandbox = false", "a b", "", "a#b"])
def test_a_token_cannot_configure_nix(text: str) -> None:
    """What is not one word does not get into nix's configuration."""
    with pytest.raises(ValueError, match="one word"):
        Token(text)


@pytest.mark.parametrize(
    ("flake", "text", "nix", "git", "basic"),
    [
        (
            "github:Acme/forge/main?dir=x", "S",
            "github.com=S github.com/Acme/forge=S",
            "https://github.com/", "x-access-token:S",
        ),
        (
            "github:a/b?host=ghe.acme.org", "S",
            "ghe.acme.org=S ghe.acme.org/a/b=S",
            "https://ghe.acme.org/", "x-access-token:S",
        ),
        (
            "gitlab:a%2Fb/c", "S", "gitlab.com=PAT:S gitlab.com/a%2Fb/c=PAT:S",
            "https://gitlab.com/", "x-access-token:S",
        ),
        (
            "gitlab:a/b", "OAuth2:S", "gitlab.com=OAuth2:S gitlab.com/a/b=OAuth2:S",
            "https://gitlab.com/", "oauth2:S",
        ),
        (
            "git+https://me@h.org:8443/a", "bot:S", "h.org:8443=bot:S",
            "https://h.org:8443/", "bot:S",
        ),
        (
            "git+http://localhost:81/a", "S", "localhost:81=S",
            "http://localhost:81/", "x-access-token:S",
        ),
    ],
)  # fmt: skip
def test_who_is_shown_a_token(
    flake: str, text: str, nix: str, git: str, basic: str
) -> None:
    """Nix and git show a token to the flake's own host, each in its own way."""
    env = environment(flake, Token(text), {})
    assert env.keys() == {
        "NIX_CONFIG", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0",
    }  # fmt: skip
    assert env["NIX_CONFIG"] == f"extra-access-tokens = {nix}"
    assert env["GIT_CONFIG_KEY_0"] == f"http.{git}.extraHeader"
    word = env["GIT_CONFIG_VALUE_0"].removeprefix("Authorization: Basic ")
    assert b64decode(word).decode() == basic


def test_the_operators_own_configuration_remains() -> None:
    """What else the operator told nix and git remains."""
    before = {
        "HOME": "/home/x",
        "NIX_CONFIG": "substituters =",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "a.b",
        "GIT_CONFIG_VALUE_0": "c",
    }
    env = environment("github:a/b", Token(SECRET), before)
    assert env["NIX_CONFIG"].splitlines()[0] == "substituters ="
    assert env["GIT_CONFIG_COUNT"] == "2"
    assert "GIT_CONFIG_KEY_1" in env
    changed = {"NIX_CONFIG", "GIT_CONFIG_COUNT"}
    assert {k: env[k] for k in before if k not in changed} == {
        k: before[k] for k in before if k not in changed
    }


@pytest.mark.parametrize("flake", ["path:/x", "git+file:///x", "git+ssh://git@h/x"])
def test_nobody_is_shown_a_token_who_asks_for_none(flake: str) -> None:
    """A flake that is not fetched over HTTP changes nothing."""
    env = {"HOME": "/home/x"}
    assert environment(flake, Token(SECRET), env) == env
    assert environment("github:a/b", None, env) == env


@pytest.mark.parametrize("text", [SECRET, f"PAT:{SECRET}", f"bot:{SECRET}", "a+/b=c"])
def test_a_token_is_hidden_in_what_is_said(text: str) -> None:
    """What nix and git say can be shown, even if they said the token."""
    token = Token(text)
    env = environment("gitlab:a/b", token, {})
    said = redact(" ".join([*env.values(), text, "fetching"]), token)
    assert token.secret not in said
    assert b64encode(token.secret.encode()).decode() not in said
    assert env["GIT_CONFIG_VALUE_0"].split()[-1] not in said
    assert said.endswith("fetching")


def test_without_a_token_nothing_is_hidden() -> None:
    """A text is shown as it is where there is no token."""
    assert redact("as it is", None) == "as it is"


@given(st.text(st.sampled_from(ascii_letters + digits + "%+/=-_.~"), min_size=9))
def test_any_token_is_hidden(text: str) -> None:
    """Whatever a token is made of, it is not in what is shown."""
    assert text not in redact(f"error: {text} {text}.", Token(text))
