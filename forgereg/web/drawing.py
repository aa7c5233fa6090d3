"""
Draw with rectangles: numbers in, places on a picture out. Pure.

Pages have their pictures as SVG; all widths are in percent of it, so that it fits any
screen, and nothing needs a style of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

#: How wide what is next to nothing is drawn, so that it can be seen, and how much of the
#: picture all such parts may take, in percent.
_LEAST_WIDTH, _LEAST_WIDTHS = 0.5, 20.0
#: How high what is next to nothing is drawn, in percent.
_LEAST_HEIGHT = 3.0


@frozen
class Stretch:
    """
    A part of a bar.

    :ivar x: where it begins, in percent, as all here.
    """

    x: float
    width: float


@frozen
class Column:
    """
    A column of a chart that stands on its lower end.

    :ivar y: of its upper end, from above.
    """

    x: float
    y: float
    width: float
    height: float


def stretches(sizes: Sequence[int]) -> tuple[Stretch, ...]:
    """Lay parts side by side by their size, all of them wide enough to be seen."""
    total = sum(sizes) or 1
    least = min(_LEAST_WIDTH, _LEAST_WIDTHS / max(1, len(sizes)))
    widths = [max(least, 100 * size / total) for size in sizes]
    scale = 100 / (sum(widths) or 1)
    x, found = 0.0, []
    for width in widths:
        found.append(Stretch(round(x, 3), round(width * scale, 3)))
        x += width * scale
    return tuple(found)


def columns(values: Sequence[int], most: int, share: float) -> tuple[Column, ...]:
    """
    Set columns side by side, one for each value.

    :param most: the value of a column that is as high as the picture.
    :param share: how much of its place a column fills, from 0 to 1.
    """
    place = 100 / max(1, len(values))
    width = place * share
    found = []
    for number, value in enumerate(values):
        height = max(_LEAST_HEIGHT, 100 * value / most) if value else 0.0
        x = number * place + (place - width) / 2
        found.append(
            Column(
                round(x, 3), round(100 - height, 3), round(width, 3), round(height, 3)
            )
        )
    return tuple(found)
