"""
Give a manifest, and keep whoever asks for it waiting as long as their kind can bear.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from math import inf

import attrs
from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from forgereg.flow.registry import Found, Registry
from forgereg.oci.errors import (
    ManifestUnknown,
    ReferrersUnknown,
    RegistryError,
    ShuttingDown,
)
from forgereg.oci.manifest import PAD
from forgereg.oci.media import MANIFESTS, OCI_MANIFEST, REFERABLE
from forgereg.oci.reference import Digest, Name, Tag
from forgereg.web.answer import (
    accepted,
    break_off,
    hops,
    identify,
    is_known,
    refuse,
    repeat,
    send_here_again,
    whole,
)
from forgereg.web.guard import Clients
from forgereg.web.hold import Pending, still_building, trickle
from forgereg.web.host import describe_to
from forgereg.web.patience import Family, Limits, Patience, Then, family_of, patience
from forgereg.web.tombstone import Tombstones

#: What may not stand in a header between quotes, and how long a warning may be.
_NOT_QUOTABLE = re.compile(r'[^\x20-\x7e]+|["\\]')
_MAX_WARNING = 500


@frozen
class _Asked:
    """Who asks for which manifest, and the form that they like best."""

    request: Request
    name: Name
    reference: Tag | Digest
    family: Family
    forms: list[str]


@frozen
class _Expected:
    """
    What an answer that is begun early is to be.

    :ivar is_padded: whether it begins with the pad, out of which it can be begun.
    """

    media_type: str
    is_padded: bool = True


@define
class Manifests:
    """
    The manifests, as clients are answered them.

    :ivar clock: times how long they wait.
    :ivar now: gives seconds since the epoch.
    """

    _registry: Registry
    _tombstones: Tombstones
    _clients: Clients
    _clock: IReactorTime
    _now: Callable[[], float]

    async def give(
        self, request: Request, name: Name, reference: Tag | Digest, limits: Limits
    ) -> bytes:
        """
        Answer a request for a manifest.

        :returns: the rest of the body.
        :raises RegistryError: there is none, and nothing was said yet.
        """
        by_tag = isinstance(reference, Tag)
        if isinstance(reference, Digest):
            refusal = self._tombstones.find(reference)
            if refusal is not None:
                return refuse(request, refusal)
        accept = accepted(request)
        asked = _Asked(request, name, reference, family_of(accept), _accepted(accept))
        plan = patience(asked.family, request.method, by_tag, limits, hops(request))
        client = self._clients.name(request)
        work = self._registry.manifest(name, reference, asked.forms, client)
        pending = Pending(self._clock, Deferred.fromCoroutine(work))
        try:
            await pending.within(plan.hold_seconds)
            if not pending.is_there:
                if plan.then is Then.EARLY_BODY:
                    return await self._begin(asked, pending, plan)
                if plan.then is Then.EARLY_HEAD:
                    pending.leave()
                    return _early(asked, await self._expected(asked))
                if plan.then is Then.REDIRECT:
                    pending.leave()
                    return send_here_again(request)
            found = self._outcome(asked, pending)
        except RegistryError as e:
            return self._refuse(asked, e)
        if found.stale is not None:
            warn(request, found.stale)
        repeat(request, found.manifest.body, lambda: self._repeats(asked, found))
        if is_known(request, found.manifest.digest):
            return b""
        return whole(request, found.manifest.media_type, found.manifest.body)

    def _repeats(self, asked: _Asked, found: Found) -> bool:
        name, reference = asked.name, asked.reference
        if isinstance(reference, Digest) and self._tombstones.find(reference):
            return False
        return self._registry.repeats(found, name, reference, asked.forms)

    def _outcome(self, asked: _Asked, pending: Pending[Found]) -> Found:
        """Give what was waited for, or say that it is not there yet."""
        if pending.is_there:
            return pending.result()
        image = f"{asked.name}:{asked.reference}"
        build = None
        if isinstance(asked.reference, Tag):
            build = self._registry.waiting_for(asked.name, asked.reference)
        pending.leave()
        raise still_building(image, build, self._now())

    def _refuse(self, asked: _Asked, error: RegistryError) -> bytes:
        is_told = asked.family is Family.CONTAINERD and isinstance(asked.reference, Tag)
        # Signatures that they look for need not be there; and who comes for a document
        # when this process is gone would read "not found".
        if not is_told or isinstance(error, ReferrersUnknown | ShuttingDown):
            raise error
        refusal = describe_to(asked.request, self._clients, error)
        digest = self._tombstones.lay(refusal)
        if asked.request.method == b"HEAD":
            identify(asked.request, digest)
            return whole(asked.request, OCI_MANIFEST, refusal.body)
        # After a HEAD that said nothing they hash what they read, whatever the
        # status, and ask for that digest, if it is said to be a manifest; on some
        # statuses they only ask again. Source: containerd, resolver.go, Resolve.
        if refusal.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
            refusal = attrs.evolve(refusal, status=HTTPStatus.UNPROCESSABLE_ENTITY)
        return refuse(asked.request, refusal, OCI_MANIFEST)

    async def _begin(
        self, asked: _Asked, pending: Pending[Found], plan: Patience
    ) -> bytes:
        """Begin an answer before it is known how it goes on."""
        request = asked.request
        try:
            expected = await self._expected(asked)
        except CancelledError:
            pending.leave()
            raise
        _early(asked, expected)
        request.write(b"")
        end_seconds = plan.end_seconds - plan.hold_seconds
        space_seconds = plan.space_seconds if expected.is_padded else inf
        written = await trickle(pending, request.write, space_seconds, end_seconds)
        try:
            for manifest in self._outcome(asked, pending).forms:
                is_said = manifest.media_type == expected.media_type
                if is_said and manifest.body.startswith(written):
                    return manifest.body[len(written) :]
            raise ManifestUnknown(
                f"{asked.name}:{asked.reference} is there now; pull again"
            )
        except ShuttingDown:
            return break_off(request)
        except RegistryError as e:
            refusal = describe_to(request, self._clients, e)
            self._tombstones.lay(refusal, written)
            return refusal.body

    async def _expected(self, asked: _Asked) -> _Expected:
        """Guess what kind of manifest there will be: such as the last of this name."""
        for manifest in await self._registry.last_forms(asked.name):
            if manifest.media_type in asked.forms:
                return _Expected(manifest.media_type, manifest.body.startswith(PAD))
        ours = (form for form in asked.forms if form in MANIFESTS)
        return _Expected(next(ours, asked.forms[0]))


def _early(asked: _Asked, expected: _Expected) -> bytes:
    """Begin to answer with what is known already, which is no digest and no length."""
    asked.request.setHeader("Content-Type", expected.media_type)
    # A proxy that collects the answer would keep back what is sent to pass the time.
    asked.request.setHeader("X-Accel-Buffering", "no")
    asked.request.setHeader("Cache-Control", "no-store")
    return b""


def warn(request: Request, why: str) -> None:
    """
    Say that the answer may be out of date.

    Source: RFC 7234, section 5.5; 299 is "Miscellaneous Persistent Warning".
    """
    text = _NOT_QUOTABLE.sub(" ", why)[:_MAX_WARNING].strip()
    warning = f'299 forge-registry "the last image that worked: {text}"'
    request.setHeader("Warning", warning)


def _accepted(accept: str | None) -> list[str]:
    """
    Say which forms of a manifest a client reads.

    :returns: those it likes best first, and in our order where it does not care.
    """
    if accept is None or not accept.strip(", \t"):
        return list(REFERABLE)
    liked = parse_accept_header(accept, MIMEAccept)
    accepted = [form for form in REFERABLE if liked.quality(form) > 0]
    return sorted(accepted, key=lambda form: -liked.quality(form))
