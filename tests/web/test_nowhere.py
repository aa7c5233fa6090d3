"""Tests for `forgereg.web.nowhere`, and for addresses that are nearly those of pages."""

from __future__ import annotations

import pytest

from tests.registry import Served

BROWSER = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")]


@pytest.mark.parametrize(
    "path", ["/nosuch", "/-", "/-/", "/-/nosuch", "/a/b/c", "//x/"]
)
def test_no_such_page(served: Served, path: str) -> None:
    """Who follows a wrong link in a browser reads that there is no such page."""
    answer = served.get(path, BROWSER)
    assert answer.status == 404
    assert b"There is no such page." in answer.body
    assert b'<a href="/">' in answer.body


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/v2/nosuch", "text/html"),
        ("/nosuch", "*/*"),
        ("/nosuch", "text/html;q=0, */*"),
        ("/-/api/nosuch", "text/html"),
        ("/-/nosuch", "application/json"),
    ],
)
def test_programs_read_json(served: Served, path: str, accept: str) -> None:
    """Programs, and whatever asks below /v2/, get no page."""
    answer = served.get(path, [("Accept", accept)])
    assert answer.status == 404
    assert answer.json["errors"]


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/-/builds/", "/-/builds"),
        ("/-/builds/id-1/", "/-/builds/id-1"),
        ("/-/status/", "/-/status"),
        ("/-/login//", "/-/login"),
        ("/-/images", "/"),
        ("/-/images/", "/-/images"),
        ("/-/images/packages/hello/", "/-/images/packages/hello"),
    ],
)
def test_nearly_right(served: Served, path: str, to: str) -> None:
    """A slash too much leads to the page, and to no other host."""
    answer = served.get(path, BROWSER)
    assert (answer.status, answer["Location"]) == (303, to)


def test_icon(served: Served) -> None:
    """Browsers that look for the icon where it always was find it."""
    answer = served.get("/favicon.ico", [("Accept", "image/*")])
    assert answer.status == 303
    assert served.get(answer["Location"] or "")["Content-Type"] == "image/svg+xml"
