"""
Say what tags mean and have meant, as far as that is known. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from forgereg.flow.inspected import TagLine
from forgereg.flow.packages import Package
from forgereg.nix.refs import LATEST, is_revision
from forgereg.oci.reference import Digest, Tag
from forgereg.records.revisions import Revision

#: How many tags are listed.
_MOST_TAGS = 200


def list_tags(
    package: Package | None,
    git_tags: Sequence[str] | None,
    revisions: Sequence[Revision],
    pulls: Mapping[Tag, int],
    asked: object,
) -> tuple[TagLine, ...]:
    """
    List tags: those of the flake, those that were pulled, those of git.

    :param package: as the flake has it now; None where that is not known.
    :param git_tags: likewise.
    :param asked: is among those listed if it is among those known.
    """
    own = [*map(Tag, package.tags if package else ())]
    there = {*own, *map(Tag, git_tags or ())}
    is_sure = package is not None and git_tags is not None
    meant: dict[Tag, list[Revision]] = {}
    for each in revisions:
        meant.setdefault(each.tag, []).append(each)
    # The flake's own come first, git's last: of those there may be very many.
    known = dict.fromkeys((*own, *meant, *map(Tag, git_tags or ())))
    listed = [*islice(known, _MOST_TAGS)]
    listed += [tag for tag in known if tag == asked and tag not in listed]
    lines = []
    for tag in listed:
        now = find_meant(tag, package, meant.get(tag, ()))
        digest, since = (now.digest, now.since) if now else (None, None)
        # A revision of git is in no list.
        is_past = is_sure and tag not in there and not is_revision(tag.text)
        lines.append(TagLine(tag, digest, since, pulls.get(tag, 0), is_past))
    return tuple(sorted(lines, key=lambda line: line.tag.text != LATEST))


def find_meant(
    reference: Tag | Digest, package: Package | None, revisions: Sequence[Revision]
) -> Revision | None:
    """Give the image that is meant: as the flake is now, or else the last one."""
    if isinstance(reference, Digest):
        return next((each for each in revisions if each.digest == reference), None)
    mine = [each for each in revisions if each.tag == reference]
    now = package.derivation if package and reference.text in package.tags else None
    as_it_is_now = (each for each in mine if each.derivation == now)
    return next(as_it_is_now, next(iter(mine), None))


def is_now(meant: Revision, package: Package | None, tag: Tag | None) -> bool:
    """Whether an image is what the flake has now, as far as that is known."""
    if package is None or tag is None or tag.text not in package.tags:
        return True
    return meant.derivation == package.derivation


def find_past(
    meant: Revision | None, revisions: Sequence[Revision], most: int
) -> list[Revision]:
    """Give what a tag means and has meant before that, the newest first."""
    if meant is None:
        return []
    mine = [each for each in revisions if each.tag == meant.tag]
    return mine[mine.index(meant) :][:most]
