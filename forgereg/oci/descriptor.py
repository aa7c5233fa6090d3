"""
Say what an image is made of: descriptors of its config and layers. Pure.

Source: OCI image-spec v1.1, "Descriptor".
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from forgereg.oci.reference import Digest


class Compression(Enum):
    """How a blob's bytes are packed; the value is the media type's suffix."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"


@frozen
class Descriptor:
    """
    One blob of an image.

    :ivar size: in bytes.
    """

    digest: Digest
    size: int
    compression: Compression = Compression.NONE


@frozen
class Image:
    """
    One image.

    :ivar layers: lowest first.
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> frozenset[Descriptor]:
        """Every blob that a client needs, each once."""
        return frozenset((self.config, *self.layers))
