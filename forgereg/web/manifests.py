"""
Give a manifest, and keep whoever asks for it waiting as long as their kind can bear.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

import attrs
from attrs import define, frozen
from twisted.internet.defer import Deferred
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
    StillBuilding,
)
from forgereg.oci.manifest import Manifest
from forgereg.oci.media import MANIFESTS, OCI_MANIFEST
from forgereg.oci.reference import Digest, Name, Tag
from forgereg.web.answer import (
    break_off,
    header,
    hops,
    identify,
    is_known,
    refuse,
    repeat,
    send_here_again,
    whole,
)
from forgereg.web.guard import client_of
from forgereg.web.hold import Pending, describe_wait, trickle
from forgereg.web.patience import Family, Limits, Patience, Then, family_of, patience
from forgereg.web.problem import describe
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


@define
class Manifests:
    """
    The manifests, as clients are answered them.

    :ivar clock: times how long they wait.
    :ivar now: gives seconds since the epoch.
    """

    _registry: Registry
    _tombstones: Tombstones
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
        accept = header(request, "accept")
        asked = _Asked(request, name, reference, family_of(accept), _accepted(accept))
        plan = patience(asked.family, request.method, by_tag, limits, hops(request))
        work = self._registry.manifest(name, reference, asked.forms, client_of(request))
        pending = Pending(self._clock, Deferred.fromCoroutine(work))
        try:
            await pending.within(plan.hold_seconds)
            if not pending.is_there:
                if plan.then is Then.EARLY_BODY:
                    return await self._begin(asked, pending, plan)
                if plan.then is Then.EARLY_HEAD:
                    pending.leave()
                    return _early(asked)
                if plan.then is Then.REDIRECT:
                    pending.leave()
                    return send_here_again(request)
            found = self._outcome(asked, pending)
        except RegistryError as e:
            return self._refuse(asked, e)
        if found.stale is not None:
            _warn(request, found.stale)
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
        raise StillBuilding(describe_wait(image, build, self._now()))

    def _refuse(self, asked: _Asked, error: RegistryError) -> bytes:
        is_told = asked.family is Family.CONTAINERD and isinstance(asked.reference, Tag)
        # Signatures that they look for need not be there; and who comes for a document
        # when this process is gone would read "not found".
        if not is_told or isinstance(error, ReferrersUnknown | ShuttingDown):
            raise error
        refusal = describe(error)
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
        _early(asked)
        request.write(b"")
        end_seconds = plan.end_seconds - plan.hold_seconds
        written = await trickle(pending, request.write, plan.space_seconds, end_seconds)
        try:
            manifest = self._outcome(asked, pending).manifest
            _check_begin(asked, manifest, written)
        except ShuttingDown:
            return break_off(request)
        except RegistryError as e:
            refusal = describe(e)
            self._tombstones.lay(refusal, written)
            return refusal.body
        return manifest.body[len(written) :]


def _check_begin(asked: _Asked, manifest: Manifest, written: bytes) -> None:
    """
    Do nothing if a manifest can follow what was said and written of it.

    :raises ManifestUnknown: it is another form, or begins otherwise.
    """
    is_said = manifest.media_type == asked.forms[0]
    if not is_said or not manifest.body.startswith(written):
        raise ManifestUnknown(
            f"{asked.name}:{asked.reference} is there now; pull again"
        )


def _early(asked: _Asked) -> bytes:
    """Begin to answer with what is known already, which is no digest and no length."""
    asked.request.setHeader("Content-Type", asked.forms[0])
    # A proxy that collects the answer would keep back what is sent to pass the time.
    asked.request.setHeader("X-Accel-Buffering", "no")
    asked.request.setHeader("Cache-Control", "no-store")
    return b""


def _warn(request: Request, why: str) -> None:
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

    :returns: those it likes best first, and ours where it does not care.
    """
    if accept is None or not accept.strip(", \t"):
        return list(MANIFESTS)
    liked = parse_accept_header(accept, MIMEAccept)
    accepted = [form for form in MANIFESTS if liked.quality(form) > 0]
    return sorted(accepted, key=lambda form: -liked.quality(form))
