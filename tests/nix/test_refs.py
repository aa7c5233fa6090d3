"""Tests for `forgereg.nix.refs`."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.nix.refs import (
    Found,
    Refs,
    allowed,
    at_revision,
    commit_url,
    content_of,
    find,
    is_revision,
    ls_remote,
    names,
    origin,
    parse_refs,
    remote_url,
    revision_of,
)
from forgereg.oci.reference import is_tag

SHA = "1d" * 20
OTHER = "2e" * 20
SHA256 = "3f" * 32

#: A flake ref, and its repository as git has it.
PLACES = [
    ("github:acme/forge", "https://github.com/acme/forge"),
    ("github:acme/forge/v1", "https://github.com/acme/forge"),
    ("github:acme/forge/a/b?dir=sub", "https://github.com/acme/forge"),
    ("github:acme/.github", "https://github.com/acme/.github"),
    ("github:acme/forge?host=ghe.acme.org", "https://ghe.acme.org/acme/forge"),
    ("gitlab:acme/forge", "https://gitlab.com/acme/forge.git"),
    ("gitlab:acme%2Ftools/forge/v1", "https://gitlab.com/acme/tools/forge.git"),
    ("gitlab:a/b?host=git.acme.org", "https://git.acme.org/a/b.git"),
    ("sourcehut:~acme/forge", "https://git.sr.ht/~acme/forge"),
    ("git+https://h.org/a/b.git?ref=x&dir=d", "https://h.org/a/b.git"),
    ("git+http://h.org:81/a", "http://h.org:81/a"),
    ("git+ssh://git@h.org/a/b?submodules=1", "ssh://git@h.org/a/b"),
    ("git+file:///srv/a%20b?rev=" + SHA, "file:///srv/a%20b"),
    ("git+file:/srv/forge", "file:///srv/forge"),
    ("git://h.org/a", "git://h.org/a"),
]

#: What is in no git repository, or makes no sense.
NOWHERE = [
    "",
    "nixpkgs",
    "nixpkgs/nixos-unstable",
    "path:/srv/forge",
    "/srv/forge",
    ".",
    "https://h.org/forge.tar.gz",
    "tarball+https://h.org/forge.tar.gz",
    "hg+https://h.org/forge",
    "github:acme",
    "github:acme/",
    "github:../forge",
    "github:acme%2F..%2F/forge",
    "github:acme/forge?host=-oProxyCommand",
    "github:acme/forge?host=a/b",
    "github:acme/forge?host=h.org:8443",
    "github:acme/for\nge",
    "github:acme/forge#hello",
    "git+https://",
    "git+https://h.org",
    "git+https://h.org:port/a",
    "git+https://[h.org/a",
    "git+ssh://-oProxyCommand=id/a",
    "git+file://host/srv",
    "git+file:srv",
    "--upload-pack=id",
    "ext::sh -c id",
]


@pytest.mark.parametrize(("flake", "url"), PLACES)
def test_where_git_finds_a_flake(flake: str, url: str) -> None:
    """The repository of a flake is found, whatever else its ref says."""
    assert remote_url(flake) == url


@pytest.mark.parametrize("flake", NOWHERE)
def test_a_flake_without_a_repository(flake: str) -> None:
    """A flake that is in no git repository has neither tags nor revisions."""
    assert remote_url(flake) is None
    assert origin(flake) is None
    with pytest.raises(ValueError):
        at_revision(flake, SHA, None)


@given(st.text() | st.builds("git+{}".format, st.text()))
def test_any_text_may_be_called_a_flake(text: str) -> None:
    """Nothing that is called a flake breaks anything, or becomes an option of git."""
    url = remote_url(text)
    assert url is None or "://" in url


@pytest.mark.parametrize(
    ("flake", "ref", "expected"),
    [
        ("github:a/b", "refs/tags/v1", f"github:a/b/{SHA}"),
        ("github:a/b/main?dir=c", None, f"github:a/b/{SHA}?dir=c"),
        ("github:a/b?ref=x/y&host=h.org", None, f"github:a/b/{SHA}?host=h.org"),
        ("gitlab:a%2Fb/c", "refs/heads/main", f"gitlab:a%2Fb/c/{SHA}"),
        ("sourcehut:~a/b?rev=" + OTHER, None, f"sourcehut:~a/b/{SHA}"),
        (
            "git+https://h/a?dir=b+c&ref=x&submodules=1&narHash=sha256-x",
            "refs/tags/v1",
            f"git+https://h/a?dir=b+c&submodules=1&ref=refs/tags/v1&rev={SHA}",
        ),
        ("git+https://h/a?ref=x", None, f"git+https://h/a?ref=x&rev={SHA}"),
        ("git+ssh://git@h/a", None, f"git+ssh://git@h/a?ref=HEAD&rev={SHA}"),
        (
            "git+file:///a?rev=" + OTHER,
            "refs/heads/main",
            f"git+file:///a?ref=refs/heads/main&rev={SHA}",
        ),
    ],
)
def test_a_flake_at_a_revision(flake: str, ref: str | None, expected: str) -> None:
    """A flake is served as it was at a revision, by all versions of nix."""
    assert at_revision(flake, SHA, ref) == expected


@pytest.mark.parametrize(("flake", "url"), PLACES)
def test_another_revision_is_of_the_same_repository(flake: str, url: str) -> None:
    """A revision of a flake is looked for where the flake is, and nowhere else."""
    there = at_revision(flake, SHA, "refs/tags/v1")
    assert remote_url(there) == url
    assert at_revision(there, OTHER, None).count(OTHER) == 1
    assert SHA not in at_revision(there, OTHER, None)


def test_nothing_is_an_option_of_git() -> None:
    """Nothing that names a repository can be taken for an option of git."""
    argv = ls_remote("https://h/a")
    assert argv[0] == "git"
    assert argv[-2:] == ["--", "https://h/a"]


def test_reading_refs() -> None:
    """Tags mean commits, and what cannot be a tag of an image is left out."""
    out = f"""\
{SHA}\tHEAD
{SHA}\trefs/heads/main
{SHA}\trefs/heads/feature/x
{SHA256}\trefs/heads/large
{OTHER}\trefs/tags/v1
{SHA}\trefs/tags/v1^{{}}
{OTHER}\trefs/tags/light
{OTHER}\trefs/tags/.hidden
{OTHER}\trefs/tags/+plus
{OTHER}\trefs/tags/{"x" * 129}
{OTHER}\trefs/pull/1/head
1234567\trefs/tags/short
{OTHER.upper()}\trefs/tags/upper
warning: something
""".encode()
    assert parse_refs(out) == Refs(
        {"v1": SHA, "light": OTHER}, {"main": SHA, "large": SHA256}
    )


@given(
    st.binary()
    | st.lists(
        st.tuples(
            st.sampled_from([SHA, SHA256, "x", ""]),
            st.sampled_from(["\t", " ", "\trefs/tags/", "\trefs/heads/"]),
            st.text(max_size=9),
            st.sampled_from(["\n", "^{}\n", ""]),
        ).map("".join)
    ).map(lambda lines: "".join(lines).encode("utf-8", "surrogatepass"))
)
def test_whatever_git_prints(out: bytes) -> None:
    """Whatever a forge answers, only tags and full revisions come of it."""
    refs = parse_refs(out)
    for those in (refs.tags, refs.branches):
        assert all(map(is_tag, those))
        assert all(map(is_revision, those.values()))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (SHA, True),
        (SHA256, True),
        (SHA[:7], False),
        (SHA.upper(), False),
        (SHA + "\n", False),
        ("v1", False),
    ],
)
def test_what_is_a_revision(text: str, is_one: bool) -> None:
    """Only a full revision is one: a short one may mean another tomorrow."""
    assert is_revision(text) == is_one


@pytest.mark.parametrize(
    ("patterns", "tag", "branch", "rev"),
    [
        ([], False, False, False),
        (["*"], True, True, False),
        (["tag:*"], True, False, False),
        (["branch:*"], False, True, False),
        (["rev:*"], False, False, True),
        (["x", "tag:1*", "rev:1*"], True, False, True),
        (["1D*"], False, False, False),
        (["x"], False, False, False),
    ],
)
def test_what_patterns_allow(
    patterns: list[str], tag: bool, branch: bool, rev: bool
) -> None:
    """A pattern allows tags and branches; revisions must be asked for by name."""
    assert allowed(patterns, "tag", SHA) == tag
    assert allowed(patterns, "branch", SHA) == branch
    assert allowed(patterns, "rev", SHA) == rev


REFS = Refs(
    {"v1": SHA, "both": SHA, "latest": SHA, SHA: OTHER}, {"main": OTHER, "both": OTHER}
)


@pytest.mark.parametrize(
    ("patterns", "tag", "found"),
    [
        (["*"], "v1", Found(SHA, "refs/tags/v1")),
        (["*"], "main", Found(OTHER, "refs/heads/main")),
        (["*"], "both", Found(SHA, "refs/tags/both")),
        (["branch:*"], "both", Found(OTHER, "refs/heads/both")),
        (["*"], "latest", None),
        (["*"], "other", None),
        (["v*"], "main", None),
        ([], "v1", None),
        (["*"], SHA, None),
        (["rev:*"], SHA, Found(SHA, "refs/tags/v1")),
        (["rev:*"], SHA256, Found(SHA256, None)),
    ],
)
def test_what_a_tag_means(patterns: list[str], tag: str, found: Found | None) -> None:
    """A tag is a git tag, or else a branch, or a full revision, if it is allowed."""
    assert find(REFS, patterns, tag) == found


@pytest.mark.parametrize(
    ("patterns", "listed"),
    [
        (["*", "rev:*"], ["both", "main", "v1"]),
        (["tag:*"], ["both", "v1"]),
        ([], []),
    ],
)
def test_which_tags_are_listed(patterns: list[str], listed: list[str]) -> None:
    """The list of tags has what can be pulled, and each once."""
    assert names(REFS, patterns) == listed


@pytest.mark.parametrize(
    ("locked", "page"),
    [
        (f"github:acme/forge/{SHA}", "https://github.com/acme/forge/commit/"),
        (
            f"github:acme/forge/{SHA}?host=ghe.acme.org&narHash=sha256-x",
            "https://ghe.acme.org/acme/forge/commit/",
        ),
        (
            f"gitlab:acme%2Ftools/forge/{SHA}",
            "https://gitlab.com/acme/tools/forge/-/commit/",
        ),
        (f"sourcehut:~acme/forge/{SHA}", "https://git.sr.ht/~acme/forge/commit/"),
        (
            f"git+https://codeberg.org/a/b.git?ref=refs/heads/main&rev={SHA}",
            "https://codeberg.org/a/b/commit/",
        ),
        (
            f"git+https://me:s3cret@gitlab.acme.org:8443/a/b?rev={SHA}",
            "https://gitlab.acme.org:8443/a/b/-/commit/",
        ),
        (
            f"git+ssh://git@forgejo.acme.org:2222/a/b?rev={SHA}",
            "https://forgejo.acme.org/a/b/commit/",
        ),
    ],
)
def test_where_a_commit_can_be_read(locked: str, page: str) -> None:
    """The commit of a flake on a known forge has an address, without secrets."""
    assert commit_url(locked) == page + SHA
    assert revision_of(locked) == SHA


@pytest.mark.parametrize(
    "locked",
    [
        "github:acme/forge/main",
        "github:acme/forge",
        f"github:acme/../{SHA}",
        f'github:acme/"><script>/{SHA}',
        f"git+https://git.acme.org/a/b?rev={SHA}",
        f"git+http://github.com/a/b?rev={SHA}",
        f"git+https://github.com/a/%2e%2e/b?rev={SHA}",
        f"git+https://github.com/a?rev={SHA}",
        f"git+file:///srv/github.com/a/b?rev={SHA}",
        "path:/srv/forge?narHash=sha256-x",
        "git+file:/srv/forge#sha256-x",
        "",
    ],
)
def test_where_no_commit_can_be_read(locked: str) -> None:
    """What is on no forge that is known, or makes no sense, has no address."""
    assert commit_url(locked) is None


@pytest.mark.parametrize(
    ("locked", "content"),
    [
        ("path:/srv/forge?lastModified=1&narHash=sha256-a%2Bb%3D", "sha256-a+b="),
        ("git+file:/srv/forge#sha256-x", "sha256-x"),
        (f"github:acme/forge/{SHA}", ""),
        ("\n", ""),
    ],
)
def test_content_of_a_flake(locked: str, content: str) -> None:
    """A flake that is no commit is told from others by the hash of its content."""
    assert content_of(locked) == content


@given(st.text())
def test_whatever_a_flake_ref_is(text: str) -> None:
    """No flake ref leads to an address that a browser could take for something else."""
    for locked in (text, f"github:{text}/{SHA}", f"git+https://{text}?rev={SHA}"):
        page = commit_url(locked)
        assert page is None or re.fullmatch(r"https://[A-Za-z0-9._~:/-]+", page)
