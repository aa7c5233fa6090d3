"""Tests for `forgereg.flow.push`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.flow.push import Push, parse_push, repository_of, repository_of_flake
from forgereg.oci.errors import RequestInvalid

REVISION = "bffeb74224043ba2feb48d137756c8a9331c449a"
TAG_OBJECT = "28e1879d029cb852e4844d9c718537df08844e03"

GITHUB = {
    "ref": "refs/heads/main",
    "before": TAG_OBJECT,
    "after": REVISION,
    "repository": {
        "full_name": "Acme/Forge",
        "html_url": "https://github.com/Acme/Forge",
        "url": "https://github.com/Acme/Forge",
        "git_url": "git://github.com/Acme/Forge.git",
        "ssh_url": "git@github.com:Acme/Forge.git",
        "clone_url": "https://github.com/Acme/Forge.git",
        "homepage": "https://github.com/other/thing",
    },
    "pusher": {"name": "me", "email": None},
    "head_commit": {"id": REVISION},
}
GITLAB = {
    "object_kind": "tag_push",
    "event_name": "tag_push",
    "after": TAG_OBJECT,
    "ref": "refs/tags/v1.0.0",
    "checkout_sha": REVISION,
    "project": {
        "web_url": "https://gitlab.example.com/group/sub/forge",
        "git_ssh_url": "ssh://git@gitlab.example.com:2222/group/sub/forge.git",
        "git_http_url": "https://gitlab.example.com/group/sub/forge.git",
        "avatar_url": None,
        "path_with_namespace": "group/sub/forge",
    },
    "repository": {"name": "forge", "url": "git@gitlab.example.com:x/y.git"},
}
FORGEJO = {
    "ref": "refs/heads/develop",
    "after": "0" * 40,
    "repository": {
        "html_url": "http://localhost:3000/acme/forge",
        "ssh_url": "forgejo@localhost:acme/forge.git",
        "clone_url": "http://localhost:3000/acme/forge.git",
    },
}

PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["repository", "project", "clone_url", "html_url", "ref", "after"]
            )
            | st.text(),
            inner,
        )
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("payload", "push"),
    [
        (
            GITHUB,
            Push(frozenset({"github.com/acme/forge"}), "refs/heads/main", REVISION),
        ),
        (
            GITLAB,
            Push(
                frozenset(
                    {
                        "gitlab.example.com/group/sub/forge",
                        "gitlab.example.com:2222/group/sub/forge",
                    }
                ),
                "refs/tags/v1.0.0",
                REVISION,
            ),
        ),
        (
            FORGEJO,
            Push(
                frozenset({"localhost:3000/acme/forge", "localhost/acme/forge"}),
                "refs/heads/develop",
                None,
            ),
        ),
        (
            {"repository": {"clone_url": "https://x.example/a/b"}, "ref": ["main"]},
            Push(frozenset({"x.example/a/b"}), None, None),
        ),
    ],
    ids=["github", "gitlab", "forgejo", "by hand"],
)
def test_pushes(payload: Any, push: Push) -> None:
    """Whatever the forge, a push says where to, to which ref, and what it is now."""
    assert parse_push(payload) == push


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "push",
        {},
        {"repository": None},
        {"repository": {"clone_url": 7}},
        {"repository": {"clone_url": "https://"}},
        {"repository": {"clone_url": "https://x/" + "a" * 2000}},
        {"repository": {"clone_url": "https://x/\ud800"}},
        {"repository": {"full_name": "acme/forge"}},
    ],
)
def test_no_repository(payload: Any) -> None:
    """A push that is about no repository is refused, with what one looks like."""
    with pytest.raises(RequestInvalid, match='{"repository": {"clone_url": "https://'):
        parse_push(payload)


@given(payload=PAYLOADS)
def test_anything(payload: Any) -> None:
    """Any JSON is a push, or is refused as a request."""
    with suppress(RequestInvalid):
        push = parse_push(payload)
        assert all(each == each.lower() for each in push.repositories)


@pytest.mark.parametrize(
    ("address", "repository"),
    [
        ("https://user:secret@Forge.Example:443/Acme/x.git/", "forge.example/acme/x"),
        ("http://forge.example:80/acme/x", "forge.example/acme/x"),
        ("ssh://git@forge.example:22/acme/x.git", "forge.example/acme/x"),
        ("ssh://git@forge.example:2222/acme/x", "forge.example:2222/acme/x"),
        ("git://forge.example/acme/x.git", "forge.example/acme/x"),
        ("git@forge.example:acme/x.git", "forge.example/acme/x"),
        ("forge.example:/acme/x.git", "forge.example/acme/x"),
        ("https://forge.example/acme/x?y#z", "forge.example/acme/x"),
        ("file:///srv/x", None),
        ("https://forge.example/", None),
        ("https://forge.example:x/acme/x", None),
        ("https://[::1/acme/x", None),
        ("acme/x", None),
        ("", None),
    ],
)
def test_repository(address: str, repository: str | None) -> None:
    """All addresses of one repository are the same, and none has a password."""
    assert repository_of(address) == repository


@given(address=st.text() | st.text().map("https://{}".format))
def test_any_address(address: str) -> None:
    """Any address is of a repository, or it is of none."""
    for read in (repository_of, repository_of_flake):
        found = read(address)
        assert found is None or "/" in found


@pytest.mark.parametrize(
    ("flake", "repository"),
    [
        ("github:Acme/Forge", "github.com/acme/forge"),
        ("github:acme/forge/main?dir=x", "github.com/acme/forge"),
        ("github:acme/forge?host=ghe.example", "ghe.example/acme/forge"),
        ("gitlab:group%2Fsub/forge", "gitlab.com/group/sub/forge"),
        ("sourcehut:~me/forge", "git.sr.ht/~me/forge"),
        ("git+https://forge.example/acme/x?ref=main", "forge.example/acme/x"),
        ("git+https://forge.example/acme/x.git", "forge.example/acme/x"),
        ("git+ssh://git@forge.example/acme/x.git", "forge.example/acme/x"),
        ("git+https://me:secret@Forge.Example:8443/x", "forge.example:8443/x"),
        ("git+ssh://git@forge.example:2222/x.git/", "forge.example:2222/x"),
        ("path:/srv/forge", None),
        ("/srv/forge", None),
        ("nixpkgs", None),
        ("github:", None),
        ("git+file:///srv/forge", None),
    ],
)
def test_flakes(flake: str, repository: str | None) -> None:
    """A flake is known by its repository, where it has one on a forge."""
    assert repository_of_flake(flake) == repository
