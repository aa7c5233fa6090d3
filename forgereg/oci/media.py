"""
Media types of manifests, configs and layers. Pure.

Source: OCI image-spec v1.1, "Media Types"; Docker Image Manifest V2, Schema 2.
"""

from __future__ import annotations

from forgereg.oci.descriptor import Compression

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

#: The forms in which a manifest can be written, the preferred one first.
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)

#: What lists manifests, of several platforms for instance.
INDEXES = (OCI_INDEX, DOCKER_INDEX)

#: All that a tag can lead to, what says most first.
REFERABLE = (*INDEXES, *MANIFESTS)

#: What a blob is called where nobody knows what is in it.
OCTETS = "application/octet-stream"

_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

#: form of the manifest → how a layer is packed → its media type. Docker's form has
#: no type for zstd: every client refuses the one that was once proposed.
LAYERS = {
    OCI_MANIFEST: {
        Compression.NONE: _OCI_LAYER,
        Compression.GZIP: f"{_OCI_LAYER}+gzip",
        Compression.ZSTD: f"{_OCI_LAYER}+zstd",
    },
    DOCKER_MANIFEST: {
        Compression.NONE: _DOCKER_LAYER,
        Compression.GZIP: f"{_DOCKER_LAYER}.gzip",
    },
}

CONFIGS = {OCI_MANIFEST: OCI_CONFIG, DOCKER_MANIFEST: DOCKER_CONFIG}
