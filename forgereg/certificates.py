"""
Read certificates, and say how long they are valid.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from cryptography import x509

#: How long before its end a certificate should have been replaced.
_SOON = timedelta(days=14)


class Term(Enum):
    """Where a certificate is in its life; as it is said, before a date."""

    NOT_YET = "is valid from"
    OVER = "ended on"
    SOON = "ends on"
    GOOD = "is valid until"

    @property
    def advice(self) -> str:
        """What to do about it; empty where nothing need be done."""
        return _ADVICE[self]


_ADVICE = {
    Term.NOT_YET: "see that this machine's clock is right",
    Term.OVER: "replace it, and restart the registry",
    Term.SOON: "replace it before, and restart the registry",
    Term.GOOD: "",
}


def read_certificates(path: Path) -> list[x509.Certificate]:
    """
    Read the certificates of a file. Blocking.

    :raises OSError: it cannot be read.
    :raises ValueError: it has none.
    """
    return x509.load_pem_x509_certificates(path.read_bytes())


def look_at_term(certificate: x509.Certificate, now: datetime) -> tuple[Term, str]:
    """Say in words how long a certificate is valid. Pure."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        term, at = Term.NOT_YET, begin
    else:
        term, at = Term.OVER if now > end else Term.GOOD, end
        if end - _SOON < now <= end:
            term = Term.SOON
    who = certificate.subject.rfc4514_string() or "without a name"
    return term, f"{who} {term.value} {at:%Y-%m-%d}"
