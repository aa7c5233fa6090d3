"""Tests for the pictures."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.pictures import draw
from benchmarks.table import Mark, Point, Row, Run

RUN = Run(
    (
        Row("blob", "a blob", "nginx", 1.0, 2.0, mark=Mark(1.0)),
        Row("crowd", "many", "nginx", 1, 2, "MB/s", mark=Mark(0.9, is_least=True)),
        Row("coding-50mbit-gzip", "a layer", "plain", 4.0, 8.0),
    ),
    (Point("10 layers", 10**9, 2.0),),
    {},
)


def test_pictures() -> None:
    """Pictures are SVG without scripts, and name what they show."""
    drawn = draw(RUN)
    assert set(drawn) == {"marks.svg", "shapes.svg", "links.svg"}
    for svg, title in drawn.values():
        tree = ElementTree.fromstring(svg)
        assert not list(tree.iter("{http://www.w3.org/2000/svg}script"))
        # A long one is written on several lines.
        assert "".join(title.split()) in "".join("".join(tree.itertext()).split())
    assert "crowd" in drawn["marks.svg"][0]


def test_same_picture() -> None:
    """The same run gives the same picture, so that a diff shows what changed."""
    assert draw(RUN) == draw(RUN)


def test_nothing_to_see() -> None:
    """There is no picture of what was not measured."""
    assert draw(Run((), (), {})) == {}
