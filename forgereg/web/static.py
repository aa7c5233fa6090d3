"""
Give the files that pages are made with: styles, scripts, pictures.

Each is read once. Their addresses name the content of all, so that browsers keep them
for ever, also those that a script imports by a name beside its own.
"""

from __future__ import annotations

import hashlib
import mimetypes
from http import HTTPStatus
from importlib.resources import files

from attrs import define, field, frozen
from klein import Klein
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_etags

from forgereg.web.answer import header, whole
from forgereg.web.coding import compress

_ROOM = "/-/static/"
#: How much of a digest stands in an address, in characters.
_STAMP = 16


@frozen
class _File:
    content: bytes
    content_type: str
    stamp: str


def _read() -> dict[str, _File]:
    found = {}
    for each in files(__package__).joinpath("static").iterdir():
        content = each.read_bytes()
        kind = mimetypes.guess_type(each.name)[0] or "application/octet-stream"
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        found[each.name] = _File(content, kind, _stamp(content))
    return found


def _stamp(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_STAMP]


@define(eq=False)
class Static:
    """The files; making it reads them, and blocks."""

    _files: dict[str, _File] = field(init=False, factory=_read)
    _stamp: str = field(init=False)

    app = Klein()

    def __attrs_post_init__(self) -> None:
        stamps = sorted(f"{name} {file.stamp}" for name, file in self._files.items())
        self._stamp = _stamp("\n".join(stamps).encode())

    def address(self, name: str) -> str:
        """
        Give the path of a file.

        :raises KeyError: there is none of this name.
        """
        if name not in self._files:
            raise KeyError(name)
        return f"{_ROOM}{self._stamp}/{name}"

    @app.route(f"{_ROOM}<name>", methods=["GET"])
    @app.route(f"{_ROOM}<stamp>/<name>", methods=["GET"])
    def file(self, request: Request, name: str, stamp: str = "") -> bytes:
        """Give a file."""
        found = self._files.get(name)
        if found is None:
            return self._nothing(request)
        is_now = stamp == self._stamp
        most = "public, max-age=31536000, immutable" if is_now else "no-cache"
        request.setHeader("Cache-Control", most)
        # Weak, since it is that of the compressed bytes, too.
        request.setHeader("ETag", f'W/"{found.stamp}"')
        if parse_etags(header(request, "if-none-match")).contains_weak(found.stamp):
            request.setResponseCode(HTTPStatus.NOT_MODIFIED)
            return b""
        content = found.content
        if found.content_type.startswith("text/"):
            content = compress(request, content)
        return whole(request, found.content_type, content)

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def _misrouted(self, request: Request, failure: Failure) -> bytes:
        return self._nothing(request)

    def _nothing(self, request: Request) -> bytes:
        request.setResponseCode(HTTPStatus.NOT_FOUND)
        return whole(request, "text/plain; charset=utf-8", b"there is no such file\n")
