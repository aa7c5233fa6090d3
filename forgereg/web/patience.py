"""
How long each kind of client is kept waiting, and what it is told then. Pure.

Only silence, or the early beginning of a 200, keeps a client: 1xx answers do not stop
its clocks (and five break Go before 1.24), and few try again on 429 or 503.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from math import inf

from attrs import frozen

#: What the header ``Retry-After`` says. Source: c/image waits as long, no longer.
RETRY_AFTER_SECONDS = 60

#: How long apart the spaces of an early body are. Source: the CRI plugin of containerd
#: 1.7.0 cancels a pull that got no byte for a minute; proxies allow 30 s and more.
SPACE_SECONDS = 25.0

#: How often a client is sent to the same place. Source: the clients of Go give up at
#: the tenth redirect (containerd ``resolver.go``, docker ``repository.go``, net/http).
MOST_REDIRECTS = 9

#: What is built already is answered within this time: nobody is turned away sooner.
LEAST_SECONDS = 1.0


class Family(Enum):
    """Who asks for a manifest."""

    #: containerd, Kubernetes on it, Docker's containerd image store, BuildKit, nerdctl.
    CONTAINERD = auto()
    #: Docker, podman, skopeo, buildah, CRI-O, crane, kaniko, oras, regclient, curl.
    OTHER = auto()


class Then(Enum):
    """What a client gets when it has waited in silence for as long as it may."""

    #: More silence: there is no such moment.
    HOLD = auto()
    #: 200 and the media type; neither digest nor length.
    EARLY_HEAD = auto()
    #: 200 and the media type, chunked; then a space now and again, and at last what is
    #: left of the pad, and the manifest's JSON or the error's.
    EARLY_BODY = auto()
    #: ``StillBuilding``, as any error is told to the family; 429 and ``Retry-After``.
    REFUSE = auto()
    #: 307 to the same place, one hop further.
    REDIRECT = auto()


@frozen
class Limits:
    """
    What the operator allows, in seconds.

    :ivar max_hold_seconds: how long a client may wait in all; 0 for ever.
    :ivar redirect_seconds: how long the proxy in front waits for an answer, or for
        more of it; 0 if there is none that matters.
    """

    max_hold_seconds: float = 0.0
    redirect_seconds: float = 0.0


@frozen
class Patience:
    """
    What one request gets while there is no answer, in seconds since it came.

    :ivar hold_seconds: how long it is kept in silence; infinite for `Then.HOLD` alone.
    :ivar end_seconds: when an early body ends with ``StillBuilding``.
    :ivar space_seconds: between the spaces of an early body.
    """

    hold_seconds: float = inf
    then: Then = Then.HOLD
    end_seconds: float = inf
    space_seconds: float = SPACE_SECONDS


@frozen
class _Row:
    """
    One kind of request by tag.

    :ivar silence: the most that the client bears, in seconds.
    :ivar then: what comes after that, or when the proxy bears no more.
    """

    silence: float
    then: Then


#: Everything that is known of clients, by family and whether it is a ``HEAD``. A
#: manifest that is asked for by digest is there or is not: nobody waits for it.
TABLE: Mapping[tuple[Family, bool], _Row] = {
    # containerd 2.3, core/remotes/docker/registry.go: ResponseHeaderTimeout is 30 s, not
    # to be configured, and not retried. resolver.go, Resolve: without a digest and a
    # length it asks again with GET. Redirects would do, but for 10 * 30 s at most.
    (Family.CONTAINERD, True): _Row(20.0, Then.EARLY_HEAD),
    # The same 30 s for the header; nothing limits the body but CRI's progress timeout.
    # What says no is sent as a 200, too: Resolve hashes what it reads, whatever the
    # status, and on 429 it asks five times over without a pause.
    (Family.CONTAINERD, False): _Row(20.0, Then.EARLY_BODY),
    # 330 s of silence were borne by every one that was tried (docker 20.10 and 26.1,
    # podman 4.3 and 5.4, skopeo, oras, crane); none has a clock for the header. An early
    # answer would not do: oras and crane need digest and length, and podman stores what
    # it reads. A 307 starts their clocks, and the proxy's, again. (Docker asks with GET
    # when HEAD is refused, and so waits twice as long as it may.)
    (Family.OTHER, True): _Row(inf, Then.REDIRECT),
    (Family.OTHER, False): _Row(inf, Then.REDIRECT),
}


def family_of(accept: str | None) -> Family:
    """
    Tell who asks for a manifest.

    :param accept: its ``Accept`` header, the lines of it joined.
    Source: containerd 1.6 to 2.3 and all that is made of it name ``*/*`` beside the media
        types of manifests, and nobody else does.
    """
    ranges = [part.partition(";")[0].strip() for part in (accept or "").split(",")]
    among_others = "*/*" in ranges and len([*filter(None, ranges)]) > 1
    return Family.CONTAINERD if among_others else Family.OTHER


def patience(
    family: Family, method: bytes, by_tag: bool, limits: Limits, hops: int
) -> Patience:
    """
    Say what a request for a manifest gets while its image is being built.

    :param hops: how often this client was sent here again already, as it says.
    """
    if not by_tag:
        return Patience()
    row = TABLE[family, method == b"HEAD"]
    hops = min(max(0, hops), MOST_REDIRECTS)
    proxy = max(LEAST_SECONDS, limits.redirect_seconds or inf)
    silence = min(row.silence, proxy)
    waited = 0.0
    if row.then is Then.EARLY_BODY:
        waited = silence  # by the HEAD before
    elif row.then is Then.REDIRECT and limits.redirect_seconds:
        waited = hops * proxy
    left = max(LEAST_SECONDS, (limits.max_hold_seconds or inf) - waited)
    hold = min(silence, left)
    if hold == inf:
        return Patience()
    if row.then is Then.EARLY_BODY:
        return Patience(hold, row.then, left, min(SPACE_SECONDS, proxy))
    over = left <= silence or (row.then is Then.REDIRECT and hops == MOST_REDIRECTS)
    return Patience(hold, Then.REFUSE if over else row.then)


def blob_seconds(family: Family) -> float:
    """
    Say how long the header of a blob may be kept back that has to be brought back.

    Its length is known, so that the answer can begin; but once it has, nobody can be told
    why it does not go on. So only those are answered early whose time is short.
    """
    return (
        TABLE[Family.CONTAINERD, True].silence if family is Family.CONTAINERD else inf
    )
