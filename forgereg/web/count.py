"""
Count a request: by which route it came, how it was answered, and how long that took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import unquote_to_bytes

from attrs import define, field

from forgereg.metrics import Answers, Metrics

#: The connection ended before the answer did. Source: nginx, "Client Closed Request".
CUT = 499
#: A route, or method, that is none of ours.
OTHER = "other"
_METHODS = {
    method.encode(): method
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_BELOW_NAMES = {b"manifests": "manifest", b"blobs": "blob", b"referrers": "referrers"}
_ROOMS = {
    b"api": "api",
    b"applications": "applications",
    b"hooks": "hooks",
    b"static": "static",
}
_WORDS = {b"": "page", b"metrics": "metrics", b"healthz": "health", b"readyz": "health"}


def route_of(path: bytes) -> str:
    """Say which of the few routes a path is of, percent-encoded or not."""
    parts = (unquote_to_bytes(path) if b"%" in path else path).split(b"/")[1:]
    match parts:
        case [b"v2"] | [b"v2", b""]:
            return "version"
        case [b"v2", b"_catalog"]:
            return "catalogue"
        case [b"v2", *rest]:
            return _route_below_v2(rest)
        case [b"-", room, *_]:
            return _ROOMS.get(room, "page")
        case [word]:
            return _WORDS.get(word, OTHER)
    return OTHER


def _route_below_v2(rest: Sequence[bytes]) -> str:
    match rest:
        case [_, *_, b"tags", b"list"]:
            return "tags"
        case [_, *_, kind, _]:
            return _BELOW_NAMES.get(kind, OTHER)
    return OTHER


@define(eq=False)
class Count:
    """
    One request, from when it was read.

    :ivar clock: gives seconds.
    """

    _metrics: Metrics
    _clock: Callable[[], float]
    route: str
    _method: str
    _began: float = field(init=False)
    _first: float | None = field(init=False, default=None)
    _sent: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._began = self._clock()

    @classmethod
    def of(
        cls, metrics: Metrics, clock: Callable[[], float], method: bytes, path: bytes
    ) -> Count:
        """Begin to count a request."""
        return cls(metrics, clock, route_of(path), _METHODS.get(method, OTHER))

    @property
    def is_answering(self) -> bool:
        """Whether the answer has begun."""
        return self._first is not None

    def begin(self) -> None:
        """Note that the answer begins."""
        self._first = self._clock() - self._began

    def sent(self, sent: int) -> None:
        """
        Count what was sent by now.

        :param sent: bytes of the body, from its beginning.
        """
        if sent > self._sent:
            self._metrics.requests.sent(self.route, sent - self._sent)
            self._sent = sent

    def answers(self, status: int) -> Answers:
        """Say where all that are answered the same are counted."""
        return self._metrics.requests.answers(self.route, self._method, status)

    def end(self, status: int, sent: int) -> None:
        """Count the end."""
        whole = self._clock() - self._began
        self.answers(status).count(sent - self._sent, self._first, whole)
