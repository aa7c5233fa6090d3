"""
What a repository's name asks of the flake. Pure.

::

    packages/<package>                  <flake>#<package>.image, an image
    applications/<application>/<image>  <flake>#<application>.containers, a directory
                                        that holds <image>.tar.gz or the like
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen

from forgereg.oci.errors import NameUnknown
from forgereg.oci.reference import Name, is_name

#: How what holds an image may end in an application's directory; the image's name
#: lacks the ending. It says nothing about the content. Those first count first.
ENDINGS = (
    ".tar.gz",
    ".tgz",
    ".tar.zst",
    ".tar.xz",
    ".tar",
    ".oci",
    ".json",
    "",
)

#: What of a package is built for an image, and for an application.
IMAGE, CONTAINERS = "image", "containers"


@frozen
class Wanted:
    """
    What to build, and what to take of it.

    :ivar attribute: the package or application.
    :ivar output: which of its attributes is built.
    :ivar member: the image's name in the directory that is built; None where that is
        the image itself, or all of the directory is wanted.
    """

    attribute: str
    output: str
    member: str | None = None

    @property
    def is_directory(self) -> bool:
        """Whether all of an application is wanted, rather than an image."""
        return self.output == CONTAINERS and self.member is None


def parse_wanted(name: Name, prefix: str = "") -> Wanted:
    """
    Say what a repository's name asks for.

    :param prefix: of the flake that has it; without a slash at the end.
    :raises NameUnknown: it is of no family that is served here.
    """
    path = f"{prefix}/" if prefix else ""
    match tuple(name.text.removeprefix(path).split("/")):
        case ("packages", package):
            return Wanted(package, IMAGE)
        case ("applications", application, image):
            return Wanted(application, CONTAINERS, image)
        case ("applications", _):
            raise NameUnknown(
                f"{name} is an application, not an image: name one of its images,"
                f" as in {name}/<image>"
            )
    raise NameUnknown(
        f"{name} is of no family that is served here: {path}packages/<package> and"
        f" {path}applications/<application>/<image>"
    )


def parse_application(name: Name, prefix: str = "") -> Wanted:
    """
    Say what an application's name asks for: all of its directory.

    :param prefix: as of `parse_wanted`.
    :raises NameUnknown: no flake has such names.
    """
    path = f"{prefix}/" if prefix else ""
    match tuple(name.text.removeprefix(path).split("/")):
        case ("applications", application):
            return Wanted(application, CONTAINERS)
    raise NameUnknown(
        f"no flake is served here whose applications are called {name}; /v2/_catalog"
        " lists what there is"
    )


def image_name(entry: str) -> str | None:
    """
    Give the name of the image that an entry of an application's directory holds.

    What has none of the `ENDINGS` may be a directory or a script, and holds an image if
    its name is in lower case and has no dot: ``web``, but not ``README`` nor
    ``compose.yaml``.

    :returns: in lower case; None for what holds no image, by its name.
    """
    ending = next(ending for ending in ENDINGS if entry.endswith(ending))
    name = entry.removesuffix(ending)
    is_one = is_name(name.lower()) if ending else is_name(name) and "." not in name
    return name.lower() if is_one and "/" not in name else None


def paths_listed(row: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """
    Say what a package that a flake lists can be pulled as.

    :param row: as `Flake.listed` has it.
    :param path: what all names of the flake begin with.
    :returns: ``IMAGE`` and a repository, ``CONTAINERS`` and an application, or both.
    """
    for family, output in (("packages", IMAGE), ("applications", CONTAINERS)):
        if row[output]:
            yield output, f"{path}{family}/{row['name'].lower()}"


def images_in(entries: Iterable[str]) -> dict[str, str]:
    """
    Say which images an application's directory holds.

    :returns: by name, the entry that it is in: where there are several, that with the
        first of `ENDINGS`, and of those the one in lower case.
    """
    found: dict[str, str] = {}

    def rank(entry: str) -> tuple[int, bool, str]:
        ending = next(n for n, end in enumerate(ENDINGS) if entry.endswith(end))
        return ending, entry != entry.lower(), entry

    for entry in sorted(entries, key=rank):
        name = image_name(entry)
        if name is not None:
            found.setdefault(name, entry)
    return found
