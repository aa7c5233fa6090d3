"""
Write builds and sweeps down as the control API has them in `openapi.json`. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attrs import asdict

from forgereg.flow.report import Report, SweepReport

#: Below which path each build has its own.
BUILDS = "/-/api/builds"


def build_json(report: Report) -> dict[str, Any]:
    """Write a build down: the schema ``Build``."""
    began, ended = report.started_at, report.finished_at
    return {
        "id": report.id,
        "image": report.image,
        "state": report.state.value,
        "asked_by": list(report.asked_by),
        "asked_at": _time(report.asked_at),
        "started_at": _time(began),
        "finished_at": _time(ended),
        "duration_seconds": None if None in (began, ended) else ended - began,  # type: ignore[operator]
        "locked": report.locked,
        "derivation": report.derivation,
        "progress": asdict(report.progress),
        "error": report.error,
        "log": f"{BUILDS}/{report.id}/log",
    }


def sweep_json(report: SweepReport) -> dict[str, Any]:
    """Write a sweep down: the schema ``Sweep``."""
    images = [
        {**asdict(image), "last_pulled": _time(image.last_pulled)}
        for image in report.images
    ]
    return {**asdict(report, recurse=False), "images": images}


def _time(seconds: float | None) -> str | None:
    """Write a time as RFC 3339 has it, in UTC."""
    if seconds is None:
        return None
    time = datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
