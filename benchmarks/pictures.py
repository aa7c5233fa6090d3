"""
Pictures of a run, as SVG. Pure.
"""

from __future__ import annotations

import math
import re
from typing import Any

import pygal
from pygal.style import CleanStyle

from benchmarks.table import Run

_MET, _MISSED = "#2a9d8f", "#e76f51"
_COLORS = ("#2a9d8f", "#264653", "#e9c46a", "#e76f51")
_WIDTH, _LINE, _MARGIN = 900, 28, 130


def draw(run: Run) -> dict[str, tuple[str, str]]:
    """
    Draw what there is to be seen.

    Equal runs give equal text.

    :returns: SVG and its title, by the name of its file.
    """
    drawn = {
        "marks.svg": _marks(run),
        "shapes.svg": _shapes(run),
        "links.svg": _links(run),
    }
    return {name: found for name, found in drawn.items() if found is not None}


def _marks(run: Run) -> tuple[str, str] | None:
    used: dict[str, dict[str, Any]] = {}
    for row in reversed(run.rows):  # the first bar is the lowest
        if row.mark is None or not row.ratio:
            continue
        of_limit = row.ratio / row.mark.limit
        share = 1 / of_limit if row.mark.is_least else of_limit
        color = _MET if row.mark.is_met(row.ratio) else _MISSED
        used[row.key] = {"value": round(share, 2), "color": color}
    if not used:
        return None
    title = "How much is used of what each mark allows; 1 and less meets it"
    chart = _chart(pygal.HorizontalBar, title, len(used), show_legend=False)
    chart.x_labels = list(used)
    most = max(bar["value"] for bar in used.values())
    chart.y_labels = [step / 2 for step in range(math.ceil(2 * most) + 1)]
    chart.y_labels_major = [1.0]
    chart.add("", list(used.values()))
    return _written(chart), title


def _shapes(run: Run) -> tuple[str, str] | None:
    if not run.points:
        return None
    title = "Seconds until the first manifest, by the bytes of a plain archive"
    chart = _chart(
        pygal.XY, title, 10, stroke=False, x_title="GB", y_title="s", dots_size=5
    )
    for point in run.points:
        at = (round(point.size / 1e9, 3), round(point.seconds, 3))
        chart.add(point.archive, [(0, 0), at], stroke=True)
    return _written(chart), title


def _links(run: Run) -> tuple[str, str] | None:
    rows = [row for row in run.rows if row.key.startswith("coding-") and row.ratio]
    if not rows:
        return None
    title = "Seconds for a layer over a slow link"
    rows.reverse()
    chart = _chart(pygal.HorizontalBar, title, 2 * len(rows), legend_at_bottom=True)
    chart.x_labels = [row.key.removeprefix("coding-") for row in rows]
    chart.add("coded", [round(row.ours or 0, 2) for row in rows])
    chart.add("plain", [round(row.theirs or 0, 2) for row in rows])
    return _written(chart), title


def _chart(kind: Any, title: str, lines: int, **options: Any) -> Any:
    chart = kind(
        title=title,
        width=_WIDTH,
        height=_MARGIN + _LINE * lines,
        explicit_size=True,
        style=CleanStyle(colors=_COLORS, font_family="sans-serif"),
        print_values=kind is pygal.HorizontalBar,
        disable_xml_declaration=True,
        pretty_print=True,
        js=[],
        **options,
    )
    chart.uuid = "drawn"  # it would be another one each time
    return chart


def _written(chart: Any) -> str:
    """Render without scripts, the date, and the library's name and terms."""
    text: str = chart.render(is_unicode=True)
    text = re.sub(r"<!--.*?-->|/\*.*?\*/|<script.*?</script>", "", text, flags=re.S)
    return re.sub(r"\s*\n\s*", "\n", text).strip() + "\n"
