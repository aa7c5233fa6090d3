"""
Remember whole answers: a fleet's nodes ask for one manifest with the same bytes.

An answer is kept under the head of its request, every byte of it, where it was given at
once, without waiting for anything. It is given again only if whoever made it says, each
time anew and at once, that it would make the same one now: `Repeatable.holds`. So a tag
that has moved or whose time is over, a manifest that was forgotten, a warning that is
another one are all seen; and a pull is noted there. Only the date and the request's
name are made anew. What is unusual (half a head, a body, a client that does not read, a
registry that is about to stop) never comes here.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen
from cachetools import LRUCache
from twisted.web.http import Request, datetimeToString

from forgereg.web.ledger import Entry

#: How many answers are kept, and how long a head may be, in bytes.
_MOST, _MAX_HEAD = 1000, 2**12

_ANEW, _DATE = (b"Date", b"X-Request-Id"), b"\r\nDate: "


@frozen
class Repeatable:
    """
    What makes an answer one that can be given again.

    :ivar holds: whether it would be the same now; if so, it counts as given.
    :ivar body: what a GET is answered.
    """

    holds: Callable[[], bool]
    body: bytes


@frozen
class Kept:
    """
    An answer.

    :ivar entry: what is to be told of it.
    """

    head: bytes
    body: bytes
    entry: Entry
    _holds: Callable[[], bool]

    def pieces(self, request_id: str) -> list[bytes] | None:
        """Give what to write; None where it would be another answer now."""
        if not self._holds():
            return None
        name = request_id.encode()
        return [self.head, name, _DATE, datetimeToString(), b"\r\n\r\n", self.body]


def is_head(data: bytes) -> bool:
    """Whether this is one request without a body, or the head of one."""
    end = data.find(b"\r\n\r\n")
    return 0 < end == len(data) - 4 <= _MAX_HEAD


@define
class Memo:
    """The answers that were given last, by the heads of their requests."""

    _kept: LRUCache[bytes, Kept] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._kept = LRUCache(_MOST)

    def find(self, asked: bytes) -> Kept | None:
        """Give what was answered last time."""
        return self._kept.get(asked)

    def keep(
        self,
        asked: bytes,
        request: Request,
        answer: Repeatable,
        entry: Entry,
    ) -> None:
        """Keep what has just been answered, whole."""
        lines = [
            b"%b %d %b" % (request.clientproto, request.code, request.code_message)
        ]
        for name, values in request.responseHeaders.getAllRawHeaders():
            if name not in _ANEW:
                lines += [b"%b: %b" % (name, value) for value in values]
        body = answer.body if request.sentLength else b""
        head = b"\r\n".join([*lines, b"X-Request-Id: "])
        self._kept[asked] = Kept(head, body, entry, answer.holds)

    def drop(self, asked: bytes) -> None:
        """Forget an answer that is another one now."""
        self._kept.pop(asked, None)
