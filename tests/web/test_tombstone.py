"""Tests for `forgereg.web.tombstone`."""

from __future__ import annotations

from twisted.internet.task import Clock

from forgereg.oci.manifest import sha256
from forgereg.web.problem import problem
from forgereg.web.tombstone import Tombstones

REFUSAL = problem(404, "NAME_UNKNOWN", "no such package")


def test_found_by_digest() -> None:
    """An error document is found by the digest of its bytes, and by no other."""
    tombstones = Tombstones(Clock().seconds)
    digest = tombstones.lay(REFUSAL)
    found = tombstones.find(digest)
    assert found is not None
    assert digest == sha256(REFUSAL.body) == sha256(found.body)
    assert tombstones.find(sha256(b"other")) is None


def test_status_that_shows_the_message() -> None:
    """A document is told with a status whose message the client shows, never 404."""
    tombstones = Tombstones(Clock().seconds)
    found = tombstones.find(tombstones.lay(REFUSAL))
    assert found is not None
    assert (found.status, found.reason) == (422, b"no such package")


def test_kept_for_a_while() -> None:
    """A document is kept until the client had time to come for it, no longer."""
    clock = Clock()
    tombstones = Tombstones(clock.seconds)
    digest = tombstones.lay(REFUSAL)
    clock.advance(599.0)
    assert tombstones.find(digest) is not None
    tombstones.lay(REFUSAL)
    clock.advance(599.0)
    assert tombstones.find(digest) is not None
    clock.advance(2.0)
    assert tombstones.find(digest) is None


def test_few_are_kept() -> None:
    """However many errors there are, the memory that they take is bounded."""
    tombstones = Tombstones(Clock().seconds)
    digests = [tombstones.lay(problem(404, "UNKNOWN", str(n))) for n in range(1500)]
    kept = [digest for digest in digests if tombstones.find(digest) is not None]
    assert kept == digests[-1000:]
