"""
From the members of a docker-archive to the images in it. Pure.

A docker-archive holds a ``manifest.json`` that names, for each image, its config and
its layers; both are members of the archive, or links to members.

Source: Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset
Format"; how dockerTools, docker, podman and skopeo write it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import Any, TypeGuard

from attrs import frozen

from forgereg.oci.descriptor import Compression, Descriptor, Image
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.reference import Digest, Name, Tag, shown

#: How long a chain of links among members may be.
_MAX_LINKS = 16


@frozen
class Member:
    """
    A regular file in an archive.

    :ivar diff_id: digest of its bytes when unpacked; of its bytes, if not packed.
    :ivar json: its bytes, if they may be JSON that has to be read; else None.
    """

    digest: Digest
    size: int
    compression: Compression
    diff_id: Digest
    json: bytes | None = None


@frozen
class Link:
    """
    A hard or symbolic link among members.

    :ivar target: name of the member that it points to; it may be a link again, or
        not be there.
    """

    target: str


@frozen
class Packed:
    """
    An image as it lies in an archive.

    :ivar tags: the references that the archive gives it, such as ``hello:2.12``.
    """

    tags: tuple[str, ...]
    image: Image


def member_name(raw: str) -> str:
    """Write a member's name in the one way that `read_layout` looks it up by."""
    return posixpath.normpath(raw)


def read_layout(members: Mapping[str, Member | Link]) -> tuple[Packed, ...]:
    """
    Give the images of an archive, in the order of its ``manifest.json``.

    :param members: by their `member_name`.
    :returns: at least one.
    :raises ArchiveInvalid: the archive is not one, or not whole.
    """
    if "manifest.json" not in members:
        kind = (
            "it is an OCI layout without one; build a docker-archive instead"
            if "oci-layout" in members
            else "is it a docker-archive?"
        )
        raise ArchiveInvalid(f"the archive has no manifest.json: {kind}")
    entries = _json(_follow(members, "manifest.json"), "manifest.json")
    if not isinstance(entries, list) or not entries:
        raise ArchiveInvalid("manifest.json in the archive is not a list of images")
    # Several images may share a config, which may be large: it is read once.
    diff_ids: dict[Digest, list[str]] = {}
    return tuple(_read_entry(members, entry, diff_ids) for entry in entries)


def choose(packed: tuple[Packed, ...], name: Name, tag: Tag) -> Image:
    """
    Pick the image that is meant: by name and tag, by name, by tag, else the first.

    :param packed: at least one.
    """
    leaf = name.components[-1]

    def fit(one: Packed) -> int:
        best = 0
        for reference in one.tags:
            repository, _, its_tag = reference.rpartition(":")
            named = repository.rpartition("/")[2] == leaf
            best = max(best, 2 * named + (its_tag == tag.text))
        return best

    return max(packed, key=fit).image


def _read_entry(
    members: Mapping[str, Member | Link], entry: Any, diff_ids: dict[Digest, list[str]]
) -> Packed:
    if not isinstance(entry, dict):
        raise ArchiveInvalid("manifest.json in the archive names an image oddly")
    config_name, layer_names = entry.get("Config"), entry.get("Layers")
    tags = entry.get("RepoTags") or []
    if (
        not isinstance(config_name, str)
        or not _is_strings(layer_names)
        or not _is_strings(tags)
    ):
        raise ArchiveInvalid(
            "manifest.json in the archive lacks Config, Layers or RepoTags"
        )
    config = _follow(members, config_name)
    layers = [_follow(members, name) for name in layer_names]
    if config.digest not in diff_ids:
        diff_ids[config.digest] = _diff_ids(_json(config, config_name))
    _check_diff_ids(diff_ids[config.digest], layers, layer_names)
    return Packed(
        tuple(tags),
        Image(
            Descriptor(config.digest, config.size),
            tuple(
                Descriptor(layer.digest, layer.size, layer.compression)
                for layer in layers
            ),
        ),
    )


def _diff_ids(config: Any) -> list[str]:
    match config:
        case {"rootfs": {"diff_ids": diff_ids}} if diff_ids is not None:
            if _is_strings(diff_ids):
                return diff_ids
        case dict():
            return []
    raise ArchiveInvalid("the image's config has no list of rootfs.diff_ids")


def _check_diff_ids(
    diff_ids: list[str], layers: list[Member], names: list[str]
) -> None:
    if len(diff_ids) != len(layers):
        raise ArchiveInvalid(
            f"the image's config lists {len(diff_ids)} layers as rootfs.diff_ids,"
            f" manifest.json {len(layers)}"
        )
    for name, layer, diff_id in zip(names, layers, diff_ids, strict=True):
        if str(layer.diff_id) != diff_id:
            raise ArchiveInvalid(
                f"layer {shown(name)} is {layer.diff_id}, but the image's config"
                f" says {shown(diff_id)}"
            )


def _follow(members: Mapping[str, Member | Link], raw: str) -> Member:
    name = member_name(raw)
    for _ in range(_MAX_LINKS):
        found = members.get(name)
        if isinstance(found, Member):
            return found
        if found is None:
            raise ArchiveInvalid(f"{shown(raw)} is not in the archive")
        name = found.target
    raise ArchiveInvalid(f"{shown(raw)} is a link that leads nowhere")


def _json(member: Member, name: str) -> Any:
    if member.json is None:
        raise ArchiveInvalid(f"{shown(name)} in the archive is not JSON, or too large")
    try:
        return json.loads(member.json)
    except (ValueError, RecursionError) as e:
        raise ArchiveInvalid(f"{shown(name)} in the archive is not valid JSON") from e


def _is_strings(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)
