"""Tests for `forgereg.certificates`: how long one is valid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forgereg.certificates import Term, look_at_term
from tests.certificates import certify


@pytest.mark.parametrize(
    ("days", "term"),
    [
        (-2, Term.NOT_YET),
        (0, Term.GOOD),
        (15, Term.GOOD),
        (17, Term.SOON),
        (29, Term.SOON),
        (31, Term.OVER),
    ],
)
def test_terms(days: int, term: Term) -> None:
    """Two weeks before its end a certificate is to be replaced, and before its begin."""
    certificate = certify("forge", days=30).certificate
    found, said = look_at_term(certificate, datetime.now(UTC) + timedelta(days))
    assert found is term and said.startswith(f"CN=forge {term.value} 20")
    assert bool(term.advice) == (term is not Term.GOOD)
