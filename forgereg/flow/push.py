"""
What a forge tells when somebody has pushed. Pure.

Source: "Webhook events and payloads" of GitHub, "Webhook events" of GitLab, "Webhooks"
of Forgejo and Gitea.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from forgereg.nix.refs import remote_url
from forgereg.oci.errors import RequestInvalid

#: Where a repository is, as each forge names it; in ``repository`` or, with GitLab,
#: in ``project``. A ``homepage`` is not here: with GitHub it is whatever its owner says.
_ADDRESSES = (
    "clone_url", "html_url", "ssh_url", "git_http_url", "git_ssh_url", "web_url",
)  # fmt: skip
_REVISION = re.compile(r"(?!0+\Z)(?:[0-9a-f]{40}|[0-9a-f]{64})")
_SCP = re.compile(r"(?:[^/@:]+@)?([^/@:]+):(?!//)(.+)")
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
#: Of an address or a ref, in characters.
_LONGEST = 1000


@frozen
class Push:
    """
    What was pushed.

    :ivar repositories: where to, as `repository_of` has it; one for each address.
    :ivar ref: such as ``refs/heads/main``.
    :ivar revision: what the ref names now; None where it is gone.
    """

    repositories: frozenset[str]
    ref: str | None
    revision: str | None


def parse_push(payload: object) -> Push:
    """
    Read what a forge sends.

    :param payload: any JSON.
    :raises RequestInvalid: it does not say which repository this is about.
    """
    told = payload if isinstance(payload, dict) else {}
    repositories = frozenset(filter(None, map(repository_of, _addresses(told))))
    if not repositories:
        raise RequestInvalid(
            "a push must be a JSON object that says where its repository is, as in"
            ' {"repository": {"clone_url": "https://…"}}'
        )
    # GitLab's "after" is, of an annotated tag, not the commit.
    revisions = (_text(told.get(key)) for key in ("checkout_sha", "after"))
    found = next(filter(_REVISION.fullmatch, revisions), None)
    return Push(repositories, _text(told.get("ref")) or None, found)


def repository_of(address: str) -> str | None:
    """
    Say which repository an address is of, whichever way it is written.

    :param address: for a browser, git or ssh.
    :returns: ``host/owner/repo`` in lower case, after the host a port that is unusual;
        None where that cannot be told.
    """
    scp = _SCP.fullmatch(address)
    return _of_url(f"ssh://{scp[1]}/{scp[2]}" if scp else address)


def repository_of_flake(flake: str) -> str | None:
    """
    Say in which repository a flake is, as `repository_of` does.

    :param flake: a flake ref.
    :returns: None where it is in none, or in one of this machine.
    """
    return _of_url(remote_url(flake) or "")


def _of_url(address: str) -> str | None:
    try:
        url = urlsplit(address.lower())
        host, port = url.hostname, url.port
    except ValueError:
        return None
    path = url.path.strip("/").removesuffix(".git").rstrip("/")
    if url.scheme not in _PORTS or not host or not path:
        return None
    if port is not None and port != _PORTS[url.scheme]:
        host = f"{host}:{port}"
    return f"{host}/{path}"


def _addresses(told: dict[str, Any]) -> Iterator[str]:
    for key in ("repository", "project"):
        place = told.get(key)
        if isinstance(place, dict):
            yield from (_text(place.get(name)) for name in _ADDRESSES)


def _text(value: object) -> str:
    """Give a value that can be shown and stored; an empty one for any other."""
    fits = isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()
    return str(value) if fits else ""
