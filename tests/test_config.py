"""Tests for `forgereg.config`."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forgereg.config import (
    TABLE,
    Row,
    SettingInvalid,
    Settings,
    defaults,
    read_settings,
)

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


def test_a_row_for_each_setting() -> None:
    """Every setting is in the table, and nothing else is."""
    assert list(ROWS) == [field.name for field in attrs.fields(Settings)]


@pytest.mark.parametrize("of", ["name", "variable", "option"])
def test_no_two_settings_have_one_name(of: str) -> None:
    """No option or variable means two settings."""
    names = [getattr(row, of) for row in TABLE]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_help(row: Row) -> None:
    """Every setting is explained in a phrase."""
    assert row.help and not row.help.endswith(".")
    assert row.option == row.name.replace("_", "-")


def test_defaults() -> None:
    """Without any setting the registry serves nix-forge to this machine alone."""
    assert read_settings({}, {}, {}, DEFAULTS) == Settings(
        flake="github:imincik/nix-forge",
        host="127.0.0.1",
        port="6443",
        state_dir="/home/me/.local/state/forge-registry",
        log_level="info",
        nix_build_timeout=3600.0,
        tag_ttl=300.0,
        store="",
        system="x86_64-linux",
        cache_size=1000,
        max_image_name_length=255,
        max_tag_length=128,
        max_image_size=34359738368,
    )


def test_default_system_is_this_machine() -> None:
    """An ARM machine serves packages for ARM."""
    found = defaults({}, "/home/me", "aarch64")
    assert found["FORGE_SYSTEM"] == "aarch64-linux"


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({}, "/home/me/.local/state/forge-registry"),
        ({"XDG_STATE_HOME": "/x"}, "/x/forge-registry"),
        ({"XDG_STATE_HOME": ""}, "/home/me/.local/state/forge-registry"),
        ({"STATE_DIRECTORY": "/var/lib/forge"}, "/var/lib/forge"),
        (
            {"STATE_DIRECTORY": "/var/lib/forge", "XDG_STATE_HOME": "/x"},
            "/var/lib/forge",
        ),
    ],
)
def test_default_state_directory(environ: dict[str, str], directory: str) -> None:
    """The state lies where systemd or the desktop's conventions put it."""
    found = defaults(environ, "/home/me", "x86_64")
    assert found["FORGE_STATE_DIR"] == directory


def test_precedence() -> None:
    """An option beats the environment, that .env, and that the default."""
    options: dict[str, str | None] = {}
    environ: dict[str, str] = {}
    env_file: dict[str, str | None] = {}

    def port() -> str:
        return read_settings(options, environ, env_file, DEFAULTS).port

    assert port() == "6443"
    env_file["FLASK_PORT"] = "1001"
    assert port() == "1001"
    environ["FLASK_PORT"] = "1002"
    assert port() == "1002"
    options["port"] = "1003"
    assert port() == "1003"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_empty_variables_are_none(row: Row) -> None:
    """A variable that is set to nothing leaves the setting to the next place."""
    empty = {row.variable: ""}
    unset: dict[str, str | None] = {row.variable: None}
    assert read_settings({}, empty, unset, DEFAULTS) == read_settings(
        {row.name: None}, {}, {}, DEFAULTS
    )
    assert read_settings({}, empty, {"FLASK_PORT": "7"}, DEFAULTS).port == "7"


