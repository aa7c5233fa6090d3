"""
From the members of an OCI image layout to the images in it.

Its manifests are served to the byte, with whatever they say. An index may name images
that the layout lacks, as docker writes where it was told to pull one platform only; what
is not whole is as if it were not there.

Source: OCI image-spec v1.1, "Image Layout", "Image Index", "Image Manifest"; how docker
since 25, containerd, podman, skopeo, buildkit and oras write them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from attrs import define, field, frozen

from forgereg.archive.claim import Claim, read_claim
from forgereg.archive.members import (
    Member,
    Members,
    blob_name,
    parse_json,
    read_json,
)
from forgereg.archive.platform import (
    Platform,
    misfit,
    parse_platform,
    read_platform,
)
from forgereg.archive.reading import Packed, Reading
from forgereg.oci.errors import ArchiveInvalid
from forgereg.oci.manifest import Manifest, sha256
from forgereg.oci.media import (
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    REFERABLE,
)
from forgereg.oci.reference import Digest

#: How many indexes may lie in one another, how many manifests there may be, and how
#: many descriptors all of them may have.
_MAX_HEIGHT = 8
_MAX_MANIFESTS = 1_000
_MAX_CLAIMS = 20_000

#: Source: RFC 6838, section 4.2.
_MEDIA_TYPE = re.compile(
    r"[a-zA-Z0-9][\w!#$&^.+-]{0,126}/[a-zA-Z0-9][\w!#$&^.+-]{0,126}", re.A
)


class LayoutIncomplete(ArchiveInvalid):
    """No image of an OCI layout is whole, or it speaks of other images."""


@frozen
class _Node:
    """
    A manifest that is whole.

    :ivar children: those of an index that are whole.
    :ivar blobs: those of an image that are there, the config first.
    :ivar has_image: whether it is what people call an image, or leads to one.
    :ivar height: how many indexes lie in one another from here on.
    :ivar fit: of the images of an index the one to serve to clients that read none:
        how far it is from the platform that is wanted, and its manifest.
    """

    manifest: Manifest
    children: tuple[_Entry, ...] = ()
    blobs: tuple[Claim, ...] = ()
    has_image: bool = False
    height: int = 0
    fit: tuple[int, Manifest] | None = None


@frozen
class _Entry:
    """
    A manifest as an index names it.

    :ivar fit: as of a `_Node`, or of the image itself.
    """

    claim: Claim
    node: _Node
    platform: Platform | None
    fit: tuple[int, Manifest] | None

    @property
    def is_image(self) -> bool:
        """Whether it is an image, or leads to one."""
        return self.node.has_image and not self.claim.is_artifact


def read_index(members: Members, platform: str, configs: Collection[str]) -> Reading:
    """
    Give the images of an OCI layout, those of the platform before others.

    :param platform: see `read_layout`.
    :param configs: names of files that must be configs of its images.
    :raises LayoutIncomplete: none of its images is whole, or a config is another's.
    :raises ArchiveInvalid: a file is not what its descriptor says, or the layout is
        hostile.
    """
    return _Layout(members, parse_platform(platform)).read(configs)


@define
class _Layout:
    _members: Members
    _wanted: Platform
    _nodes: dict[Digest, _Node | None] = field(init=False, factory=dict)
    _files: dict[Digest, str | None] = field(init=False, factory=dict)
    _platforms: dict[Digest, Platform | None] = field(init=False, factory=dict)
    _claims: int = field(init=False, default=0)

    def read(self, configs: Collection[str]) -> Reading:
        name = self._members.find("index.json")
        assert name is not None
        body = self._members.json(name)
        root = self._node(body, parse_json(body, "index.json"), OCI_INDEX, 0)
        if root is None or not root.children:
            raise LayoutIncomplete(
                "the OCI layout is not whole: of none of the images in its index.json"
                " all files are there"
            )
        nodes = [root, *self._below(root)]
        have = {
            self._files[node.blobs[0].digest]
            for node in nodes
            if node.manifest.media_type in MANIFESTS and node.blobs
        }
        if not set(configs) <= have:
            raise LayoutIncomplete("index.json and manifest.json name other images")
        members = self._measure(nodes)
        packed = tuple(
            Packed(
                tags,
                forms,
                frozenset(
                    members[claim.digest].descriptor
                    for each in leads
                    for claim in each.blobs
                ),
                tuple(n.manifest for n in leads if n.manifest not in forms),
            )
            for tags, forms, leads in self._images(root)
        )
        kept = {blob.digest for each in packed for blob in each.blobs}
        return Reading(packed, {digest: members[digest].place for digest in kept})

    def _images(
        self, root: _Node
    ) -> Iterator[tuple[tuple[str, ...], tuple[Manifest, ...], list[_Node]]]:
        """Give, for each image: its tags, its forms, and all that they lead to."""
        # Where there are only artifacts, such as a chart, those are what is meant.
        some = any(each.is_image for each in root.children)
        heads = [each for each in root.children if each.is_image or not some]
        others = [each for each in root.children if some and not each.is_image]
        tags: dict[Digest, tuple[str, ...]] = {}
        images: dict[Digest, _Entry] = {}
        for head in heads:
            digest = head.claim.digest
            images.setdefault(digest, head)
            tags[digest] = (*tags.get(digest, ()), *head.claim.tags)
        heads = [*images.values()]
        platforms = {head.platform for head in heads}
        if (
            len(heads) > 1
            and len(set(tags.values())) == 1
            and len(platforms) == len(heads)
            and None not in platforms
            and not any(head.node.children for head in heads)
        ):
            whole = _Entry(heads[0].claim, root, None, root.fit)
            yield tags[heads[0].claim.digest], _forms(whole), self._below(root)
            return
        extra = [n for each in others for n in (each.node, *self._below(each.node))]
        for head in sorted(heads, key=lambda each: (each.fit or (999,))[0]):
            leads = {n.manifest.digest: n for n in (*self._below(head.node), *extra)}
            leads[head.claim.digest] = head.node
            references = tuple(dict.fromkeys(tags[head.claim.digest]))
            yield references, _forms(head), [*leads.values()]

    def _below(self, node: _Node) -> list[_Node]:
        """Give every manifest that this one leads to, each once."""
        found: dict[Digest, _Node] = {}
        waiting = [node]
        while waiting:
            for each in waiting.pop().children:
                if each.claim.digest not in found:
                    found[each.claim.digest] = each.node
                    waiting.append(each.node)
        return [*found.values()]

    def _load(self, claim: Claim, depth: int) -> _Node | None:
        """Read a manifest; give None where it, or what it needs, is not there."""
        if claim.digest not in self._nodes:
            if len(self._nodes) >= _MAX_MANIFESTS:
                raise ArchiveInvalid("the OCI layout has too many manifests")
            self._nodes[claim.digest] = None
            self._nodes[claim.digest] = self._load_first(claim, depth)
        return self._nodes[claim.digest]

    def _load_first(self, claim: Claim, depth: int) -> _Node | None:
        name = self._find(claim.digest)
        if name is None:
            return None
        try:
            body = self._members.json(name)
        except ArchiveInvalid:
            if claim.media_type in REFERABLE:
                raise
            return None  # the specification lets an index name anything
        if len(body) != claim.size or sha256(body) != claim.digest:
            raise _damaged(claim.digest)
        return self._node(body, parse_json(body, name), claim.media_type, depth)

    def _node(self, body: bytes, said: Any, claimed: str, depth: int) -> _Node | None:
        if not isinstance(said, dict):
            raise ArchiveInvalid("a manifest in the OCI layout is not a JSON object")
        media_type = said.get("mediaType") or claimed
        if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
            raise ArchiveInvalid("a manifest in the OCI layout has an odd media type")
        manifest = Manifest(media_type, body, sha256(body))
        if media_type in INDEXES:
            return self._index(manifest, said.get("manifests"), depth)
        if media_type in MANIFESTS:
            claims = [
                read_claim(said.get("config")),
                *self._list(said.get("layers")),
            ]
        else:
            claims = self._list(said.get("layers") or said.get("blobs") or [])
            if isinstance(said.get("config"), dict):
                claims.append(read_claim(said["config"]))
        there = tuple(each for each in claims if self._find(each.digest))
        if not all(each.may_lack or self._find(each.digest) for each in claims):
            return None
        is_artifact = "subject" in said or "artifactType" in said
        return _Node(
            manifest,
            blobs=there,
            has_image=media_type in MANIFESTS and not is_artifact,
        )

    def _index(self, manifest: Manifest, listed: Any, depth: int) -> _Node | None:
        if depth >= _MAX_HEIGHT:
            raise ArchiveInvalid("indexes in the OCI layout are nested too deep")
        claims = self._list(listed)
        children = []
        for claim in claims:
            node = self._load(claim, depth + 1)
            if node is not None:
                if len(node.manifest.body) != claim.size:
                    raise _damaged(claim.digest)
                children.append(self._entry(claim, node))
        has_image = any(each.is_image for each in children)
        if not has_image and len(children) < len(claims):
            return None
        height = 1 + max((each.node.height for each in children), default=0)
        if height > _MAX_HEIGHT:
            raise ArchiveInvalid("indexes in the OCI layout are nested too deep")
        return _Node(
            manifest,
            tuple(children),
            has_image=has_image,
            height=height,
            fit=_best(children),
        )

    def _entry(self, claim: Claim, node: _Node) -> _Entry:
        if node.children:
            return _Entry(claim, node, None, node.fit)
        platform = claim.platform
        if platform is None and node.has_image:
            platform = self._platform(node)
        far = misfit(self._wanted, platform) if node.has_image else None
        fit = None if far is None else (far, node.manifest)
        return _Entry(claim, node, platform, fit)

    def _platform(self, node: _Node) -> Platform | None:
        """Read in an image's config what its descriptor does not say."""
        digest = node.manifest.digest
        if digest not in self._platforms:
            self._platforms[digest] = None
            name = node.blobs and self._find(node.blobs[0].digest)
            if name:
                with suppress(ArchiveInvalid):  # a config of another kind
                    said = read_json(self._members, name)
                    self._platforms[digest] = read_platform(said)
        return self._platforms[digest]

    def _list(self, listed: Any) -> list[Claim]:
        if not isinstance(listed, list):
            raise ArchiveInvalid("a manifest in the OCI layout lists nothing")
        self._claims += len(listed)
        if self._claims > _MAX_CLAIMS:
            raise ArchiveInvalid("the OCI layout has too many descriptors")
        return [read_claim(each) for each in listed]

    def _find(self, digest: Digest) -> str | None:
        if digest not in self._files:
            self._files[digest] = (
                self._members.find(blob_name(digest))
                if digest.algorithm == "sha256"
                else None
            )
        return self._files[digest]

    def _measure(self, nodes: list[_Node]) -> Mapping[Digest, Member]:
        """Read every blob, and check that it is what its descriptors say."""
        claims = {claim for node in nodes for claim in node.blobs}
        names = {c.digest: name for c in claims if (name := self._find(c.digest))}
        measured = self._members.measure(set(names.values()))
        for claim in claims:
            member = measured[names[claim.digest]]
            if (member.digest, member.size) != (claim.digest, claim.size):
                raise _damaged(claim.digest)
        return {digest: measured[name] for digest, name in names.items()}


def _best(entries: Iterable[_Entry]) -> tuple[int, Manifest] | None:
    fits = [each.fit for each in entries if each.is_image and each.fit]
    return min(fits, key=lambda fit: fit[0], default=None)


def _forms(head: _Entry) -> tuple[Manifest, ...]:
    index = head.node.manifest
    if head.fit is None or head.fit[1] == index:
        return (index,)
    return (index, head.fit[1])


def _damaged(digest: Digest) -> ArchiveInvalid:
    return ArchiveInvalid(
        f"{digest} in the OCI layout is damaged: it is not what its descriptor says"
    )
