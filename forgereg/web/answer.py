"""
Write an answer into a request: its headers, and the body that Klein is to send.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from twisted.python.failure import Failure
from twisted.web.http import Request as BaseRequest
from twisted.web.server import Request
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.http import parse_accept_header, parse_etags

from forgereg.logs import logger, mark, unmark
from forgereg.oci.reference import Digest
from forgereg.web.access import REQUEST_ID
from forgereg.web.memo import Repeatable
from forgereg.web.patience import RETRY_AFTER_SECONDS
from forgereg.web.problem import Problem, problem

_log = logger(__name__)

JSON = "application/json"

_OF_THE_BETTER_END = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Encoding",
    "Docker-Content-Digest",
    "ETag",
)

#: How long a list of what a client reads may be, in characters.
_MOST_ACCEPTED = 2**12
#: The parameter that counts how often a client was sent to the same place.
_HOP = b"hop"


def header(request: Request, name: str) -> str | None:
    """Give a header, the lines of it joined as RFC 9110, section 5.3, has it."""
    lines = request.requestHeaders.getRawHeaders(name.encode())
    if lines is None:
        return None
    return ", ".join(line.decode("latin-1") for line in lines)


def accepted(request: Request) -> str | None:
    """Give what the client reads, as far as any would say it: parsing takes its time."""
    said = header(request, "accept")
    return None if said is None else said[:_MOST_ACCEPTED]


def reads(request: Request) -> MIMEAccept:
    """Give the media types that the client says it reads."""
    return parse_accept_header(accepted(request), MIMEAccept)


def allow(request: Request, error: MethodNotAllowed) -> str:
    """Say which methods there are where one was asked that is not; give them, too."""
    allowed = ", ".join(sorted(error.valid_methods or ()))
    request.setHeader("Allow", allowed)
    return allowed


def whole(request: Request, content_type: str, body: bytes) -> bytes:
    """Answer with a body whose length is told."""
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    return body


def repeat(request: Request, body: bytes, holds: Callable[[], bool]) -> None:
    """
    Say that the answer, whose body this is, can be given again.

    :param holds: whether it would be the same now; if so, it counts as given.
    """
    vars(request)["repeatable"] = Repeatable(holds, body)


def repeatable(request: BaseRequest) -> Repeatable | None:
    """Give what was said of an answer that can be given again."""
    return vars(request).get("repeatable")


def refuse(request: Request, refusal: Problem, content_type: str = JSON) -> bytes:
    """Answer with an error, whatever was set for a better end."""
    for name in _OF_THE_BETTER_END:
        request.responseHeaders.removeHeader(name)
    request.setResponseCode(refusal.status, refusal.reason)
    if refusal.status == HTTPStatus.TOO_MANY_REQUESTS:
        request.setHeader("Retry-After", str(RETRY_AFTER_SECONDS))
    return whole(request, content_type, refusal.body)


def cut(request: Request) -> None:
    """Note that the answer ends before it is whole."""
    vars(request)["is_cut"] = True


def is_cut(request: BaseRequest) -> bool:
    """Whether the answer ended before it was whole."""
    return "is_cut" in vars(request)


def break_off(request: Request) -> bytes:
    """End an answer so that nobody can take it for whole."""
    cut(request)
    # What was sent behind it is not to be begun.
    request.channel.persistent = False
    request.channel.forceAbortClient()
    return b""


def fail(request: Request, failure: Failure, incident: str) -> bytes:
    """
    Answer where there is a bug: with a name, under which the log has more.

    :param incident: that name.
    """
    name = request.responseHeaders.getRawHeaders(REQUEST_ID, [b"-"])[0].decode()
    marked = mark(request_id=name)
    _log.failure("incident {incident}", failure, incident=incident)
    unmark(marked)
    if request.startedWriting:
        return break_off(request)
    message = (
        "the registry failed; its log has more under"
        f" incident {incident} (request {name})"
    )
    return refuse(
        request, problem(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", message)
    )


def identify(request: Request, digest: Digest) -> None:
    """Say what the answer is."""
    request.setHeader("Docker-Content-Digest", str(digest))
    request.setHeader("ETag", f'"{digest}"')


def is_known(request: Request, digest: Digest) -> bool:
    """Say what the answer is; if the client has it already, answer just that."""
    identify(request, digest)
    known = parse_etags(header(request, "if-none-match"))
    if not known.contains_weak(str(digest)):
        return False
    request.setResponseCode(HTTPStatus.NOT_MODIFIED)
    return True


def hops(request: Request) -> int:
    """Say how often a client was sent here again, as it says; nonsense is 0."""
    # Ours comes last, whatever the client had in its query before.
    text = request.args.get(_HOP, [b""])[-1]
    return int(text) if text.isdigit() and len(text) < 10 else 0


def send_here_again(request: Request) -> bytes:
    """Redirect to the same place, one hop further."""
    _, _, query = request.uri.partition(b"?")
    words = [w for w in query.split(b"&") if w and not w.startswith(_HOP + b"=")]
    words.append(b"%b=%d" % (_HOP, hops(request) + 1))
    request.setResponseCode(HTTPStatus.TEMPORARY_REDIRECT)
    # Not the uri, which may name a host; as two slashes at the begin would.
    path = b"/" + request.path.lstrip(b"/")
    request.setHeader("Location", path + b"?" + b"&".join(words))
    request.setHeader("Cache-Control", "no-store")
    return whole(request, "text/plain", b"")
