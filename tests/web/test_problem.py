"""Tests for `forgereg.web.problem`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.oci import errors
from forgereg.oci.errors import (
    ArchiveInvalid,
    BuildFailed,
    DiskFull,
    ManifestUnknown,
    RegistryError,
    ShuttingDown,
)
from forgereg.web.problem import TABLE, describe, problem
from tests.client import CODES


def subclasses(kind: type[RegistryError]) -> Iterator[type[RegistryError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_has_a_row() -> None:
    """No error of the vocabulary reaches a client without a status and a code."""
    kinds = set(subclasses(RegistryError))
    assert all(describe(kind("x")).status for kind in kinds)
    assert {kind for kind in kinds if kind.__module__ == errors.__name__} == set(TABLE)


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_rows(kind: type[RegistryError]) -> None:
    """Every status is one that HTTP has for errors, every code one of OCI's."""
    status, code = TABLE[kind]
    assert 400 <= HTTPStatus(status) < 600
    assert code in CODES


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (ManifestUnknown, 404),
        (BuildFailed, 422),
        (ArchiveInvalid, 422),
        (DiskFull, 507),
        (ShuttingDown, 503),
    ],
)
def test_whose_fault_it_is(kind: type[RegistryError], status: int) -> None:
    """A broken flake is no fault of the server, a full disk is."""
    assert describe(kind("why")).status == status


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_the_client_reads_why(kind: type[RegistryError]) -> None:
    """What went wrong is in the body as it is, and in the reason phrase."""
    described = describe(kind("line one\nline two"))
    (error,) = json.loads(described.body)["errors"]
    assert error["message"] == "line one\nline two"
    assert described.reason == b"line one line two"


@given(message=st.text(max_size=500))
def test_reason_phrases(message: str) -> None:
    """Whatever a message says, its reason phrase is one printable line of ASCII."""
    described = problem(422, "UNKNOWN", message)
    assert all(0x20 <= byte <= 0x7E for byte in described.reason)
    assert len(described.reason) <= 240
    assert json.loads(described.body)["errors"][0]["message"] == message


def test_long_reasons_are_cut() -> None:
    """A reason that is cut says so."""
    assert problem(422, "UNKNOWN", "x" * 240).reason == b"x" * 240
    assert problem(422, "UNKNOWN", "x" * 241).reason == b"x" * 237 + b"..."


def test_reasons_cannot_end_the_status_line() -> None:
    """No message of nix can add a header to the answer."""
    described = problem(422, "UNKNOWN", "no\r\nSet-Cookie: x=y\r\n\r\n")
    assert described.reason == b"no Set-Cookie: x=y"
