"""
What a repository's name asks of the flake. Pure.

::

    packages/<package>                  <flake>#<package>.image, an archive
    applications/<application>/<image>  <flake>#<application>.containers, a directory
                                        that holds <image>.tar.gz, .tar.zst or .tar
"""

from __future__ import annotations

from attrs import frozen

from forgereg.oci.errors import NameUnknown
from forgereg.oci.reference import Name

#: How an archive in an application's directory may end; its name lacks the ending.
ENDINGS = (".tar.gz", ".tar.zst", ".tar")


@frozen
class Wanted:
    """
    What to build, and what to take of it.

    :ivar attribute: the package or application.
    :ivar output: which of its attributes is built.
    :ivar member: the image's name in the directory that is built; None where the
        archive itself is.
    """

    attribute: str
    output: str
    member: str | None = None


def parse_wanted(name: Name, prefix: str = "") -> Wanted:
    """
    Say what a repository's name asks for.

    :param prefix: of the flake that has it; without a slash at the end.
    :raises NameUnknown: it is of no family that is served here.
    """
    path = f"{prefix}/" if prefix else ""
    match tuple(name.text.removeprefix(path).split("/")):
        case ("packages", package):
            return Wanted(package, "image")
        case ("applications", application, image):
            return Wanted(application, "containers", image)
        case ("applications", _):
            raise NameUnknown(
                f"{name} is an application, not an image: name one of its images,"
                f" as in {name}/<image>"
            )
    raise NameUnknown(
        f"{name} is of no family that is served here: {path}packages/<package> and"
        f" {path}applications/<application>/<image>"
    )


def image_name(entry: str) -> str | None:
    """
    Give the name of the image that a directory's entry holds.

    :returns: None for what is no archive, by its ending.
    """
    for ending in ENDINGS:
        if entry.endswith(ending) and entry != ending:
            return entry.removesuffix(ending)
    return None
