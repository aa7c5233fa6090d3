"""Tests for `forgereg.nix.events`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.nix.events import (
    Line,
    Said,
    Started,
    Stopped,
    Told,
    is_builder_line,
    parse_event,
    parse_line,
)
from forgereg.nix.longlines import LineCutter

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def nix(**event: Any) -> bytes:
    return b"@nix " + json.dumps(event).encode()


def log_line(text: str) -> bytes:
    return nix(action="result", fields=[text], id=7, type=101)


def test_line_of_a_builder() -> None:
    """What a builder prints reaches whoever waits for the build."""
    assert parse_line(log_line("make: *** [all] Error 2")) == Line(
        Said.BUILDER, "make: *** [all] Error 2"
    )


def test_error_of_an_older_nix() -> None:
    """An error is read from the message where that is all there is."""
    line = nix(action="msg", level=0, msg="\x1b[31;1merror:\x1b[0m no such attribute")
    read = parse_line(line)
    assert read is not None
    assert (read.said, read.text) == (Said.ERROR, "error: no such attribute")


def test_error_without_its_trace() -> None:
    """Of an error with a trace, only what went wrong is told, and where."""
    line = nix(
        action="msg",
        level=0,
        msg="error:\n       … a long trace\n       error: it is broken",
        raw_msg="it is broken",
        file="/nix/store/0c1hz5ndfr5zz0r2a8w5mq8g7v4q6l8x-source/pkgs/web.nix",
        line=12,
        column=5,
    )
    assert parse_line(line) == Line(Said.ERROR, "it is broken (at pkgs/web.nix:12:5)")


@pytest.mark.parametrize("level", [1, 2])
def test_warnings_are_notices(level: int) -> None:
    """A warning is told apart from an error."""
    line = nix(action="msg", level=level, msg="Git tree is dirty")
    assert parse_line(line) == Line(Said.NOTICE, "Git tree is dirty")


@pytest.mark.parametrize(
    "line",
    [
        nix(action="start", id=1, level=4, parent=0, text="copying", type=0),
        nix(action="stop", id=1),
        nix(action="result", fields=[0, 1, 0, 0], id=1, type=105),
        nix(action="msg", level=3, msg="these 2 derivations will be built:"),
        nix(action="result", fields=[], id=1, type=101),
        nix(action="result", fields=[5], id=1, type=101),
        b"@nix {",
        b"@nix " + b"[" * 100_000,
        b"@nix 5",
        b"@nix \xff",
        b"",
        b"\x1b[0m",
    ],
    ids=range(12),
)
def test_what_is_no_message(line: bytes) -> None:
    """Progress, and what cannot be read, is not shown to anybody."""
    assert parse_line(line) is None


def test_what_the_children_of_nix_say() -> None:
    """What git or ssh print past nix's own format is shown all the same."""
    assert parse_line(b"fatal: not a git repository\r") == Line(
        Said.OTHER, "fatal: not a git repository"
    )
    assert parse_line(b"caf\xe9") == Line(Said.OTHER, "caf�")


def test_lines_stay_lines() -> None:
    """A message of several lines keeps them, and its tabs."""
    line = nix(action="msg", level=0, msg="error: one\n\ttwo\n")
    assert parse_line(line) == Line(Said.ERROR, "error: one\n\ttwo")


@given(text=st.text())
def test_nothing_that_steers_a_terminal(text: str) -> None:
    """No builder can colour, move or clear the terminal of whoever pulls."""
    line = parse_line(log_line(text))
    assert line is not None
    assert not any(ord(c) < 32 and c not in "\t\n" or c == "\x7f" for c in line.text)


@pytest.mark.parametrize(
    "escape",
    [
        "\x1b[31;1m",
        "\x1b[0K",
        "\x1b[2J",
        "\x1b[?25l",
    ],
)
def test_colours_leave_no_litter(escape: str) -> None:
    """What a terminal would not have shown is not shown either."""
    line = parse_line(log_line(f"be{escape}fore"))
    assert line is not None and line.text == "before"


@pytest.mark.parametrize(
    ("text", "coloured"),
    [
        ("\x1b[31;1mred\x1b[0m", "\x1b[31;1mred\x1b[0m"),
        (
            "\x1b[2J\x1b[32mgreen\x1b]8;;http://x\x07 \x1b[?25l",
            "\x1b[32mgreen",
        ),
        ("\x1b[0Kplain", ""),
        ("plain", ""),
    ],
)
def test_colours(text: str, coloured: str) -> None:
    """Colours are kept for who can show them, and nothing else that steers."""
    line = parse_line(log_line(text))
    assert line is not None and line.coloured == coloured


def test_line_written_over() -> None:
    """Of a line that a builder writes again and again its last state is left."""
    line = parse_line(log_line("10 %\r50 %\r100 %\r"))
    assert line == Line(Said.BUILDER, "100 %")