def test_blanks_do_not_count() -> None:
    """Blanks around a value, as .env files have them, are no part of it."""
    assert read("port", " 8080 ") == "8080"
    assert read("flake", "\tgithub:acme/forge\n") == "github:acme/forge"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("flake", "github:acme/forge/main?dir=x", "github:acme/forge/main?dir=x"),
        ("flake", "/srv/flake", "/srv/flake"),
        (
            "flake",
            "git+ssh://git@host/x.git?ref=main",
            "git+ssh://git@host/x.git?ref=main",
        ),
        ("port", "1", "1"),
        ("port", "65535", "65535"),
        ("port", "unix:/run/forge.sock", "unix:/run/forge.sock"),
        ("port", "tcp6:port=80", "tcp6:port=80"),
        ("state_dir", "/srv//x/../forge/", "/srv/forge"),
        ("log_level", "WARNING", "warn"),
        ("log_level", "warn", "warn"),
        ("log_level", "Debug", "debug"),
        ("log_level", "critical", "critical"),
        ("nix_build_timeout", "0.5e2", 50.0),
        ("nix_build_timeout", "604800", 604800.0),
        ("tag_ttl", "0", 0.0),
        ("store", "/srv/store", "/srv/store"),
        ("store", "local?root=/srv/store", "local?root=/srv/store"),
        ("store", "daemon", "daemon"),
        ("store", "unix:///run/x", "unix:///run/x"),
        ("system", "aarch64-darwin", "aarch64-darwin"),
        ("cache_size", "1", 1),
        ("max_image_name_length", "255", 255),
        ("max_tag_length", "1", 1),
        ("max_image_size", str(2**50), 2**50),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    """A value that makes sense is understood."""
    assert read(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("flake", "-x", "a flake ref without #attribute"),
        ("flake", "github:a/b#hello", "a flake ref without #attribute"),
        ("flake", "a\x00b", "a flake ref"),
        ("flake", " ", "a flake ref"),
        ("host", " ", "an address"),
        ("port", "0", "from 1 to 65535"),
        ("port", "65536", "from 1 to 65535"),
        ("port", "http", "a port from 1 to 65535, or a Twisted endpoint string"),
        ("port", "-1", "a port"),
        ("port", "²", "from 1 to 65535"),
        ("port", ":80", "a port"),
        ("state_dir", "var/lib", "an absolute path"),
        ("state_dir", "~/state", "an absolute path"),
        ("log_level", "loud", "one of debug, info, warning, error, critical"),
        ("nix_build_timeout", "0", "a number from 1 to 604800"),
        ("nix_build_timeout", "nan", "a number from 1 to 604800"),
        ("nix_build_timeout", "inf", "a number from 1 to 604800"),
        ("nix_build_timeout", "1h", "a number from 1 to 604800"),
        ("tag_ttl", "-1", "a number from 0 to"),
        ("tag_ttl", "1e9", "a number from 0 to"),
        ("store", "ssh://host", "a store on this machine"),
        ("store", "https://cache.nixos.org", "a store on this machine"),
        ("store", "relative/path", "a store on this machine"),
        ("system", "x86", "a Nix system, such as x86_64-linux"),
        ("system", 'x86_64-linux"', "a Nix system"),
        ("system", "x86_64-linux; import", "a Nix system"),
        ("cache_size", "0", "a whole number from 1 to 1000000"),
        ("cache_size", "1.5", "a whole number"),
        ("cache_size", "१", "a whole number"),
        ("max_image_name_length", "256", "a whole number from 1 to 255"),
        ("max_tag_length", "129", "a whole number from 1 to 128"),
        ("max_image_size", "1", "a whole number from 1048576 to"),
        ("max_image_size", "32G", "a whole number from 1048576 to"),
    ],
)
def test_nonsense(name: str, text: str, allowed: str) -> None:
    """Whoever sets nonsense reads what was set, to what, and what is allowed."""
    message = refused(name, text)
    assert message.startswith(f"{ROWS[name].variable} is {text!r}; it must be ")
    assert allowed in message


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_nonsense_options_are_named_as_options(row: Row) -> None:
    """Whoever gives a bad option is told of the option, not of a variable."""
    text = "no\x00nsense"
    try:
        read_settings({row.name: text}, {}, {}, DEFAULTS)
    except SettingInvalid as e:
        assert str(e).startswith(f"--{row.option} is {text!r}; it must be ")
    else:
        assert row.name in ("host", "state_dir", "store")


def test_empty_options_are_not_ignored() -> None:
    """An option that is given an empty value is taken at its word."""
    with pytest.raises(SettingInvalid, match="--flake is ''"):
        read_settings({"flake": ""}, {"GITHUB_REPO": "github:a/b"}, {}, DEFAULTS)
    assert read_settings({"store": ""}, {"FORGE_STORE": "/x"}, {}, DEFAULTS).store == ""


@given(row=st.sampled_from(TABLE), text=st.text(min_size=1))
@example(ROWS["cache_size"], "9" * 5000)
@example(ROWS["port"], "9" * 5000)
@example(ROWS["nix_build_timeout"], "9" * 5000)
def test_any_value(row: Row, text: str) -> None:
    """Any value is either understood or refused in words that say what is allowed."""
    try:
        read(row.name, text)
    except SettingInvalid as e:
        opening = f"{row.variable} is {text!r}; it must be "
        assert str(e).startswith(opening)
        allowed = str(e).removeprefix(opening)
        assert allowed.startswith(("a ", "an ", "one of ", "not "))


@pytest.mark.parametrize(
    ("host", "port", "endpoint"),
    [
        ("127.0.0.1", "6443", "tcp:6443:interface=127.0.0.1:backlog=1024"),
        ("::1", "80", r"tcp:80:interface=\:\:1:backlog=1024"),
        ("127.0.0.1", "unix:/run/forge.sock", "unix:/run/forge.sock"),
    ],
)
def test_endpoint(host: str, port: str, endpoint: str) -> None:
    """A port is listened on at the host; an endpoint string says it all itself."""
    environ = {"FLASK_HOST": host, "FLASK_PORT": port}
    assert read_settings({}, environ, {}, DEFAULTS).endpoint == endpoint
