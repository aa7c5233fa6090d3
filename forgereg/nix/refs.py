"""
Read a flake's git refs as tags of images: a flake ref, what git says, patterns. Pure.

Source: nix manual, "nix flake", Flake references; git-ls-remote(1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit

from attrs import field, frozen

from forgereg.oci.reference import is_tag

Kind = Literal["tag", "branch", "rev"]

#: The tag that means the flake as configured, and never a git ref.
LATEST = "latest"
#: How many lines of git's answer are read; what comes after them is not there.
MAX_REFS = 50_000

#: What begins a flake ref, and where its repositories are unless it says otherwise.
_FORGES = {"github": "github.com", "gitlab": "gitlab.com", "sourcehut": "git.sr.ht"}
_GIT = ("git", "git+http", "git+https", "git+ssh")
#: What hosts are called where a commit's page is ``…/commit/<revision>``.
_FORGE_LABELS = {"github", "gitlab", "codeberg", "forgejo", "gitea"}
#: Parameters that say which content is meant.
_WHICH = ("ref", "rev", "narHash", "lastModified", "revCount", "dirtyRev")

_REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: As nix has it: without a port.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_LINE = re.compile(rb"^([0-9a-f]+)\trefs/(tags|heads)/([^\s^]+)(\^\{\})?$", re.M)
_SEGMENT = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._~-]+")

#: Nobody is there to be asked, and what comes slower than 1 kB/s for 20 s will not
#: come. A helper for credentials that the operator set up is asked, as nix's git does.
#: Source: git-config(1).
_GIT_OPTIONS = (
    "protocol.ext.allow=never",
    "core.askPass=",
    "credential.interactive=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=20",
)


@frozen
class Refs:
    """
    The refs of a repository that can be tags of images.

    :ivar tags: from short names to full revisions, of commits where a tag has a text.
    :ivar branches: from short names to full revisions.
    """

    tags: Mapping[str, str] = field(factory=dict)
    branches: Mapping[str, str] = field(factory=dict)


@frozen
class Found:
    """
    What a tag of an image means.

    :ivar ref: a full name, such as ``refs/tags/v1``; None where no ref is known.
    """

    revision: str
    ref: str | None


def remote_url(flake: str) -> str | None:
    """
    Say where git finds the repository of a flake.

    :returns: a URL for ``git ls-remote``; None where a flake is in no git repository,
        or its ref makes no sense.
    """
    parts = _split(flake)
    if parts is None:
        return None
    if parts.scheme in _FORGES:
        host = _parameter(parts, "host") or _FORGES[parts.scheme]
        segments = [unquote(s) for s in parts.path.split("/")[:2]]
        path = "/".join(segments)
        if len(segments) < 2 or not _HOST.fullmatch(host):
            return None
        if not all(map(_SEGMENT.fullmatch, path.split("/"))):
            return None
        # GitLab redirects to this, and sourcehut has no such thing.
        suffix = ".git" if parts.scheme == "gitlab" else ""
        return f"https://{host}/{path}{suffix}"
    if parts.scheme == "git+file":
        is_local = parts.netloc == "" and parts.path.startswith("/")
        return f"file://{parts.path}" if is_local else None
    host = parts.hostname or "-"
    if parts.scheme not in _GIT or host.startswith("-") or not parts.path.strip("/"):
        return None
    return f"{parts.scheme.removeprefix('git+')}://{parts.netloc}{parts.path}"


def at_revision(flake: str, revision: str, ref: str | None) -> str:
    """
    Name the same flake at a revision; parameters such as ``dir`` and ``host`` remain.

    For git repositories nix 2.8 fetches one ref, and looks for the revision in what it
    leads to. Tried on it with ``git+file`` and ``git+http``, bare and not:

    * a bare or remote repository: ``rev`` alone means the ref ``master``, so it fails
      where the branch is ``main``; ``ref=refs/tags/v1&rev=`` works for tags with and
      without a text (with the commit's revision; ``ref=v1`` fails),
      ``ref=refs/heads/main&rev=`` for the tip and all before it, ``ref=HEAD&rev=`` for
      whatever the default branch leads to, and for nothing else. ``allRefs=1`` changes
      nothing.
    * a local one with a work tree: each of them works.

    Newer versions fetch the revision itself, whatever the ref.

    :param revision: full.
    :param ref: full name of one that leads to the revision; None where none is known:
        then it is the flake's own, or else the default branch.
    :raises ValueError: the flake has no revisions.
    """
    parts = _split(flake)
    if parts is None or remote_url(flake) is None:
        raise ValueError("not a flake in a git repository")
    words = parts.query.split("&") if parts.query else []
    query = [word for word in words if word.partition("=")[0] not in _WHICH]
    if parts.scheme in _FORGES:
        owner, name = parts.path.split("/")[:2]
        place = f"{parts.scheme}:{owner}/{name}/{revision}"
    else:
        place = f"{parts.scheme}://{parts.netloc}{parts.path}"
        which = quote(ref or _parameter(parts, "ref") or "HEAD")
        query += [f"ref={which}", f"rev={revision}"]
    return "?".join([place, "&".join(query)]) if query else place


def origin(flake: str) -> str | None:
    """
    Say where a flake is fetched over HTTP, and where a token may be shown.

    :returns: scheme and host, perhaps with a port, such as ``https://github.com``; None
        where it is fetched in another way.
    """
    parts = urlsplit(remote_url(flake) or "")
    if parts.scheme not in ("http", "https"):
        return None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def revision_of(locked: str) -> str | None:
    """Give the revision that a locked flake ref names, if it names one."""
    parts = _split(locked)
    if parts is None:
        return None
    named = _parameter(parts, "rev")
    if parts.scheme in _FORGES:
        named = (parts.path.split("/") + [""] * 3)[2]
    return named if is_revision(named) else None


def content_of(locked: str) -> str:
    """Give the hash of the content that a locked flake ref names, or nothing."""
    ref, _, content = locked.partition("#")
    parts = _split(ref)
    return content or (_parameter(parts, "narHash") if parts else "")


def commit_url(locked: str) -> str | None:
    """
    Say where people can read the commit of a locked flake ref.

    :returns: an address with https, and no secrets in it; None where there is no
        commit, or nobody knows how its forge calls the page.
    """
    revision, parts = revision_of(locked), _split(locked)
    place = urlsplit(remote_url(locked) or "")
    if revision is None or parts is None or place.scheme not in ("https", "ssh"):
        return None
    host, path = place.hostname or "", place.path.strip("/").removesuffix(".git")
    labels = set(host.split("."))
    is_forge = parts.scheme in _FORGES or host in _FORGES.values()
    segments = path.split("/")
    is_safe = _HOST.fullmatch(host) and all(map(_SEGMENT.fullmatch, segments))
    if not is_safe or not (is_forge or labels & _FORGE_LABELS) or len(segments) < 2:
        return None
    port = f":{place.port}" if place.port and place.scheme == "https" else ""
    is_gitlab = parts.scheme == "gitlab" or "gitlab" in labels
    page = "-/commit" if is_gitlab else "commit"
    return f"https://{host}{port}/{path}/{page}/{revision}"


def ls_remote(url: str) -> list[str]:
    """
    Ask git for the refs of a repository; prints what `parse_refs` reads.

    A local repository of another user is refused, by nix as well, unless the operator's
    own git configuration has it as ``safe.directory``: git does not heed that of its
    command line here (tried on 2.39).

    :param url: as from `remote_url`.
    """
    options = [word for option in _GIT_OPTIONS for word in ("-c", option)]
    return ["git", *options, "ls-remote", "--tags", "--heads", "--", url]


def parse_refs(out: bytes) -> Refs:
    """
    Read what git printed; lines that are not understood are not there.

    Where a tag has a text, what it leads to (``^{}``) is meant, rather than the text.
    """
    tags: dict[str, str] = {}
    branches: dict[str, str] = {}
    for line in islice(_LINE.finditer(out), MAX_REFS):
        revision, kind, name, peeled = (
            g.decode("ascii", "replace") for g in line.groups(b"")
        )
        those = tags if kind == "tags" else branches
        if not is_revision(revision) or not is_tag(name):
            continue
        if peeled:
            those[name] = revision
        else:
            those.setdefault(name, revision)
    return Refs(tags, branches)


def is_revision(text: str) -> bool:
    """Whether it is a full revision: a SHA-1 or SHA-256 as git writes it."""
    return _REVISION.fullmatch(text) is not None


def allowed(patterns: Sequence[str], kind: Kind, name: str) -> bool:
    """
    Whether a ref may be pulled as a tag.

    A pattern without a kind never means revisions: a forge lets the commits of all
    forks be named through the parent repository, and those are anybody's.

    :param patterns: each ``[tag:|branch:|rev:]glob``; no pattern allows nothing.
    """
    for pattern in patterns:
        of, _, glob = pattern.rpartition(":")
        if kind == of or (not of and kind != "rev"):
            if fnmatchcase(name, glob):
                return True
    return False


def find(refs: Refs, patterns: Sequence[str], tag: str) -> Found | None:
    """
    Find what a tag of an image means in git: a revision, else a tag, else a branch.

    What looks like a full revision is never a ref, which anybody may call so.

    :returns: None where there is no such ref, or no pattern allows it.
    """
    if tag == LATEST:
        return None
    if is_revision(tag):
        return Found(tag, _tip(refs, tag)) if allowed(patterns, "rev", tag) else None
    if tag in refs.tags and allowed(patterns, "tag", tag):
        return Found(refs.tags[tag], f"refs/tags/{tag}")
    if tag in refs.branches and allowed(patterns, "branch", tag):
        return Found(refs.branches[tag], f"refs/heads/{tag}")
    return None


def names(refs: Refs, patterns: Sequence[str]) -> list[str]:
    """List what `find` finds, sorted, but for the revisions that are no ref."""
    every = sorted({*refs.tags, *refs.branches})
    return [n for n in every if not is_revision(n) and find(refs, patterns, n)]


def _tip(refs: Refs, revision: str) -> str | None:
    for prefix, those in (("refs/heads/", refs.branches), ("refs/tags/", refs.tags)):
        for name, its in those.items():
            if its == revision:
                return prefix + name
    return None


def _split(flake: str) -> SplitResult | None:
    """Read a flake ref as a URL; None where it is none."""
    if not flake.isprintable() or " " in flake or "#" in flake:
        return None
    try:
        parts = urlsplit(flake)
        _ = parts.port, parts.hostname
    except ValueError:
        return None
    return parts


def _parameter(parts: SplitResult, name: str) -> str:
    """Give a parameter's value, or nothing; nix knows no ``+`` for a space."""
    for word in parts.query.split("&"):
        key, _, value = word.partition("=")
        if key == name:
            return unquote(value)
    return ""
