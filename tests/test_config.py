"""Tests for `forgereg.config`."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import attrs
import pytest

from forgereg.config import (
    TABLE,
    Row,
    SettingInvalid,
    Settings,
    defaults,
    find_strangers,
    read_settings,
)
from tests.settings import DEFAULTS, ROWS, read


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
        log_format="text",
        nix_build_timeout=3600.0,
        tag_ttl=300.0,
        store="",
        system="x86_64-linux",
        cache_size=1000,
        max_image_name_length=255,
        max_tag_length=128,
        max_image_size=34359738368,
        flakes=(),
        tags=(),
        token_file="",
        last_known_good="unreachable",
        failure_ttl=60.0,
        max_builds=8,
        max_queue=1000,
        max_evaluations=2,
        evaluation_timeout=600.0,
        evaluation_memory=8589934592,
        max_hold=0.0,
        redirect_hold=0.0,
        prewarm=(),
        hook_secret_file="",
        admin_token_file="",
        build_log_size=10485760,
        build_log_days=14.0,
        blobs_size=21474836480,
        scrub_days=7.0,
        sweep_bytes=0,
        sweep_days=0.0,
        pins=(),
        transfer_coding="auto",
        fast_networks=(
            IPv4Network("127.0.0.0/8"),
            IPv4Network("10.0.0.0/8"),
            IPv4Network("172.16.0.0/12"),
            IPv4Network("192.168.0.0/16"),
            IPv4Network("169.254.0.0/16"),
            IPv6Network("::1"),
            IPv6Network("fc00::/7"),
            IPv6Network("fe80::/10"),
        ),
        trusted_proxies=(IPv4Network("127.0.0.0/8"), IPv6Network("::1")),
        stop_timeout=30.0,
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


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_nonsense_options_are_named_as_options(row: Row) -> None:
    """Whoever gives a bad option is told of the option, not of a variable."""
    text = "no\x00nsense"
    try:
        read_settings({row.name: text}, {}, {}, DEFAULTS)
    except SettingInvalid as e:
        assert str(e).startswith(f"--{row.option} is {text!r}; it must be ")
    else:
        assert row.name in ("host", "pins", "state_dir", "store")


def test_empty_options_are_not_ignored() -> None:
    """An option that is given an empty value is taken at its word."""
    with pytest.raises(SettingInvalid, match="--flake is ''"):
        read_settings({"flake": ""}, {"GITHUB_REPO": "github:a/b"}, {}, DEFAULTS)
    assert read_settings({"store": ""}, {"FORGE_STORE": "/x"}, {}, DEFAULTS).store == ""


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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FORGE_MAX_BILDS", "FORGE_MAX_BUILDS"),
        ("FORGE_EVALUATION_MEM", "FORGE_EVALUATION_MEMORY"),
        ("FORGE_FLAKE", "GITHUB_REPO"),
        ("FORGE_PORT", "FLASK_PORT"),
        ("FORGE_LOG_LEVEL", "LOG_LEVEL"),
    ],
)
def test_misspelt_settings(name: str, meant: str) -> None:
    """Who misspells a setting, in the environment or in .env, reads what it is called."""
    advice = {name: f"did you mean {meant}?"}
    assert (
        find_strangers({name: "7000"}, {}) == find_strangers({}, {name: ""}) == advice
    )


def test_others_that_begin_like_settings() -> None:
    """What is no setting and has its use is no reason for a warning."""
    service = {
        "FORGE_PORT": "tcp://10.0.0.1:6443",
        "FORGE_REGISTRY_PORT_6443_TCP": "tcp://10.0.0.1:6443",
        "FORGE_REGISTRY_PORT_6443_TCP_ADDR": "10.0.0.1",
        "FORGE_REGISTRY_SERVICE_HOST": "10.0.0.1",
        "FORGE_REGISTRY_SERVICE_PORT_HTTP": "6443",
        "FORGE_URL": "http://localhost:6443",
        "HOME": "/root",
        **{row.variable: "" for row in TABLE},
    }
    assert not find_strangers(service, service)
    assert find_strangers({"FORGE_XYZZY": ""}) == {
        "FORGE_XYZZY": "README, 'Settings', lists them"
    }
