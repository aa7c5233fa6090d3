"""
Read what nix answered about a package of a flake. Pure.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from attrs import frozen

from forgereg.flow.families import Wanted
from forgereg.nix.refs import LATEST
from forgereg.oci.errors import NameUnknown
from forgereg.oci.reference import is_tag


@frozen
class Package:
    """
    What the flake says of a package or application.

    :ivar attribute: its name in the flake, in the flake's own case.
    :ivar derivation: store path of the ``.drv`` of what is to be built.
    :ivar version: its own, if it says one.
    """

    attribute: str
    derivation: str
    version: str | None

    @property
    def tags(self) -> list[str]:
        """The tags that mean this package, sorted."""
        tags = {LATEST}
        if self.version is not None and is_tag(self.version):
            tags.add(self.version)
        return sorted(tags)


def read_package(answer: Any, wanted: Wanted, flake: str, path: str) -> Package:
    """
    Read the answer to `forgereg.nix.flake.package_query`.

    :param flake: flake ref as anyone may read it.
    :param path: what the names of its images begin with, with a slash at the end.
    :raises NameUnknown: no such package, or nothing of it that can be served.
    """
    match answer:
        case {
            "status": "ok",
            "attribute": str(attribute),
            "derivation": str(derivation),
            "version": version,
        }:
            return Package(attribute, derivation, version)
        case {"status": "no-package", "names": list(names)}:
            raise NameUnknown(_no_package(flake, wanted, names))
        case {"status": "ambiguous", "names": list(names)}:
            raise NameUnknown(
                f"the flake {flake} has {' and '.join(names)}, which are one"
                " name in lower case: rename all but one"
            )
        case {"status": "no-output", "has": list(has)}:
            raise NameUnknown(_no_output(flake, path, wanted, has))
    raise NameUnknown(
        f"{wanted.attribute}.{wanted.output} in the flake {flake} is not a derivation"
    )


def _no_package(flake: str, wanted: Wanted, names: list[str]) -> str:
    kind = "application" if wanted.output == "containers" else "package"
    shown = {n.lower(): n for n in names if not n.startswith("_")}
    near = get_close_matches(wanted.attribute, shown, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"the flake {flake} has no {kind} {wanted.attribute!r}{hint}"


def _no_output(flake: str, path: str, wanted: Wanted, has: list[str]) -> str:
    name = wanted.attribute
    hint = "set passthru.image to what dockerTools.buildLayeredImage gives"
    if wanted.output == "containers":
        hint = "set passthru.containers to a directory of docker-archives"
    if "containers" in has:
        hint = f"it is an application: pull {path}applications/{name}/<image>"
    if "image" in has:
        hint = f"it is a package: pull {path}packages/{name}"
    return f"{name!r} in the flake {flake} has no attribute {wanted.output!r}; {hint}"
