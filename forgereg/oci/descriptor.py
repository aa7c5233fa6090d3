"""
Say what an image is made of, and where that lies: descriptors and places. Pure.

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
class Place:
    """
    Where the bytes of a blob lie.

    :ivar offset: in bytes: in the file, or in what the file unpacks to; negative where
        it has to be found again.
    :ivar path: of the file: empty for the archive itself, relative for a file below
        it, absolute for another one in the Nix store.
    :ivar is_plain: whether the file holds them as they are; else they are in what it
        unpacks to, what it prints, or what is made by its description.
    """

    offset: int
    path: str = ""
    is_plain: bool = False


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
