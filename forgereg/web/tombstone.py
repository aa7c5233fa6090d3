"""
Let those clients read an error that throw away what a ``HEAD`` says.

The containerd family asks for a tag with ``HEAD``, whose answer has no body. It is
told the digest of an error document instead; it then asks for that digest with
``GET``, is refused, and shows the document.

Source: tried with containerd 1.6 to 2.3 and Docker's containerd image store.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from attrs import define, field
from cachetools import TTLCache

from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Digest
from forgereg.web.problem import Problem

#: How long a document is kept, in seconds, and how many are. The client comes for it
#: at once.
_TTL_SECONDS = 600.0
_MOST = 1000


@define
class Tombstones:
    """
    Error documents that can be asked for by their digest, for a while.

    :ivar clock: gives seconds that only ever go forwards.
    """

    _clock: Callable[[], float]
    _documents: TTLCache[Digest, Problem] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._documents = TTLCache(_MOST, _TTL_SECONDS, timer=self._clock)

    def lay(self, problem: Problem, written: bytes = b"") -> Digest:
        """
        Keep an error, and give the digest of its document.

        :param written: what was sent before the document, and is part of it.
        """
        digest = sha256(written + problem.body)
        # Never 404: the family prints "not found" for it, and no more.
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        self._documents[digest] = Problem(status, problem.reason, problem.body)
        return digest

    def find(self, digest: Digest) -> Problem | None:
        """Give the error whose document has this digest."""
        return self._documents.get(digest)
