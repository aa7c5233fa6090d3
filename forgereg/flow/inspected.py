"""
What can be told of an image. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from forgereg.flow.anatomy import Anatomy, Config, Difference, Platform
from forgereg.flow.report import Report
from forgereg.oci.reference import Digest, Name, Tag
from forgereg.records.revisions import Making, Sharing

#: For how many days pulls are counted.
DAYS = 90


@frozen
class Commit:
    """
    What an image was built from.

    :ivar locked: locked flake ref, without secrets.
    :ivar revision: of git, or else the hash of its content; empty for neither.
    :ivar url: where it can be read; None where that is not known.
    """

    locked: str
    revision: str
    url: str | None


@frozen
class TagLine:
    """
    A tag, and what it means as far as that is known.

    :ivar digest: of the image; None where it has not been built.
    :ivar since: when it began to mean that, in seconds since the epoch, if known.
    :ivar pulls: by it, in the last `DAYS`.
    :ivar is_past: whether the flake, as far as it is known, has no such tag any more:
        then the image can be pulled by its digest alone.
    """

    tag: Tag
    digest: Digest | None
    since: float | None
    pulls: int
    is_past: bool


@frozen
class Built:
    """
    An image that was built.

    :ivar digest: of what a client is answered first: a manifest, or an index.
    :ivar platforms: that an index lists.
    :ivar platform: which of them is shown; None where there is but one image.
    :ivar manifest: digest of the manifest that is shown.
    :ivar config: None where it does not lie here just now, or is too large.
    :ivar sharing: which other repositories have its layers.
    """

    digest: Digest
    media_type: str
    platforms: tuple[Platform, ...]
    platform: Platform | None
    manifest: Digest
    anatomy: Anatomy
    config: Config | None
    sharing: Mapping[Digest, Sharing]
    making: Making | None
    commit: Commit | None


@frozen
class Step:
    """
    An image that the tag means, or has meant.

    :ivar change: from the one before; None for the first that is known.
    """

    digest: Digest
    since: float | None
    commit: Commit | None
    change: Difference | None


@frozen
class PullDays:
    """
    How often a repository was pulled.

    :ivar by_tag: on each day, the last one last; as ``by_digest``.
    :ivar first: the first day, since the epoch, UTC.
    :ivar last: when that was last, in seconds since the epoch; None: never.
    """

    first: int
    by_tag: tuple[int, ...]
    by_digest: tuple[int, ...]
    last: float | None


@frozen
class Inspected:
    """
    All that is known of an image.

    :ivar tag: that was asked for; None where it was asked for by digest.
    :ivar flake: its ref as configured, without secrets.
    :ivar is_past: whether the tag is, see `TagLine`.
    :ivar is_behind: whether the flake, as far as it is known, has another image by now.
    :ivar is_unread: whether the flake has changed since it was read: what is told of it
        is how it was.
    :ivar build: that is under way for the tag.
    :ivar failed: the last build of what the flake has now, if that failed.
    :ivar image: None where it has not been built.
    :ivar steps: what the tag has meant, the newest first; it begins with the image.
    """

    name: Name
    tag: Tag | None
    flake: str
    description: str | None
    tags: tuple[TagLine, ...]
    is_past: bool
    is_behind: bool
    is_unread: bool
    build: Report | None
    failed: Report | None
    image: Built | None
    steps: tuple[Step, ...]
    pulls: PullDays


@frozen
class Listed:
    """
    An application.

    :ivar is_unread: as that of `Inspected`.
    :ivar names: of its images as far as they are known, sorted.
    """

    name: Name
    description: str | None
    is_unread: bool
    names: tuple[str, ...]
