"""Read one setting as an operator sets it."""

from __future__ import annotations

from typing import Any

import pytest

from forgereg.config import TABLE, SettingInvalid, defaults, read_settings

DEFAULTS = defaults({}, "/home/me", "x86_64")
ROWS = {row.name: row for row in TABLE}


def read(name: str, text: str) -> Any:
    """Give what one setting is when an environment variable says so."""
    settings = read_settings({}, {ROWS[name].variable: text}, {}, DEFAULTS)
    return getattr(settings, name)


def refused(name: str, text: str) -> str:
    """Give what an operator reads who sets this."""
    with pytest.raises(SettingInvalid) as invalid:
        read(name, text)
    return str(invalid.value)
