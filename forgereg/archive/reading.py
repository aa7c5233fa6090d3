"""
What reading an archive gives: its images, and where their blobs lie in it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from forgereg.oci.descriptor import Descriptor, Place
from forgereg.oci.manifest import Manifest
from forgereg.oci.reference import Digest


@frozen
class Packed:
    """
    An image as an archive has it.

    :ivar tags: the references that the archive gives it, such as ``hello:2.12``.
    :ivar forms: the manifests that a tag can mean, the preferred one first.
    :ivar parts: the other manifests that those lead to.
    :ivar blobs: every config and layer of all of them that the archive has.
    """

    tags: tuple[str, ...]
    forms: tuple[Manifest, ...]
    blobs: frozenset[Descriptor]
    parts: tuple[Manifest, ...] = ()


@frozen
class Reading:
    """
    What is in an archive.

    :ivar images: at least one, in the archive's order.
    :ivar places: of all their blobs.
    """

    images: tuple[Packed, ...]
    places: Mapping[Digest, Place]
