"""The specifications' words: names, digests, media types, manifests. Pure."""
