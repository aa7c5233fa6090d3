"""
Show a forge's access token to nix and git, and to nobody else.

A token goes from a file into the environment of child processes: never into their
arguments, a flake ref, the Nix store, a log.

Source: nix.conf(5), access-tokens; git-config(1), http.extraHeader and
GIT_CONFIG_COUNT (git 2.31).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

from attrs import field, frozen

from forgereg.nix import refs

#: How long a token may be, in bytes.
MAX_BYTES = 8192

#: A line of nix's configuration ends at ``#``; whatever else there is, it is one word.
_TOKEN = re.compile(r"[!-\"$-~]+")
#: How nix has it said what kind of token GitLab's is.
_GITLAB = ("PAT:", "OAuth2:")


@frozen(repr=False)
class Token:
    """
    What a forge knows the registry by; it is shown to nobody by accident.

    :raises ValueError: nix's configuration cannot hold it.
    """

    _text: str = field()

    def __attrs_post_init__(self) -> None:
        if not _TOKEN.fullmatch(self._text):
            raise ValueError("a token is one word of ASCII characters without #")

    def __repr__(self) -> str:
        return "***"

    def reveal(self) -> str:
        """Give the token itself."""
        return self._text

    @property
    def secret(self) -> str:
        """The token without what says its kind."""
        for prefix in _GITLAB:
            if self._text.startswith(prefix):
                return self._text.removeprefix(prefix)
        return self._text


def read_token(path: str) -> Token:
    """
    Read a token's file. Blocking.

    It holds a token; for GitLab perhaps with ``PAT:`` or ``OAuth2:`` before it, which
    otherwise is a ``PAT:``; where a forge asks for a name as well, ``name:token``.

    :raises ValueError: the file cannot be read, or holds no token; names the file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as e:
        raise ValueError(f"the token file {path} cannot be read: {e.strerror}") from e
    text = content.decode("ascii", "replace").strip()
    if not text:
        raise ValueError(f"the token file {path} is empty")
    if len(content) > MAX_BYTES or not _TOKEN.fullmatch(text):
        raise ValueError(
            f"the token file {path} must hold one token, a word of up to {MAX_BYTES}"
            " ASCII characters without #"
        )
    return Token(text)


def environment(
    flake: str, token: Token | None, env: Mapping[str, str]
) -> dict[str, str]:
    """
    Give the environment in which nix and git can fetch a private flake.

    Tokens of the operator's own nix.conf are kept. One for the same host wins over this
    one (2.8), unless nix knows tokens of single repositories (newer versions).

    :param env: what there is of it; ``NIX_CONFIG`` and ``GIT_CONFIG_COUNT`` are
        continued.
    :returns: the same where there is no token, or the flake is not fetched over HTTP.
    """
    origin = refs.origin(flake)
    if token is None or origin is None:
        return dict(env)
    host = origin.partition("://")[2]
    scheme, _, rest = flake.partition(":")
    shown = token.reveal()
    if scheme == "gitlab" and not shown.startswith(_GITLAB):
        shown = f"PAT:{shown}"
    keys = [host]
    if scheme in ("github", "gitlab", "sourcehut"):
        keys.append("/".join([host, *rest.partition("?")[0].split("/")[:2]]))
    line = " ".join(["extra-access-tokens =", *(f"{key}={shown}" for key in keys)])
    before = [env["NIX_CONFIG"]] if env.get("NIX_CONFIG") else []
    count = env.get("GIT_CONFIG_COUNT", "")
    n = int(count) if count.isdecimal() else 0
    return {
        **env,
        "NIX_CONFIG": "\n".join([*before, line]),
        "GIT_CONFIG_COUNT": str(n + 1),
        f"GIT_CONFIG_KEY_{n}": f"http.{origin}/.extraHeader",
        f"GIT_CONFIG_VALUE_{n}": f"Authorization: Basic {_basic(token)}",
    }


def redact(text: str, token: Token | None) -> str:
    """Hide a token in a text, in each form in which it leaves the registry."""
    if token is None:
        return text
    password = token.secret.partition(":")[2] or token.secret
    forms = {token.reveal(), token.secret, password, *_basics(token)}
    forms |= {quote(form, safe="") for form in forms}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def _basics(token: Token) -> list[str]:
    """
    Write user and password as HTTP has them.

    Forges look at the password alone, but for a few: an installation of an application
    on GitHub is ``x-access-token``, an OAuth token on GitLab ``oauth2``.
    Source: the forges' own manuals, on git over HTTPS.
    """
    if ":" in token.secret:
        return [_encoded(token.secret)]
    users = ("x-access-token", "oauth2")
    return [_encoded(f"{user}:{token.secret}") for user in users]


def _basic(token: Token) -> str:
    has_kind = token.secret != token.reveal()
    return _basics(token)[-1 if has_kind else 0]


def _encoded(text: str) -> str:
    return b64encode(text.encode("ascii")).decode("ascii")
