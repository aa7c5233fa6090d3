"""
From the members of an archive to the images in it.

A docker-archive holds a ``manifest.json`` that names, for each image, its config and
its layers; both are members of the archive, or links to members. An OCI layout holds an
``index.json`` (see `forgereg.archive.index`). Where both are there, and speak of the
same images, the latter is read, for its manifests and their annotations.

Source: Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset
Format"; how dockerTools, docker, podman and skopeo write it.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from forgereg.archive.index import LayoutIncomplete, read_index
from forgereg.archive.members import (
    Member,
    Members,
    check_name,
    is_strings,
    read_json,
)
from forgereg.archive.reading import Packed, Reading
from forgereg.oci.descriptor import Image
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.manifest import write_manifests
from forgereg.oci.reference import Name, Tag, shown

#: How many layers all images of an archive may name; clients refuse one with more
#: than 127.
_MAX_LAYERS = 20_000

_BUILD = "build a docker-archive or an OCI layout"


@frozen
class _Entry:
    """What manifest.json says of an image; files are named as `Members.find` does."""

    tags: tuple[str, ...]
    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


def read_layout(members: Members, platform: str) -> Reading:
    """
    Give the images of an archive, in its order.

    :param platform: what is served to clients that cannot choose among several, such
        as ``linux/amd64``.
    :raises ArchiveInvalid: the archive is not one, or not whole.
    """
    entries = _read_entries(members) if members.find("manifest.json") else ()
    if members.find("index.json"):
        try:
            # Who builds on what docker saved, as dockerTools does, leaves the OCI
            # layout of the base in the archive.
            configs = {entry.config for entry in entries}
            return read_index(members, platform, configs)
        except LayoutIncomplete:
            if not entries:
                raise
    if not entries:
        raise ArchiveInvalid(f"the archive has no manifest.json: {_advice(members)}")
    return _read_archive(members, entries)


def choose(packed: tuple[Packed, ...], name: Name, tag: Tag) -> Packed:
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

    return max(packed, key=fit)


def _advice(members: Members) -> str:
    if members.find("oci-layout"):
        return f"it is an OCI layout without index.json; {_BUILD}"
    if members.find("config.json"):
        return f"it seems to be a runtime bundle; {_BUILD}"
    return f"is it a root file system? {_BUILD}"


def _read_entries(members: Members) -> tuple[_Entry, ...]:
    listed = read_json(members, _find(members, "manifest.json"))
    if not isinstance(listed, list) or not listed:
        raise ArchiveInvalid("manifest.json in the archive is not a list of images")
    entries = tuple(_read_entry(members, each) for each in listed)
    if sum(len(entry.layers) for entry in entries) > _MAX_LAYERS:
        raise ArchiveInvalid("manifest.json in the archive names too many layers")
    return entries


def _read_entry(members: Members, entry: Any) -> _Entry:
    if not isinstance(entry, dict):
        raise ArchiveInvalid("manifest.json in the archive names an image oddly")
    config, layers = entry.get("Config"), entry.get("Layers")
    tags = entry.get("RepoTags") or []
    if not isinstance(config, str) or not is_strings(layers) or not is_strings(tags):
        raise ArchiveInvalid(
            "manifest.json in the archive lacks Config, Layers or RepoTags"
        )
    return _Entry(
        tuple(tags),
        _find(members, config),
        tuple(_find(members, name) for name in layers),
        tuple(layers),
    )


def _read_archive(members: Members, entries: tuple[_Entry, ...]) -> Reading:
    # Several images may share a config, which may be large: it is read once.
    diff_ids: dict[str, list[str]] = {}
    for entry in entries:
        if entry.config not in diff_ids:
            config = read_json(members, entry.config)
            diff_ids[entry.config] = _diff_ids(config)
        if (said := len(diff_ids[entry.config])) != len(entry.layers):
            raise ArchiveInvalid(
                f"the image's config lists {said} layers as rootfs.diff_ids,"
                f" manifest.json {len(entry.layers)}"
            )
    files = {name for entry in entries for name in (entry.config, *entry.layers)}
    measured = members.measure(files)
    for name, member in measured.items():
        check_name(name, member)
    packed = []
    for entry in entries:
        layers = [measured[name] for name in entry.layers]
        for name, layer, diff_id in zip(
            entry.names, layers, diff_ids[entry.config], strict=True
        ):
            _check_layer(name, layer, diff_id)
        image = Image(
            measured[entry.config].descriptor,
            tuple(layer.descriptor for layer in layers),
        )
        packed.append(Packed(entry.tags, write_manifests(image), image.blobs))
    return Reading(
        tuple(packed), {each.digest: each.place for each in measured.values()}
    )


def _find(members: Members, raw: str) -> str:
    found = members.find(raw)
    if found is None:
        raise ArchiveInvalid(f"{shown(raw)} is not in the archive")
    return found


def _diff_ids(config: Any) -> list[str]:
    match config:
        case {"rootfs": {"diff_ids": diff_ids}} if diff_ids is not None:
            if is_strings(diff_ids):
                return diff_ids
        case dict():
            return []
    raise ArchiveInvalid("the image's config has no list of rootfs.diff_ids")


def _check_layer(name: str, layer: Member, diff_id: str) -> None:
    if str(layer.diff_id) == diff_id:
        return
    if layer.diff_id is not None:
        raise ArchiveInvalid(
            f"layer {shown(name)} is {layer.diff_id}, but the image's config"
            f" says {shown(diff_id)}"
        )
    if not layer.is_known:
        raise ArchiveInvalid(f"layer {shown(name)} is damaged: it cannot be unpacked")
