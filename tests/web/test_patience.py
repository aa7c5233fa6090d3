"""Tests for `forgereg.web.patience`."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.web.patience import (
    LEAST_SECONDS,
    MOST_REDIRECTS,
    TABLE,
    Family,
    Limits,
    Patience,
    Then,
    family_of,
    patience,
)

CONTAINERD = (
    "application/vnd.docker.distribution.manifest.v2+json,"
    " application/vnd.oci.image.manifest.v1+json, */*"
)
PODMAN = "application/vnd.oci.image.manifest.v1+json, application/json"

#: Answers are never later than this for the containerd family, which leaves at 30 s.
HEADER_SECONDS = 20.0

families = st.sampled_from(Family)
methods = st.sampled_from([b"GET", b"HEAD"])
seconds = st.just(0.0) | st.floats(1e-3, 366 * 86400)
limits = st.builds(Limits, seconds, seconds)


@pytest.mark.parametrize(
    ("accept", "family"),
    [
        (None, Family.OTHER),
        ("", Family.OTHER),
        ("*/*", Family.OTHER),
        (PODMAN, Family.OTHER),
        ("application/*, application/json", Family.OTHER),
        (CONTAINERD, Family.CONTAINERD),
        ("application/json;q=0.5,*/*;q=0.1", Family.CONTAINERD),
        ("*/* , application/json", Family.CONTAINERD),
    ],
)
def test_who_asks(accept: str | None, family: Family) -> None:
    """The containerd family is known by what it accepts; curl is not of it."""
    assert family_of(accept) is family


def test_each_kind_of_request_has_a_row() -> None:
    """Whoever asks, and however, there is a row in the table."""
    assert TABLE.keys() == {(f, head) for f in Family for head in (True, False)}


HEAD, GET = b"HEAD", b"GET"
C, E = Family.CONTAINERD, Family.OTHER


@pytest.mark.parametrize(
    ("family", "method", "limited", "hops", "gets"),
    [
        # Nothing is set: one family is answered early, everyone else waits.
        (E, GET, Limits(), 0, Patience()),
        (E, HEAD, Limits(), 0, Patience()),
        (C, HEAD, Limits(), 0, Patience(20, Then.EARLY_HEAD)),
        (C, GET, Limits(), 0, Patience(20, Then.EARLY_BODY)),
        # Some minutes at most, as for nodes that pull one image after the other; the
        # GET comes when its HEAD has waited for 20 s.
        (E, GET, Limits(240), 0, Patience(240, Then.REFUSE)),
        (E, HEAD, Limits(240), 0, Patience(240, Then.REFUSE)),
        (C, HEAD, Limits(240), 0, Patience(20, Then.EARLY_HEAD)),
        (C, GET, Limits(240), 0, Patience(20, Then.EARLY_BODY, 220)),
        # Shorter than what containerd bears: it is refused before an early answer.
        (E, GET, Limits(10), 0, Patience(10, Then.REFUSE)),
        (C, HEAD, Limits(10), 0, Patience(10, Then.REFUSE)),
        (C, HEAD, Limits(20), 0, Patience(20, Then.REFUSE)),
        (C, GET, Limits(10), 0, Patience(1, Then.EARLY_BODY, 1)),
        (C, GET, Limits(30), 0, Patience(10, Then.EARLY_BODY, 10)),
        # A proxy: redirects for all but containerd, whose answer begins in time anyway.
        (E, GET, Limits(0, 50), 0, Patience(50, Then.REDIRECT)),
        (E, HEAD, Limits(0, 50), 8, Patience(50, Then.REDIRECT)),
        (E, GET, Limits(0, 50), 9, Patience(50, Then.REFUSE)),
        (C, HEAD, Limits(0, 50), 0, Patience(20, Then.EARLY_HEAD)),
        (C, GET, Limits(0, 50), 3, Patience(20, Then.EARLY_BODY)),
        # A proxy that bears less than containerd does.
        (C, HEAD, Limits(0, 15), 0, Patience(15, Then.EARLY_HEAD)),
        (C, GET, Limits(0, 15), 0, Patience(15, Then.EARLY_BODY, inf, 15)),
        # Both: redirects, until the time is up.
        (E, GET, Limits(120, 50), 0, Patience(50, Then.REDIRECT)),
        (E, GET, Limits(120, 50), 1, Patience(50, Then.REDIRECT)),
        (E, GET, Limits(120, 50), 2, Patience(20, Then.REFUSE)),
        (E, GET, Limits(120, 50), 3, Patience(1, Then.REFUSE)),
        (E, GET, Limits(100, 50), 1, Patience(50, Then.REFUSE)),
        (E, GET, Limits(30, 50), 0, Patience(30, Then.REFUSE)),
        (C, HEAD, Limits(10, 15), 0, Patience(10, Then.REFUSE)),
        (C, GET, Limits(100, 15), 0, Patience(15, Then.EARLY_BODY, 85, 15)),
        # Sent here by a registry that has stopped, or went by other settings.
        (E, GET, Limits(), 3, Patience()),
        (E, GET, Limits(240), 3, Patience(240, Then.REFUSE)),
        (C, HEAD, Limits(30, 50), 2, Patience(20, Then.EARLY_HEAD)),
        # What no registry sends.
        (E, GET, Limits(0, 50), -7, Patience(50, Then.REDIRECT)),
        (E, GET, Limits(600, 50), 10**400, Patience(50, Then.REFUSE)),
    ],
)
def test_what_each_gets(
    family: Family, method: bytes, limited: Limits, hops: int, gets: Patience
) -> None:
    """Each kind of client is told to wait in the way that it bears."""
    assert patience(family, method, True, limited, hops) == gets


@given(families, methods, limits, st.integers())
def test_by_digest(family: Family, method: bytes, limited: Limits, hops: int) -> None:
    """Whoever asks by digest gets the answer, and nothing in its place."""
    assert patience(family, method, False, limited, hops) == Patience()


@given(methods, limits, st.integers())
def test_containerd_never_waits_too_long(
    method: bytes, limited: Limits, hops: int
) -> None:
    """Whatever is set, containerd's header comes in time and it is not redirected."""
    got = patience(Family.CONTAINERD, method, True, limited, hops)
    assert LEAST_SECONDS <= got.hold_seconds <= HEADER_SECONDS
    early = {b"HEAD": {Then.EARLY_HEAD, Then.REFUSE}, b"GET": {Then.EARLY_BODY}}
    assert got.then in early[method]
    assert got.hold_seconds <= got.end_seconds


@given(families, methods, limits, st.integers())
def test_limits_are_kept(
    family: Family, method: bytes, limited: Limits, hops: int
) -> None:
    """No client is kept in silence for longer than the operator and the proxy allow."""
    got = patience(family, method, True, limited, hops)
    for limit in (limited.max_hold_seconds, limited.redirect_seconds):
        if limit:
            assert got.hold_seconds <= max(limit, LEAST_SECONDS)
    assert (got.hold_seconds == inf) == (got.then is Then.HOLD)
    if got.then is Then.EARLY_BODY:
        assert (got.end_seconds < inf) == bool(limited.max_hold_seconds)
        if limited.redirect_seconds:
            assert got.space_seconds <= max(limited.redirect_seconds, LEAST_SECONDS)


@given(methods, limits)
def test_redirects_end(method: bytes, limited: Limits) -> None:
    """A client is sent round nine times at most, and never beyond the time it may wait."""
    spent = 0.0
    for hop in range(MOST_REDIRECTS + 1):
        got = patience(Family.OTHER, method, True, limited, hop)
        if got.then is not Then.REDIRECT:
            break
        spent += got.hold_seconds
    else:
        pytest.fail("it went on")
    assert not limited.max_hold_seconds or spent <= limited.max_hold_seconds
