"""
The tables of the records.

::

    resolutions   flake            → locked flake ref, and when it was found
    evaluations   locked, question → answer
    tags          name, derivation, tag → digests of the manifests, one for each form
    manifests     name, digest     → exact bytes
    blobs         name, digest     → size, source
    sources       derivation, archive → what to build to have the archive again
    builds        id → how it went
    last_good     name, tag    → derivation of the last image that worked
    origins       source, name, digest → where in the archive this blob, or manifest, is
    sightings     source → when it was first seen, and how long nix built it
    revisions     name, tag, derivation → digest, and since when the tag has meant it
    pulls         name, digest, tag → when a manifest was last pulled by it
    pull_days     name, digest, tag, day → how often it was pulled on that day

Nothing here is derived from what a later version might do otherwise: the bytes of
every manifest that was ever answered are kept as they were.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

resolutions = Table(
    "resolutions",
    metadata,
    Column("flake", Text, primary_key=True, comment="flake ref as configured"),
    Column("locked", Text, nullable=False, comment="locked flake ref"),
    Column(
        "resolved_at", Float, nullable=False, comment="seconds since the epoch, UTC"
    ),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("locked", Text, primary_key=True, comment="locked flake ref"),
    Column("question", Text, primary_key=True, comment="sha256 of system and query"),
    Column("answer", Text, nullable=False, comment="JSON that Nix answered"),
)

sources = Table(
    "sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("locked", Text, nullable=False, comment="locked flake ref"),
    Column("attribute", Text, nullable=False, comment="what was built of it"),
    Column("flake", Text, nullable=False, comment="what its names begin with"),
    Column("derivation", Text, nullable=False, comment="store path of its .drv"),
    Column("archive", Text, nullable=False, comment="store path of the archive"),
    Column(
        "stamp", Text, nullable=False, comment="of its file when it was read, or empty"
    ),
    UniqueConstraint("derivation", "archive"),
)

tags = Table(
    "tags",
    metadata,
    Column("name", String(255), primary_key=True, comment="repository name"),
    Column("derivation", Text, primary_key=True, comment="store path of a .drv"),
    Column("tag", String(128), primary_key=True),
    Column("preference", Integer, primary_key=True, comment="0 is the preferred form"),
    Column("digest", String(135), nullable=False, comment="of the manifest"),
)

manifests = Table(
    "manifests",
    metadata,
    Column("name", String(255), primary_key=True, comment="repository name"),
    Column("digest", String(135), primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="exact bytes"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("name", String(255), primary_key=True, comment="repository name"),
    Column("digest", String(135), primary_key=True),
    Column("size", BigInteger, nullable=False, comment="bytes"),
    Column("source", ForeignKey(sources.c.id), nullable=False),
    Index("blobs_of_digest", "digest"),
)

builds = Table(
    "builds",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("image", Text, nullable=False, comment="repository:tag"),
    Column("state", String(16), nullable=False),
    Column("asked_by", Text, nullable=False, comment="JSON, addresses of clients"),
    Column(
        "asked_at", Float, nullable=False, index=True, comment="seconds since the epoch"
    ),
    Column("started_at", Float, comment="seconds since the epoch"),
    Column("finished_at", Float, comment="seconds since the epoch"),
    Column("locked", Text, comment="locked flake ref, without secrets"),
    Column("derivation", Text, comment="store path of its .drv"),
    Column("progress", Text, nullable=False, comment="JSON, as in nix.progress"),
    Column("error", Text, comment="why there is no image"),
    Index("builds_of_derivation", "derivation"),
)

last_good = Table(
    "last_good",
    metadata,
    Column("name", String(255), primary_key=True, comment="repository name"),
    Column("tag", String(128), primary_key=True),
    Column("derivation", Text, nullable=False, comment="store path of a .drv"),
)

#: What `blobs` and `manifests` cannot say: every source that has a digest, not only the
#: last one, and where in it a blob's bytes lie, as in oci.descriptor. What is in no row
#: of it can be forgotten.
origins = Table(
    "origins",
    metadata,
    Column("source", ForeignKey(sources.c.id), primary_key=True),
    Column("name", String(255), primary_key=True, comment="repository name"),
    Column("digest", String(135), primary_key=True, comment="of a manifest or blob"),
    Column("path", Text, comment="of the file; none for a manifest"),
    Column("offset", BigInteger, comment="bytes"),
    Column("is_plain", Boolean, comment="whether the file has the bytes as they are"),
    Index("origins_of_digest", "name", "digest"),
)

#: When an image was read; from then it counts if it was built ahead and nobody has
#: pulled it.
sightings = Table(
    "sightings",
    metadata,
    Column("source", ForeignKey(sources.c.id), primary_key=True),
    Column("seen_at", Float, nullable=False, comment="seconds since the epoch, UTC"),
    Column("build_seconds", Float, comment="that nix took; none if it was there"),
)

#: What each tag has meant, and what it means: the row since the latest.
revisions = Table(
    "revisions",
    metadata,
    Column("name", String(255), primary_key=True, comment="repository name"),
    Column("tag", String(128), primary_key=True),
    Column("derivation", Text, primary_key=True, comment="store path of a .drv"),
    Column("digest", String(135), nullable=False, comment="of the preferred manifest"),
    Column("since", Float, nullable=False, comment="seconds since the epoch, UTC"),
)

pulls = Table(
    "pulls",
    metadata,
    Column("name", String(255), primary_key=True, comment="repository name"),
    Column("digest", String(135), primary_key=True, comment="of the manifest"),
    Column("tag", String(128), primary_key=True, comment="empty when by digest"),
    Column("pulled_at", Float, nullable=False, comment="seconds since the epoch, UTC"),
)

#: Kept for a year.
pull_days = Table(
    "pull_days",
    metadata,
    Column("name", String(255), primary_key=True, comment="repository name"),
    Column("digest", String(135), primary_key=True, comment="of the manifest"),
    Column("tag", String(128), primary_key=True, comment="empty when by digest"),
    Column("day", Integer, primary_key=True, comment="days since the epoch, UTC"),
    Column("count", BigInteger, nullable=False),
)
