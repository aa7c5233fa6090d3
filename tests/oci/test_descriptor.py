"""What an image of `forgereg.oci.descriptor` is made of."""

from __future__ import annotations

from forgereg.oci.descriptor import Descriptor, Image
from forgereg.oci.manifest import sha256


def test_every_blob_of_an_image_is_named_once() -> None:
    """A client needs the config and each layer once, however often a layer is used."""
    config, lower, upper = (
        Descriptor(sha256(word), len(word)) for word in (b"config", b"lower", b"upper")
    )
    image = Image(config, (lower, upper, lower))
    assert image.blobs == {config, lower, upper}
    assert image.layers == (lower, upper, lower)
