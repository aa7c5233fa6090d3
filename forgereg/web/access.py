"""
What the access log has of a request, and the name by which the log knows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count

from twisted.web.http import Request

from forgereg.lines import Answered, header_text
from forgereg.web.count import CUT

REQUEST_ID = b"X-Request-Id"

#: What may be the name of a request: it stands in the log, and is answered.
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def request_ids(now: Callable[[], float]) -> Iterator[str]:
    """
    Give names for requests, each time another one, also after a restart.

    :param now: gives seconds since the epoch.
    """
    start = f"{int(now() * 1000):x}"
    return (f"{start}-{number:x}" for number in count(1))


def asked_id(request: Request) -> str | None:
    """Give the name that a request came with, if it is one."""
    names = request.requestHeaders.getRawHeaders(REQUEST_ID, [])
    if len(names) != 1 or not _SANE.fullmatch(names[0]):
        return None
    return names[0].decode()


def answered(request: Request, user: str | None) -> Answered:
    """Say what was answered, as far as it came."""
    has_left = not (request.finished or request.startedWriting)
    headers = request.requestHeaders
    return Answered(
        header_text(request.method) or "-",
        header_text(request.uri) or "-",
        header_text(request.clientproto) or "-",
        CUT if has_left else request.code,
        request.sentLength,
        header_text(headers.getRawHeaders(b"referer", [None])[0]),
        header_text(headers.getRawHeaders(b"user-agent", [None])[0]),
        user,
    )
