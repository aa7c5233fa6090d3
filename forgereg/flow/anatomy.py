"""
Say what an image consists of: JSON of its manifest and config in, values out. Pure.

What stands in them is whatever somebody's flake says: what makes no sense is not there,
what is too long is cut, and what would have a text look like another one is spelled out.

Source: OCI image-spec v1.1, "Image Manifest", "Image Index", "Image Configuration".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from forgereg.lines import HARMLESS, visible
from forgereg.oci.errors import DigestInvalid
from forgereg.oci.manifest import Manifest
from forgereg.oci.reference import Digest, parse_digest

#: How long a text may be, in characters, and a list; what is more is not shown.
_MAX_TEXT, _MAX_ITEMS = 2000, 500


@frozen
class Part:
    """
    A config or layer, as a manifest names it.

    :ivar size: in bytes.
    """

    digest: Digest
    size: int
    media_type: str


@frozen
class Platform:
    """
    One of the images that an index lists.

    :ivar label: such as ``linux/arm64/v8``.
    :ivar digest: of its manifest.
    """

    label: str
    digest: Digest


@frozen
class Anatomy:
    """
    What a manifest lists.

    :ivar config: None where there is none.
    :ivar layers: lowest first.
    """

    config: Part | None
    layers: tuple[Part, ...]
    annotations: Mapping[str, str]

    @property
    def sizes(self) -> dict[Digest, int]:
        """What a client needs, each once, and how many bytes that has."""
        parts = self.layers if self.config is None else (self.config, *self.layers)
        return {part.digest: part.size for part in parts}


@frozen
class Difference:
    """
    What an image has that an older one has not, and the other way round.

    :ivar bytes_to_pull: for someone who has the older one.
    """

    added: tuple[Part, ...]
    removed: tuple[Part, ...]
    kept: int
    bytes_to_pull: int


@frozen
class Config:
    """
    What an image says of how it is run.

    :ivar created_by: of each layer, what it says of itself, lowest first.
    """

    platform: str = ""
    created: str = ""
    author: str = ""
    user: str = ""
    workdir: str = ""
    stop_signal: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(factory=dict)
    created_by: tuple[str, ...] = ()


def read_anatomy(manifest: Manifest) -> Anatomy:
    """Read the manifest of one image."""
    document = _object(manifest.body)
    config = _part(document.get("config"))
    layers = filter(None, map(_part, _list(document.get("layers"))))
    return Anatomy(config, tuple(layers), _texts_by_name(document.get("annotations")))


def read_platforms(manifest: Manifest) -> tuple[Platform, ...]:
    """Read which images an index lists, but for attestations."""
    found = []
    for entry in _list(_object(manifest.body).get("manifests"))[:_MAX_ITEMS]:
        part, platform = _part(entry), _mapping(_mapping(entry).get("platform"))
        label = _platform(platform)
        if part is not None and not label.startswith("unknown/"):
            found.append(Platform(label or "any platform", part.digest))
    return tuple(found)


def read_config(data: bytes) -> Config:
    """Read an image's config."""
    document = _object(data)
    run = _mapping(document.get("config"))
    return Config(
        _platform(document),
        _text(document.get("created")),
        _text(document.get("author")),
        _text(run.get("User")),
        _text(run.get("WorkingDir")),
        _text(run.get("StopSignal")),
        _texts(run.get("Entrypoint")),
        _texts(run.get("Cmd")),
        _texts(run.get("Env")),
        _texts([*_mapping(run.get("ExposedPorts"))]),
        _texts([*_mapping(run.get("Volumes"))]),
        _texts_by_name(run.get("Labels")),
        tuple(
            _text(each.get("created_by")) or _text(each.get("comment"))
            for each in map(_mapping, _list(document.get("history")))
            if each.get("empty_layer") is not True
        ),
    )


def difference(before: Anatomy, after: Anatomy) -> Difference:
    """Say what is other in an image than in an older one."""
    old = {part.digest for part in before.layers}
    new = {part.digest for part in after.layers}
    there = before.sizes
    return Difference(
        tuple(part for part in after.layers if part.digest not in old),
        tuple(part for part in before.layers if part.digest not in new),
        sum(part.digest in old for part in after.layers),
        sum(size for digest, size in after.sizes.items() if digest not in there),
    )


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    return visible(text, HARMLESS)


def _texts(value: Any) -> tuple[str, ...]:
    # The shell form of a command is one text.
    listed = [value] if isinstance(value, str) else _list(value)
    return tuple(_text(each) for each in listed[:_MAX_ITEMS])


def _texts_by_name(value: Any) -> Mapping[str, str]:
    items = list(_mapping(value).items())[:_MAX_ITEMS]
    return {_text(key): _text(each) for key, each in items}


def _part(value: Any) -> Part | None:
    match value:
        case {"digest": str(text), "size": int(size)} if size >= 0:
            try:
                kind = _text(_mapping(value).get("mediaType"))
                return Part(parse_digest(text), size, kind)
            except DigestInvalid:
                return None
    return None


def _platform(value: Mapping[str, Any]) -> str:
    words = (value.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(filter(None, map(_text, words)))
