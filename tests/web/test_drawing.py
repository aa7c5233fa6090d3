"""Tests for `forgereg.web.drawing`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forgereg.web.drawing import Column, Stretch, columns, stretches


def test_parts_side_by_side() -> None:
    """Parts are as wide as they are large, and lie side by side."""
    assert stretches([300, 100]) == (Stretch(0.0, 75.0), Stretch(75.0, 25.0))
    assert stretches([]) == ()
    assert stretches([0]) == (Stretch(0.0, 100.0),)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=500))
def test_every_part_can_be_seen(sizes: list[int]) -> None:
    """Whatever their sizes, parts fill the bar, in their order, and none vanishes."""
    drawn = stretches(sizes)
    assert abs(sum(each.width for each in drawn) - 100) < 0.5
    assert all(each.width > 0 for each in drawn)
    for left, right in zip(drawn, drawn[1:], strict=False):
        assert abs(left.x + left.width - right.x) < 0.01


def test_columns_side_by_side() -> None:
    """Columns are as high as their values, and nothing has none."""
    assert columns([10, 0, 5], 10, 0.6) == (
        Column(6.667, 0.0, 20.0, 100.0),
        Column(40.0, 100.0, 20.0, 0.0),
        Column(73.333, 50.0, 20.0, 50.0),
    )


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=100))
def test_columns_stay_in_the_picture(values: list[int]) -> None:
    """No column leaves the picture, and a single pull can be seen beside a million."""
    for value, each in zip(values, columns(values, max(values), 0.5), strict=True):
        assert 0 <= each.x and each.x + each.width <= 100.01
        assert each.y >= 0 and (each.height >= 3) == (value > 0)
