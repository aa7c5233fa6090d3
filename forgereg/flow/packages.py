"""
Read what nix answered about a package of a flake. Pure.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from attrs import frozen

from forgereg.flow.families import CONTAINERS, IMAGE, Wanted
from forgereg.nix.refs import LATEST
from forgereg.oci.errors import NameUnknown
from forgereg.oci.reference import is_tag

#: How many names a message lists.
_NAMES_SHOWN = 20
#: An attribute's name that needs no quotes.
#: Source: nix manual, "Identifiers", without what is a keyword.
_IDENTIFIER = re.compile(
    r"(?!(?:assert|else|if|in|inherit|let|or|rec|then|with)\Z)[a-zA-Z_][a-zA-Z0-9_'-]*"
)
#: A program's name that needs no escaping.
_PROGRAM = re.compile(r"[a-zA-Z0-9_.+-]{1,80}")


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
        case {
            "status": "no-output",
            "attribute": str(attribute),
            "has": list(has),
            "program": program,
        }:
            program = program or wanted.attribute
            raise NameUnknown(_no_output(flake, path, wanted, attribute, program, has))
    raise NameUnknown(
        f"{wanted.attribute}.{wanted.output} in the flake {flake} is not a derivation;"
        " a path becomes one by"
        ' pkgs.runCommand "image" { } "cp -r ${./image} $out"'
    )


def _no_package(flake: str, wanted: Wanted, names: list[str]) -> str:
    is_application = wanted.output == CONTAINERS
    kind = "application" if is_application else "package"
    shown = {n.lower(): n for n in names if not n.startswith("_")}
    near = get_close_matches(wanted.attribute, shown, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    if is_application and not near:
        listed = ", ".join(sorted(shown)[:_NAMES_SHOWN])
        hint = f"; it has: {listed}" if listed else "; it has none at all"
    return f"the flake {flake} has no {kind} {wanted.attribute!r}{hint}"


def _no_output(
    flake: str, path: str, wanted: Wanted, attribute: str, program: str, has: list[str]
) -> str:
    name = wanted.attribute
    lacks = f"{attribute!r} in the flake {flake} has no attribute {wanted.output!r}"
    if CONTAINERS in has:
        return f"{lacks}; it is an application: pull {path}applications/{name}/<image>"
    if IMAGE in has:
        return f"{lacks}; it is a package: pull {path}packages/{name}"
    key = attribute if _IDENTIFIER.fullmatch(attribute) else f'"{attribute}"'
    program = program if _PROGRAM.fullmatch(program) else name
    add = f"  {key} = let p = <what it is now>; in p // {{ {wanted.output} ="
    images = f"{path}applications/{name}/<image>"

    def layered(name: str) -> str:
        return (
            f'pkgs.dockerTools.buildLayeredImage {{ name = "{name}"; contents = [ p ];'
            f' config.Cmd = [ "/bin/{program}" ]; }};'
        )

    if wanted.output == CONTAINERS:
        return (
            f"{lacks}; add a directory of images, as in\n"
            f'{add} pkgs.linkFarm "{name}-containers" {{ "web.tar.gz" ='
            f" {layered('web')} }}; }};\n"
            f"and pull each of them as {images}"
        )
    return (
        f"{lacks}; add one, as in\n"
        f"{add} {layered(name)} }};\n"
        "(what streamLayeredImage and nix2container make is served as well, and so is an"
        f" OCI layout; a directory of images is to be called 'containers', and gives"
        f" {images})"
    )
