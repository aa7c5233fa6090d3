"""
Write lines of a log for a page: text, and classes for the colours it is to have. Pure.

Of what steers a terminal colours alone are heeded, and those are the sixteen that each
terminal has; the nearest of them stands for any other.
"""

from __future__ import annotations

from functools import lru_cache

from rich.ansi import AnsiDecoder
from rich.color import Color, ColorSystem
from rich.style import Style

from forgereg.lines import HARMLESS, visible
from forgereg.nix.events import coloured, plain

#: How much of a line is shown, in characters, and how often its colour may change.
MOST_SHOWN = 4000
_MOST_CHANGES = 100

#: Text and its classes, one after another.
Pieces = list[tuple[str, str]]
_REST: Pieces = [("… cut here: the file has the rest", "cut")]


def pieces(line: str, is_cut: bool = False) -> Pieces:
    """
    Cut a line where its colour changes.

    :param is_cut: whether there is more of it; if so, or if not all of it is shown, the
        last piece says so.
    :returns: pieces of text with the classes that they are to have, with blanks between
        them; what cannot be seen, or changes the direction of what can, is written out.
    """
    line = coloured(line)
    if "\x1b" not in line:
        shown = [(visible(line[:MOST_SHOWN], HARMLESS), "")] if line else []
        return [*shown, *_REST] if is_cut or len(line) > MOST_SHOWN else shown
    *begin, rest = line.split("\x1b", _MOST_CHANGES)
    if len(begin) == _MOST_CHANGES:
        line = "\x1b".join(begin) + plain(f"\x1b{rest}")
    text = AnsiDecoder().decode_line(line)
    more = _REST if is_cut or len(text.plain) > MOST_SHOWN else []
    text.truncate(MOST_SHOWN)
    found: Pieces = []
    end = 0
    for span in text.spans:
        if span.start > end:
            found.append((visible(text.plain[end : span.start], HARMLESS), ""))
        style = span.style if isinstance(span.style, Style) else Style()
        found.append(
            (visible(text.plain[span.start : span.end], HARMLESS), _classes(style))
        )
        end = span.end
    rest = text.plain[end:]
    return [*found, *([(visible(rest, HARMLESS), "")] if rest else []), *more]


@lru_cache(1000)
def _classes(style: Style) -> str:
    ink, sheet = _number(style.color), _number(style.bgcolor)
    if style.reverse:
        ink, sheet = sheet, ink
    names = {
        f"ink-{ink}": ink is not None,
        f"sheet-{sheet}": sheet is not None,
        "turned": style.reverse and ink is None and sheet is None,
        "bold": style.bold,
        "dim": style.dim,
        "italic": style.italic,
        "underline": style.underline,
        "strike": style.strike,
    }
    return " ".join(name for name, is_so in names.items() if is_so)


def _number(colour: Color | None) -> int | None:
    """Give the nearest of sixteen colours; None for that of the page."""
    if colour is None or colour.is_default:
        return None
    return colour.downgrade(ColorSystem.STANDARD).number
