"""
What the measuring was done on. Blocking.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_VERSIONS = (
    ("nginx", "-v"),
    ("docker-registry", "--version"),
    ("podman", "--version"),
    ("skopeo", "--version"),
    ("curl", "--version"),
    ("wrk", "-v"),
    ("igzip", "--version"),
    ("gzip", "--version"),
    ("nix", "--version"),
)


def describe(folder: Path) -> dict[str, str]:
    """
    Say what there is: what, and which.

    :param folder: where the measuring is done.
    """
    load = " ".join(f"{share:.2f}" for share in os.getloadavg())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    file_system = _output("stat", "--file-system", "--format=%T", str(folder))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "file system": file_system,
        "load before the run": load,
        "Python": platform.python_version(),
        "Twisted": version("twisted"),
        **{program: _output(program, option) for program, option in _VERSIONS},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*argv: str) -> str:
    """Run a program; give the first line that it says."""
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except OSError as e:
        return f"not there: {e.strerror}"
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if lines else ""
