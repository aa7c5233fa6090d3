"""Tests for `forgereg.flow.gist`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgereg.flow.gist import gist

DRV = "/nix/store/hm4h0d2b3c4f5g6h7i8j9k0l1m2n3p4q-tape-1.0.drv"
LINES = "last lines of the log:\n> winding\n> the tape ran out\n> "


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (
            "build of packages/x:latest failed: builder for"
            f" '{DRV}' failed with exit code 7\n{LINES}",
            "the tape ran out",
        ),
        (
            f"build of packages/x:1 failed: builder for '{DRV}' failed with exit code"
            " 7;\n       last 2 log lines:\n       > winding\n       > its own\n"
            f"       For full logs, run 'nix log {DRV}'.\n1 dependencies of derivation"
            f" '{DRV}' failed to build\n{LINES}",
            "its own",
        ),
        (
            f"build of x:1 failed: Cannot build '{DRV}'.\nReason: builder failed with"
            f" exit code 1.\n{LINES}",
            "the tape ran out",
        ),
        (
            "streaming of packages/x:1 failed: it ended with status 3\n" + LINES,
            "the tape ran out",
        ),
        (f"build of x:1 failed: builder for '{DRV}' failed with exit code 7",
         "builder for 'tape-1.0' failed with exit code 7"),
        (f"build of x:1 failed: builder for '{DRV}' failed to produce output path"
         " '/mnt/nix/store/hm4h0d2b3c4f5g6h7i8j9k0l1m2n3p4q-x.tar.gz'",
         "builder for 'tape-1.0' failed to produce output path 'x.tar.gz'"),
        (f"build of x:1 timed out after 60 s (NIX_BUILD_TIMEOUT): nix did not say why\n"
         f"{LINES}", "timed out after 60 s (NIX_BUILD_TIMEOUT): the tape ran out"),
        ("evaluation of x:1 failed: undefined variable 'pkg' (at flake.nix:3:4)\n"
         + LINES, "undefined variable 'pkg' (at flake.nix:3:4)"),
        ("build of x:1 failed, nix was ended; pull again: nix did not say why",
         "nix was ended; pull again: nix did not say why"),
        ("flake github:a/b failed: HTTP error 404;\nnot there",
         "flake github:a/b failed: HTTP error 404"),
        ("cancelled", "cancelled"),
        ("", ""),
    ],
)  # fmt: skip
def test_gist(reason: str, line: str) -> None:
    """A list tells what went wrong in the words that say most."""
    assert gist(reason) == line


@given(st.text(st.sampled_from("/nix-store.'> \nbuilder failed:0123456789abcdf")))
def test_one_line(reason: str) -> None:
    """Whatever the reason, its gist is one line."""
    assert len(gist(reason).splitlines()) <= 1
