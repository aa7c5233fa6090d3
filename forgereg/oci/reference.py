"""
Read repository names, tags and digests as the specification writes them. Pure.

Source: OCI distribution-spec v1.1, "Pulling manifests"; image-spec v1.1,
"Descriptor", Digests.
"""

from __future__ import annotations

import re

from attrs import frozen

from forgereg.oci.errors import DigestInvalid, ManifestUnknown, NameInvalid

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]*")
_DIGEST = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")
_ENCODED = {
    "sha256": re.compile(r"[a-f0-9]{64}"),
    "sha512": re.compile(r"[a-f0-9]{128}"),
}

#: How much of a client's own words an error message repeats, in characters.
_SHOWN = 80


@frozen
class Name:
    """
    A repository's name.

    :ivar text: its components, joined by slashes.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def components(self) -> tuple[str, ...]:
        """The parts between the slashes."""
        return tuple(self.text.split("/"))


@frozen
class Tag:
    """A name for an image that may mean another one tomorrow."""

    text: str

    def __str__(self) -> str:
        return self.text


@frozen
class Digest:
    """
    A name for bytes that can only ever mean those bytes.

    :ivar algorithm: ``sha256`` or ``sha512``; only the first is ever produced here.
    :ivar encoded: lower-case hexadecimal digits.
    """

    algorithm: str
    encoded: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def shown(text: str) -> str:
    """Quote what a client sent, cut so that it cannot flood a message."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def parse_name(text: str, max_length: int = 255) -> Name:
    """
    Read a repository name.

    :param max_length: in characters.
    :raises NameInvalid: the grammar or the length forbids it.
    """
    if len(text) > max_length:
        raise NameInvalid(
            f"repository name {shown(text)} has {len(text)} characters;"
            f" {max_length} are allowed"
        )
    if not _NAME.fullmatch(text):
        raise NameInvalid(
            f"{shown(text)} is not a repository name: components of lower-case letters"
            " and digits, with . _ __ or - between them, are joined by single slashes"
        )
    return Name(text)


def is_name(text: str, max_length: int = 255) -> bool:
    """Whether the text can be a repository name; ``max_length`` is in characters."""
    return len(text) <= max_length and _NAME.fullmatch(text) is not None


def is_tag(text: str, max_length: int = 128) -> bool:
    """Whether the text can be a tag; ``max_length`` is in characters."""
    return len(text) <= max_length and _TAG.fullmatch(text) is not None


def parse_digest(text: str) -> Digest:
    """
    Read a digest.

    :raises DigestInvalid: it is malformed, or of an algorithm that is not registered.
    """
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise DigestInvalid(f"{shown(text)} is not a digest (algorithm:encoded)")
    algorithm, encoded = match.groups()
    form = _ENCODED.get(algorithm)
    if form is None:
        raise DigestInvalid(
            f"digest algorithm {shown(algorithm)} is not one of {', '.join(_ENCODED)}"
        )
    if not form.fullmatch(encoded):
        raise DigestInvalid(f"{shown(text)} is not a well-formed {algorithm} digest")
    return Digest(algorithm, encoded)


def parse_reference(text: str, max_tag_length: int = 128) -> Tag | Digest:
    """
    Read what follows ``manifests/``: a digest where there is a colon, else a tag.

    :param max_tag_length: in characters.
    :raises DigestInvalid: there is a colon, but no digest.
    :raises ManifestUnknown: no image can have such a tag.
    """
    if ":" in text:
        return parse_digest(text)
    if not is_tag(text, max_tag_length):
        raise ManifestUnknown(
            f"{shown(text)} is not a tag: up to {max_tag_length} letters, digits,"
            " _ . and -, not beginning with . or -"
        )
    return Tag(text)