def test_control_characters_of_the_second_kind() -> None:
    """The one-character control sequences of some terminals do not get through."""
    line = parse_line(log_line("a\x9b2Jb\x9d0;title\x9cc"))
    assert line is not None
    assert not any(0x80 <= ord(c) < 0xA0 for c in line.text)


@given(event=ANYTHING, raw=st.binary())
def test_any_line_is_read(event: Any, raw: bytes) -> None:
    """No line that a builder forges can stop a pull."""
    for line in (b"@nix " + json.dumps(event).encode(), raw, b"@nix " + raw):
        read = parse_line(line)
        assert read is None or isinstance(read.text, str)


@settings(max_examples=30)
@given(
    event=st.fixed_dictionaries(
        {
            "action": st.sampled_from(["msg", "result"]),
            "level": st.sampled_from([0, 1, 2, 3]) | ANYTHING,
            "type": st.just(101) | ANYTHING,
            "fields": st.lists(ANYTHING) | ANYTHING,
            "msg": ANYTHING,
            "raw_msg": ANYTHING,
            "file": ANYTHING,
            "line": ANYTHING,
            "column": ANYTHING,
        }
    )
)
def test_any_event_is_read(event: Any) -> None:
    """An event whose fields are not what they should be does no harm."""
    parse_line(nix(**event))


def test_activity_is_told_from_beginning_to_end() -> None:
    """What nix begins, tells of, and ends is read as such."""
    began = nix(action="start", id=2**60, level=3, type=105, fields=["x"], text="so")
    assert parse_event(began) == Started(2**60, 105, ("x",), "so")
    told = nix(action="result", id=2**60, type=105, fields=[1, 2, 0, 0])
    assert parse_event(told) == Told(2**60, 105, (1, 2, 0, 0))
    assert parse_event(nix(action="stop", id=2**60)) == Stopped(2**60)


def test_activity_without_particulars() -> None:
    """An activity of an older nix may say no more than what kind it is."""
    assert parse_event(nix(action="start", id=1, type=104)) == Started(1, 104, (), "")


def test_phase_is_no_line() -> None:
    """The phase of a build is told apart from the lines of its log."""
    told = nix(action="result", id=1, type=104, fields=["buildPhase"])
    assert parse_event(told) == Told(1, 104, ("buildPhase",))
    assert isinstance(parse_event(log_line("buildPhase")), Line)


@pytest.mark.parametrize(
    "event",
    [
        {"action": "start", "id": "1", "type": 104},
        {"action": "start", "id": 1},
        {"action": "stop", "id": None},
        {"action": "stop", "id": 1.5},
        {"action": "result", "id": 1, "type": "104", "fields": []},
        {"action": "dance", "id": 1},
    ],
)
def test_what_is_no_event(event: dict[str, Any]) -> None:
    """An event that makes no sense is passed over."""
    assert parse_event(nix(**event)) is None


def test_line_of_a_builder_is_told_unread() -> None:
    """A flood of log lines can be told without reading them."""
    line = log_line("x").replace(b", ", b",").replace(b": ", b":")
    assert is_builder_line(line)
    assert not is_builder_line(line.replace(b'"x"', b'"%s"' % (b"x" * 5000)))
    for other in (b"", b"@nix ", b"warning", line[:-1], line.replace(b"101", b"104")):
        assert not is_builder_line(other)


def test_recorded_lines_are_told_unread() -> None:
    """All that a builder says, and nothing else, is told unread in a true stream."""
    lines = Path(__file__).with_name("remote.events").read_bytes().splitlines()
    spoken = [line for line in lines if is_builder_line(line)]
    assert spoken
    for line in lines:
        read = parse_event(line)
        is_spoken = isinstance(read, Line) and read.said is Said.BUILDER
        assert is_spoken == is_builder_line(line)


@given(text=st.text())
def test_every_line_can_be_written(text: str) -> None:
    """No line that a builder says is one that a file or a page could not hold."""
    line = parse_line(log_line(text))
    assert line is not None
    line.text.encode()


@pytest.mark.parametrize("character", ["x", "é", "\x1b", '"', "\\"])
def test_long_line_of_a_builder(character: str) -> None:
    """A line that is too long to be read is cut, and said to be; it does not vanish."""
    for shift in range(7):
        cutter = LineCutter()
        text = "ab" + "c" * shift + character * 2**20
        (raw,) = cutter.feed(log_line(text) + b"\n")
        line = parse_line(raw)
        assert line is not None and line.said is Said.BUILDER
        assert line.text.startswith("abc"[: 2 + bool(shift)]) and line.left_out


def test_long_error() -> None:
    """So is an error, of whichever nix."""
    for names in (("msg",), ("msg", "raw_msg")):
        event = {name: "error: it is broken" + "x" * 2**20 for name in names}
        (raw,) = LineCutter().feed(nix(action="msg", level=0, **event) + b"\n")
        line = parse_line(raw)
        assert line is not None and line.said is Said.ERROR and line.left_out
        assert line.text.startswith("error: it is broken")
