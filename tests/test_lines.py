"""Tests for `forgereg.lines`."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure

from forgereg.lines import Access, Answered, header_text, json_line, masked, text_line

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(),
    lambda each: st.lists(each) | st.dictionaries(ANY_TEXT, each),
    max_leaves=5,
)
HOSTILE = "a\nb\r\x1b[2J\x00\x85\u2028\u202e\udc80 https://me:sesame@host/?token=sesame"
ANSWERED = Answered("GET", "/v2/", "HTTP/1.1", 200, 2, None, 'curl "8" \\', None)


def event(log_format: str, **fields: Any) -> LogEvent:
    return {
        "log_format": log_format,
        "log_level": LogLevel.info,
        "log_namespace": "forgereg.tests",
        "log_time": 1_700_000_000.25,
        **fields,
    }


class Unspeakable:
    """Fails whenever it is asked what it is."""

    def __repr__(self) -> NoReturn:
        raise RuntimeError("no")

    __str__ = __repr__


def read(line: str) -> dict[str, Any]:
    """Read a line as any reader of JSON does."""
    assert line.isascii() and "\n" not in line
    parsed = json.loads(line, parse_constant=pytest.fail)
    assert isinstance(parsed, dict)
    json.dumps(parsed, ensure_ascii=False).encode()  # no halves of pairs
    return parsed


def test_json() -> None:
    """A line for machines has when, how bad, from where, what, and each field."""
    said = event("{image}: {count}", image="hello", count=2, nested={"a": (1, b"x")})
    assert read(json_line(said, {"request_id": "r1"})) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "namespace": "forgereg.tests",
        "message": "hello: 2",
        "request_id": "r1",
        "image": "hello",
        "count": 2,
        "nested": {"a": [1, "x"]},
    }


def test_text() -> None:
    """A line for people has when, from where, how bad, which request, and what."""
    line = text_line(event("{image}: built", image="hello"), {"request_id": "r1"})
    when, _, rest = line.partition(" ")
    assert when.startswith("2023-11-1") and when[-5] in "+-"
    assert rest == "[forgereg.tests#info r1] hello: built"


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_VALUE))
def test_whatever_is_logged(log_format: str, fields: dict[str, Any]) -> None:
    """Any text and any fields make one line, in either format, that anybody can read."""
    said = {**fields, **event(log_format)}
    line = text_line(said, {})
    assert line.isprintable()
    line.encode()
    made = json_line(said, {})
    assert bool(made) == bool(line)
    if made:
        assert read(made)["namespace"] == "forgereg.tests"


def test_hostile() -> None:
    """What would break a line, steer a terminal or show a password does not."""
    said = event("{text}", text=HOSTILE, odd=Unspeakable(), far=10**5000)
    line = text_line(said, {})
    assert r"a\nb\r\x1b[2J\x00\x85\u2028\u202e\udc80 https://***@host" in line
    read_back = read(json_line(said, {}))
    assert read_back["text"].startswith("a\nb\r\x1b[2J")
    assert "sesame" not in line + json_line(said, {})
    assert text_line(event("{odd}", odd=Unspeakable()), {}).isprintable()


def test_long() -> None:
    """A line of a megabyte is cut, and says so."""
    for write in (text_line, json_line):
        line = write(event("{text}", text="x" * 2**20, all=["y" * 2**20] * 1000), {})
        assert len(line) < 2**19
        assert "(1048576 characters)" in line


def test_failure() -> None:
    """A traceback is in its event: in JSON as a field, as text behind tabs."""
    try:
        raise ValueError(f"first\n2023 [forged#info] {HOSTILE}")
    except ValueError:
        said = event("it failed", log_failure=Failure())
    parsed = read(json_line(said, {}))
    assert parsed["message"] == "it failed"
    assert "Traceback" in parsed["failure"] and "test_lines.py" in parsed["failure"]
    first, *others = text_line(said, {}).split("\n")
    assert first.endswith("it failed")
    assert len(others) > 3
    assert all(each[0] == "\t" and each[1:].isprintable() for each in others)
    assert "sesame" not in str(parsed) + str(others)


def test_secret_fields() -> None:
    """A field that is named as a secret is not written."""
    parsed = read(json_line(event("x", admin_token="sesame", token_file="/f"), {}))
    assert (parsed["admin_token"], parsed["token_file"]) == ("***", "/f")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/v2/?token=sesame&n=1", "/v2/?token=***&n=1"),
        ("/?api_key=sesame", "/?api_key=***"),
        ("git+https://me:sesame@host/x", "git+https://***@host/x"),
        ("Authorization: Bearer sesame", "Authorization: Bearer ***"),
        ("{'authorization': 'sesame'}", "{'authorization': '***'}"),
        ("{'Authorization': b'Basic sesame'}", "{'Authorization': b'Basic ***'}"),
        ("PRIVATE-TOKEN: sesame", "PRIVATE-TOKEN: ***"),
        ("https://me:ses@me@host/x", "https://***@host/x"),
        ("/?X-Amz-Signature=sesame&n=1", "/?X-Amz-Signature=***&n=1"),
        ("/x?sig=sesame;apikey=sesame", "/x?sig=***;apikey=***"),
        ("/-/login?next=%2F%3Ftoken%3Dsesame", "/-/login?next=%2F%3Ftoken%3D***"),
        ("github.com=ghp_sesamesesamesesame", "github.com=ghp_***"),
        ("a@b //x", "a@b //x"),
        ("/v2/a/sig=b?narHash=sha256-x", "/v2/a/sig=b?narHash=sha256-x"),
    ],
)
def test_masked(text: str, shown: str) -> None:
    """Secrets in URLs and headers are hidden, and the rest can still be read."""
    assert masked(text) == shown


def test_access_as_text() -> None:
    """The access log is in the Combined Log Format, with more at the end."""
    at = "14/Nov/2023:22:13:20 +0000"
    access = Access(ANSWERED, "192.0.2.1", at, 0.25, "r1")
    line = text_line(event("{access}", access=access), {})
    assert line == (
        f'192.0.2.1 - - [{at}] "GET /v2/ HTTP/1.1" 200 2 "-" "curl \\"8\\" \\\\"'
        " r1 0.250000"
    )
    left = Access(evolve(ANSWERED, user="admin"), "::1", at, 1, "r1", has_left=True)
    assert str(left).startswith("::1 - admin [") and str(left).endswith(" left")


def test_access_as_json() -> None:
    """For machines each part of the access log is a field."""
    access = Access(ANSWERED, "192.0.2.1", "", 0.25, "r1")
    parsed = read(json_line(event("{access}", access=access), {"trace_id": "t"}))
    assert parsed["message"] == "GET /v2/ 200"
    assert (parsed["status"], parsed["bytes"], parsed["seconds"]) == (200, 2, 0.25)
    assert (parsed["user"], parsed["referer"], parsed["left"]) == (None, None, False)
    assert (parsed["request_id"], parsed["trace_id"]) == ("r1", "t")


@given(st.binary(), st.binary())
def test_hostile_access(target: bytes, agent: bytes) -> None:
    """Whatever a client sends, its line has as many quotation marks as any other."""
    said = [header_text(each) or "-" for each in (target, agent)]
    told = evolve(ANSWERED, target=said[0], agent=said[1])
    line = str(Access(told, "::1", "", 0, "r"))
    assert line.isprintable()
    assert line.replace(r"\\", "").replace(r"\"", "").count('"') == 6
