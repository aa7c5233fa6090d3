"""Tests for `forgereg.nix.flake`."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgereg.lines import masked
from forgereg.nix.flake import (
    OLDEST,
    Command,
    catalogue_query,
    is_here,
    package_query,
    parse_locked,
    parse_outputs,
    parse_version,
)

COMMAND = Command("x86_64-linux")
LOCKED = "github:acme/forge/0123"

EVERY = [
    COMMAND.lock("github:acme/forge"),
    COMMAND.evaluate(LOCKED, "ps: ps"),
    COMMAND.build(LOCKED, COMMAND.installable("hello", "image"), "/state/roots/x"),
]


@pytest.mark.parametrize("argv", EVERY)
def test_flakes_need_not_be_enabled(argv: list[str]) -> None:
    """The registry works on a nix whose flakes nobody has switched on."""
    at = argv.index("--extra-experimental-features")
    assert argv[0] == "nix"
    assert argv[at + 1] == "nix-command flakes"


@pytest.mark.parametrize("argv", EVERY)
def test_a_flake_cannot_configure_nix(argv: list[str]) -> None:
    """What a flake says in its nixConfig is not obeyed."""
    at = argv.index("accept-flake-config")
    assert argv[at - 1 : at + 2] == ["--option", "accept-flake-config", "false"]


@pytest.mark.parametrize("argv", EVERY)
def test_a_flake_ref_is_never_an_option(argv: list[str]) -> None:
    """Nothing that names a flake can be taken for an option of nix."""
    assert argv.index("--") == len(argv) - 2


@pytest.mark.parametrize("argv", EVERY)
def test_nothing_is_written_to_the_flake(argv: list[str]) -> None:
    """A flake without a lock file is served without being given one."""
    assert "--no-write-lock-file" in argv


def test_locking_looks_upstream() -> None:
    """A pull after the time to live sees what was pushed, whatever nix has cached."""
    argv = COMMAND.lock("github:acme/forge")
    assert "--refresh" in argv
    assert argv[-1] == "github:acme/forge"


def test_building_asks_for_a_root() -> None:
    """What was built stays, because nix is told where to link it."""
    argv = EVERY[2]
    at = argv.index("--out-link")
    assert argv[at + 1] == "/state/roots/x"
    assert argv[-1] == f'{LOCKED}#packages.x86_64-linux."hello".image'


@pytest.mark.parametrize("argv", EVERY)
def test_store_of_nix_itself(argv: list[str]) -> None:
    """Without a setting, nix uses the store that it would use anyway."""
    assert "--store" not in argv


def test_store_elsewhere() -> None:
    """With a setting, each command uses that store."""
    command = Command("x86_64-linux", "/srv/store")
    for argv in (
        command.lock("."),
        command.evaluate(".", "ps: ps"),
        command.build(".", "x", "y"),
        command.probe(),
    ):
        at = argv.index("--store")
        assert argv[at + 1] == "/srv/store"


def test_system() -> None:
    """What is served is what the flake has for the system that is configured."""
    command = Command("aarch64-linux")
    assert command.evaluate(LOCKED, "q")[-1] == f"{LOCKED}#packages.aarch64-linux"
    assert command.installable("a.b", "image") == 'packages.aarch64-linux."a.b".image'


REVISION, CONTENT = "0123abcd", "sha256-AAAA="


@pytest.mark.parametrize(
    ("metadata", "locked"),
    [
        (
            {"url": LOCKED, "revision": REVISION, "locked": {"narHash": CONTENT}},
            LOCKED,
        ),
        (
            {"url": f"path:/x?narHash={CONTENT}", "locked": {"narHash": CONTENT}},
            f"path:/x?narHash={CONTENT}",
        ),
        (
            {"url": "git+file:///x", "locked": {"narHash": CONTENT}},
            f"git+file:///x#{CONTENT}",
        ),
        ({"url": "git+file:///x", "locked": {}}, "git+file:///x#"),
        ({"url": LOCKED}, f"{LOCKED}#"),
        ({"url": None}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_locked_refs(metadata: object, locked: str | None) -> None:
    """Two states of a flake are told apart, a tree with changes by its content."""
    assert parse_locked(metadata) == locked


def test_tree_with_changes() -> None:
    """Of a tree that nix does not lock, what is built is the tree as it is."""
    locked = f"git+file:///x#{CONTENT}"
    assert COMMAND.evaluate(locked, "q")[-1] == "git+file:///x#packages.x86_64-linux"
    attribute = COMMAND.installable("a", "image")
    assert COMMAND.build(locked, attribute, "l")[-1] == f"git+file:///x#{attribute}"


@pytest.mark.parametrize(
    ("locked", "here"),
    [
        ("path:/x?narHash=y", True),
        (f"git+file:///x#{CONTENT}", True),
        ("git+file:///x?rev=y", True),
        ("github:acme/forge/0123", False),
        ("git+ssh://host/x?rev=y", False),
        ("git+https://host/path:x", False),
    ],
)
def test_flakes_of_this_machine(locked: str, here: bool) -> None:
    """A flake that somebody may be writing at is told from one that is elsewhere."""
    assert is_here(locked) is here


@pytest.mark.parametrize(
    "attribute", ["", "a b", 'a"', "a${b}", "a\\", "a\n", "é", "/"]
)
def test_attributes_that_nix_would_interpret(attribute: str) -> None:
    """An attribute that could mean more than itself is never written."""
    with pytest.raises(ValueError):
        COMMAND.installable(attribute, "image")


@settings(max_examples=30)
@given(
    attribute=st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True),
    output=st.sampled_from(["image", "containers"]),
)
def test_queries_of_packages(attribute: str, output: str) -> None:
    """A query names the package, its output, and leaves no placeholder."""
    query = package_query(attribute, output)
    assert f'want = "{attribute}";' in query
    assert f'output = "{output}";' in query
    assert "%(" not in query


def test_queries_are_constant() -> None:
    """Equal questions are equal text, so that an answer is found again."""
    assert package_query("a", "image") == package_query("a", "image")
    assert catalogue_query() == catalogue_query()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nix (Nix) 2.26.3\n", (2, 26)),
        ("nix (Nix) 2.8.0", (2, 8)),
        ("nix (Nix) 2.29.0pre20250101_0123abc", (2, 29)),
        ("nix (Lix, like Nix) 2.93.0", (2, 93)),
        ("nix (Determinate Nix 3.6.2) 2.29.0", (2, 29)),
        ("nix (Nix) 3.0", (3, 0)),
        ("2.18", (2, 18)),
        ("nix (Nix)", None),
        ("", None),
        ("command not found", None),
    ],
)
def test_versions(text: str, version: tuple[int, int] | None) -> None:
    """The version of each relative of Nix is understood."""
    assert parse_version(text) == version


def test_oldest_version() -> None:
    """The oldest nix that works is one that there is."""
    assert parse_version(f"nix (Nix) {OLDEST[0]}.{OLDEST[1]}.0") == OLDEST


@pytest.mark.parametrize(
    "printed",
    [
        [{"drvPath": "/nix/store/x.drv", "outputs": {"out": "/nix/store/a"}}],
        [{"outputs": {"doc": "/nix/store/b", "out": "/nix/store/a"}}],
        [{"outputs": {"image": "/nix/store/a"}}],
        ["/nix/store/a"],
    ],
)
def test_outputs(printed: object) -> None:
    """The output of a build is found in what each version of nix prints."""
    assert parse_outputs(json.dumps(printed).encode())[0] == "/nix/store/a"


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"[",
        b"[]",
        b"{}",
        b"null",
        b"[5]",
        b'[{"outputs": {}}]',
        b'[{"outputs": {"out": null}}]',
        b'["a", "b"]',
        b"\xff",
    ],
)
def test_outputs_of_no_known_shape(printed: bytes) -> None:
    """What nix prints is not taken for an output that it is not."""
    with pytest.raises(ValueError):
        parse_outputs(printed)


def test_lower_case_is_that_of_ascii() -> None:
    """An attribute is found by its lower-case name, one letter for each letter."""
    lists = re.search(r"replaceStrings \[ (.*?) ] \[ (.*?) ]", package_query("a", "b"))
    assert lists is not None
    upper, lower = (re.findall(r'"(.)"', part) for part in lists.groups())
    assert [letter.lower() for letter in upper] == lower
    assert len(lower) == 26


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("git+https://me:pass@host/x?ref=main", "git+https://***@host/x?ref=main"),
        (
            "https://host/x?access_token=abc&ref=y",
            "https://host/x?access_token=***&ref=y",
        ),
        ("fetch 'https://t0ken@host/x': 403", "fetch 'https://***@host/x': 403"),
        ("github:acme/forge", "github:acme/forge"),
        ("git+ssh://git@host/x", "git+ssh://***@host/x"),
        ("see https://host/a@b", "see https://host/a@b"),
    ],
)
def test_secrets(text: str, shown: str) -> None:
    """A password or token in a URL is not shown to anyone."""
    assert masked(text) == shown
