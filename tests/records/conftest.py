"""Records for the tests of what is kept in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forgereg.records.records import Records


@pytest.fixture
def records() -> Iterator[Records]:
    records = Records.open("sqlite://")
    yield records
    records.close()
