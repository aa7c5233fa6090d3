"""What the doctor has said, for those who read it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from forgereg.cli.findings import Finding, Level

_BAD = list(Level)


@frozen
class Told:
    """What the doctor has said."""

    findings: Sequence[Finding]

    def of(self, what: str) -> tuple[str, str]:
        """Give how bad something is, and what was said of it: the worst of it."""
        found = [each for each in self.findings if each.what == what]
        assert found, self.findings
        worst = max(found, key=lambda each: _BAD.index(each.level))
        return worst.level.value, "; ".join(filter(None, (worst.detail, worst.advice)))
