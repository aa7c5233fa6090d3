"""
Write an image down as a manifest: exact bytes and their digest. Pure.

Source: OCI image-spec v1.1, "Image Manifest"; Docker Image Manifest V2, Schema 2.
"""

from __future__ import annotations

import hashlib
import json

from attrs import frozen

from forgereg.oci.descriptor import Image
from forgereg.oci.media import CONFIGS, LAYERS, MANIFESTS
from forgereg.oci.reference import Digest

#: Every generated manifest begins with this constant: white space that JSON ignores,
#: out of which a body can be begun before the rest of it is known.
PAD = b" " * 256


@frozen
class Manifest:
    """
    A manifest as it is served.

    :ivar digest: of ``body``.
    """

    media_type: str
    body: bytes
    digest: Digest


def sha256(data: bytes) -> Digest:
    """Compute the digest of some bytes."""
    return Digest("sha256", hashlib.sha256(data).hexdigest())


def write_manifests(image: Image) -> tuple[Manifest, ...]:
    """
    Write an image in every form that can hold it.

    Equal images give equal bytes.

    :returns: the preferred form first.
    """
    packings = {layer.compression for layer in image.layers}
    return tuple(
        _write(image, form) for form in MANIFESTS if packings <= LAYERS[form].keys()
    )


def _write(image: Image, form: str) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": form,
        "config": {
            "mediaType": CONFIGS[form],
            "digest": str(image.config.digest),
            "size": image.config.size,
        },
        "layers": [
            {
                "mediaType": LAYERS[form][layer.compression],
                "digest": str(layer.digest),
                "size": layer.size,
            }
            for layer in image.layers
        ],
    }
    body = PAD + json.dumps(document, separators=(",", ":")).encode()
    return Manifest(form, body, sha256(body))
