"""Tests for `forgereg.flow.packages`."""

from __future__ import annotations

import pytest

from forgereg.flow.families import Wanted
from forgereg.flow.packages import Package, read_package
from forgereg.oci.errors import NameUnknown


def refusal(answer: object, name: str = "hello", output: str = "image") -> str:
    with pytest.raises(NameUnknown) as unknown:
        read_package(answer, Wanted(name, output), "github:acme/forge", "")
    return unknown.value.detail


def without_image(attribute: str = "hello", program: str | None = None) -> str:
    answer: dict[str, object] = {
        "status": "no-output", "attribute": attribute, "has": [], "program": program,
    }  # fmt: skip
    return refusal(answer, attribute.lower())


def test_package() -> None:
    """What nix says of a package is read, in the flake's own case."""
    answer: dict[str, object] = {
        "status": "ok",
        "attribute": "Hello",
        "derivation": "/nix/store/x.drv",
        "version": None,
    }
    package = read_package(answer, Wanted("hello", "image"), "f", "")
    assert package == Package("Hello", "/nix/store/x.drv", None)
    assert package.tags == ["latest"]


def test_what_to_add() -> None:
    """Whoever pulls a package without an image reads what to add to the flake."""
    assert without_image("ImageMagick", "magick") == (
        "'ImageMagick' in the flake github:acme/forge has no attribute 'image'; add"
        " one, as in\n"
        "  ImageMagick = let p = <what it is now>; in p // { image ="
        ' pkgs.dockerTools.buildLayeredImage { name = "imagemagick"; contents = [ p ];'
        ' config.Cmd = [ "/bin/magick" ]; }; };\n'
        "(what streamLayeredImage and nix2container make is served as well, and so is"
        " an OCI layout; a directory of images is to be called 'containers', and gives"
        " applications/imagemagick/<image>)"
    )


@pytest.mark.parametrize(
    ("attribute", "written"),
    [
        ("hello", "hello ="),
        ("a.b", '"a.b" ='),
        ("7zip", '"7zip" ='),
        ("with", '"with" ='),
        ("without-x", "without-x ="),
    ],
)
def test_attributes_that_need_quotes(attribute: str, written: str) -> None:
    """What is to be added can be copied into a flake, whatever the package is called."""
    assert f"\n  {written} let p = " in without_image(attribute)


@pytest.mark.parametrize("program", [None, "", 'x" ]; evil', "${x}", "x" * 99, "a\nb"])
def test_programs_that_are_none(program: str | None) -> None:
    """A package that does not say what is run of it is taken to be called so."""
    assert 'config.Cmd = [ "/bin/hello" ]' in without_image(program=program)


def test_applications_there_are() -> None:
    """Whoever asks for an application that is like no other reads which there are."""
    nothing: dict[str, object] = {"status": "no-package", "names": ["Shop", "forum"]}
    assert refusal(nothing, "x", "containers").endswith("; it has: forum, shop")
    assert "did you mean shop?" in refusal(nothing, "shap", "containers")
    nothing["names"] = []
    assert refusal(nothing, "x", "containers").endswith("; it has none at all")
    nothing["names"] = [f"a{n:02}" for n in range(99)]
    assert len(refusal(nothing, "x", "containers")) < 200
