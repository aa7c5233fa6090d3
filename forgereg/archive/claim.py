"""
Read the descriptors of an OCI image layout. Pure.

Source: OCI image-spec v1.1, "Descriptor", "Annotations"; how docker, containerd, podman
and buildkit annotate them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from forgereg.archive.platform import Platform, read_platform
from forgereg.oci.errors import ArchiveInvalid, DigestInvalid
from forgereg.oci.reference import Digest, parse_digest

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_REFERENCE = re.compile(r"[!-~]{1,512}")


@frozen
class Claim:
    """
    What a descriptor says.

    :ivar tags: which references its annotations give it.
    :ivar is_artifact: whether it belongs to an image and is none, such as a signature.
    :ivar may_lack: whether an image is whole without it: its bytes lie elsewhere.
    """

    digest: Digest
    size: int
    media_type: str
    platform: Platform | None
    tags: tuple[str, ...]
    is_artifact: bool
    may_lack: bool


def read_claim(said: Any) -> Claim:
    """
    Read a descriptor.

    :raises ArchiveInvalid: it is none.
    """
    if not isinstance(said, dict):
        raise ArchiveInvalid("a descriptor in the OCI layout is not an object")
    size, media_type = said.get("size"), said.get("mediaType") or ""
    if type(size) is not int or size < 0 or not isinstance(media_type, str):
        raise ArchiveInvalid("a descriptor in the OCI layout lacks size or type")
    try:
        digest = parse_digest(str(said.get("digest")))
    except DigestInvalid as e:
        raise ArchiveInvalid(f"the OCI layout: {e}") from e
    notes = said.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    platform = read_platform(said.get("platform"))
    return Claim(
        digest,
        size,
        media_type,
        platform,
        _tags(notes),
        "artifactType" in said
        or "vnd.docker.reference.type" in notes
        or (platform is not None and platform[0] == "unknown"),
        bool(said.get("urls")) or "data" in said,
    )


def _tags(notes: Mapping[str, Any]) -> tuple[str, ...]:
    found = [notes.get(key) for key in _NAMES]
    full, short = (
        each if isinstance(each, str) and _REFERENCE.fullmatch(each) else ""
        for each in found
    )
    if full.endswith(f":{short}"):
        short = ""
    return tuple(each for each in (full, short) if each)
