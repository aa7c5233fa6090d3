"""Tests for `forgereg.values`, as they are read in the table of settings."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forgereg.config import (
    TABLE,
    Row,
    SettingInvalid,
)
from forgereg.values import FlakeSetting
from tests.settings import ROWS, read, refused

ANY_IPV6 = ip_network("::/0")


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
        ("tags", "v*", ("v*",)),
        (
            "tags",
            "tag:v[!0]*, branch:main\trev:?*",
            ("tag:v[!0]*", "branch:main", "rev:?*"),
        ),
        ("token_file", "/run/credentials//token", "/run/credentials/token"),
        ("last_known_good", "always", "always"),
        ("last_known_good", "off", "off"),
        ("failure_ttl", "0", 0.0),
        ("max_builds", "1000", 1000),
        ("max_queue", "0", 0),
        ("max_evaluations", "1", 1),
        ("evaluation_timeout", "0.1e3", 100.0),
        ("evaluation_memory", "0", 0),
        ("max_hold", "25.5", 25.5),
        ("redirect_hold", "3600", 3600.0),
        (
            "prewarm",
            "packages/hello, applications/web-app/web:1.0",
            ("packages/hello", "applications/web-app/web:1.0"),
        ),
        ("build_log_size", "1024", 1024),
        ("build_log_days", "0", 0.0),
        ("sweep_bytes", str(2**60), 2**60),
        ("sweep_days", "36600", 36600.0),
        ("pins", "packages/hello:* team-a/*", ("packages/hello:*", "team-a/*")),
        ("transfer_coding", "Always", "always"),
        ("fast_networks", "none", ()),
        ("fast_networks", "0.0.0.0/0 ::/0", (ip_network("0.0.0.0/0"), ANY_IPV6)),
        ("trusted_proxies", "192.0.2.1, ::/0", (ip_network("192.0.2.1"), ANY_IPV6)),
        ("trusted_proxies", "10.0.0.0/255.0.0.0", (ip_network("10.0.0.0/8"),)),
        ("stop_timeout", "0", 0.0),
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
        ("state_dir", "/x\0y", "an absolute path"),
        ("flakes", "team-a", "a TOML inline table, such as {team-a ="),
        ("tags", "head:main", "a list of patterns, such as v*"),
        ("tags", "feature/x", "a list of patterns"),
        ("tags", "!v*", "a list of patterns"),
        ("tags", "v[1", "a list of patterns"),
        ("tags", "tag:", "a list of patterns"),
        ("token_file", "token", "an absolute path"),
        ("last_known_good", "yes", "one of off, unreachable, always"),
        ("failure_ttl", "-1", "a number from 0 to"),
        ("max_builds", "0", "a whole number from 1 to 1000"),
        ("max_queue", "-1", "a whole number from 0 to 100000"),
        ("max_evaluations", "0", "a whole number from 1 to 1000"),
        ("evaluation_timeout", "0", "a number from 1 to"),
        ("evaluation_memory", "1", "a whole number from 268435456 to"),
        ("pins", "packages/Hello", "a list of patterns of images"),
        ("pins", "[", "a list of patterns of images"),
        ("evaluation_memory", "8G", "a whole number from 268435456 to"),
        ("max_hold", "for ever", "a number from 0 to"),
        ("redirect_hold", "3601", "a number from 0 to 3600"),
        ("prewarm", "Packages/hello", "a list of images, such as packages/hello"),
        ("prewarm", "packages//hello", "a list of images"),
        ("prewarm", "packages/hello:", "a list of images"),
        ("prewarm", "*", "a list of images"),
        ("hook_secret_file", "s3cret", "an absolute path"),
        ("admin_token_file", "~/token", "an absolute path"),
        ("build_log_size", "1023", "a whole number from 1024 to"),
        ("build_log_days", "-1", "a number from 0 to 36600"),
        ("sweep_bytes", "1e9", "a whole number from 0 to"),
        ("sweep_days", "nan", "a number from 0 to 36600"),
        ("transfer_coding", "gzip", "one of auto, always, never"),
        ("fast_networks", "10.0.0.1/8", "a list of networks and addresses, such as"),
        ("fast_networks", "localhost", "or none"),
        ("fast_networks", "10.0.0.0/33", "a list of networks"),
        ("trusted_proxies", "none 10.0.0.1", "a list of networks"),
        ("trusted_proxies", "fe80::1%eth0", "a list of networks"),
        ("trusted_proxies", ",", "a list of networks"),
        ("stop_timeout", "1h", "a number from 0 to 3600"),
    ],
)
def test_nonsense(name: str, text: str, allowed: str) -> None:
    """Whoever sets nonsense reads what was set, to what, and what is allowed."""
    message = refused(name, text)
    assert message.startswith(f"{ROWS[name].variable} is {text!r}; it must be ")
    assert allowed in message


@given(row=st.sampled_from(TABLE), text=st.text(min_size=1))
@example(ROWS["cache_size"], "9" * 5000)
@example(ROWS["port"], "9" * 5000)
@example(ROWS["nix_build_timeout"], "9" * 5000)
@example(ROWS["flakes"], "9" * 5000)
@example(ROWS["flakes"], "[" * 5000)
@example(ROWS["flakes"], "{a=" * 5000)
@example(ROWS["flakes"], "/")
@example(ROWS["flakes"], "/\0")
@example(ROWS["flakes"], "/\ud800")
def test_any_value(row: Row, text: str) -> None:
    """Any value is either understood or refused in words that say what is allowed."""
    try:
        read(row.name, text)
    except SettingInvalid as e:
        opening = f"{row.variable} is {text!r}; it must be "
        assert str(e).startswith(opening)
        allowed = str(e).removeprefix(opening)
        assert allowed.startswith(("a ", "an ", "one of ", "not "))
        assert len(str(e).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "flakes"),
    [
        ("{}", ()),
        ('{team-a = "github:acme/a"}', (FlakeSetting("team-a", "github:acme/a"),)),
        (
            '{a = {flake = " path:/srv/a ", tags = "v* rev:*", token_file = "/run/t"},'
            ' "acme/b.c" = {flake = "github:acme/b", tags = ["v*", "branch:main"]}}',
            (
                FlakeSetting("a", "path:/srv/a", ("v*", "rev:*"), "/run/t"),
                FlakeSetting("acme/b.c", "github:acme/b", ("v*", "branch:main")),
            ),
        ),
        (
            '{a = "github:acme/a", "a/b" = "github:acme/b"}',
            (FlakeSetting("a", "github:acme/a"), FlakeSetting("a/b", "github:acme/b")),
        ),
    ],
)
def test_flakes(text: str, flakes: tuple[FlakeSetting, ...]) -> None:
    """More flakes are named in one line, each with as much as it needs."""
    assert read("flakes", text) == flakes


def test_flakes_in_a_file(tmp_path: Path) -> None:
    """More flakes than fit in a line are named in a file."""
    path = tmp_path / "flakes.toml"
    path.write_text(
        """
        team-a = "github:acme/a"  # theirs

        ["acme/b"]
        flake = "github:acme/b"
        tags = ["v*"]
        """
    )
    assert read("flakes", str(path)) == (
        FlakeSetting("team-a", "github:acme/a"),
        FlakeSetting("acme/b", "github:acme/b", ("v*",)),
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "it cannot be read: No such file or directory"),
        (b"team-a", "Expected '=' after a key"),
        (b"a = 'github:a/b'\na = 'github:c/d'", "Cannot overwrite a value"),
        (b"\xff", "can't decode byte 0xff"),
        (b"a = " + b"[" * 5000, "recursion"),
    ],
)
def test_flakes_in_a_bad_file(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """A file that cannot be read stops the start, and is named."""
    path = tmp_path / "flakes.toml"
    if content is not None:
        path.write_bytes(content)
    message = refused("flakes", str(path))
    assert str(path) in message and reason in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1", "this is none"),
        ('"github:acme/a"', "this is none"),
        ("[{a = 'github:acme/a'}]", "this is none"),
        ("{}\nother = 1", "this is none"),
        ("{a = 'github:acme/a',\nb = 'github:acme/b'}", "Invalid initial character"),
        ("{a = 'github:a/b', a = 'github:c/d'}", "Duplicate"),
        ("{Team = 'github:acme/a'}", "'Team' cannot begin the name of an image"),
        ("{-a = 'github:acme/a'}", "'-a' cannot begin"),
        ("{a- = 'github:acme/a'}", "'a-' cannot begin"),
        ("{'a/' = 'github:acme/a'}", "'a/' cannot begin"),
        ("{'/a' = 'github:acme/a'}", "'/a' cannot begin"),
        ("{'' = 'github:acme/a'}", "'' cannot begin"),
        ("{_catalog = 'github:acme/a'}", "'_catalog' cannot begin"),
        (f"{{{'a' * 129} = 'github:acme/a'}}", "128 characters are allowed"),
        ("{v2 = 'github:acme/a'}", "'v2' would be ambiguous"),
        ("{'v2/a' = 'github:acme/a'}", "'v2/a' would be ambiguous"),
        ("{packages = 'github:acme/a'}", "'packages' would be ambiguous"),
        ("{'applications/a' = 'github:acme/a'}", "must not begin with v2, nor have"),
        ("{'a/applications' = 'github:acme/a'}", "'a/applications' would be ambig"),
        ("{a.b = 'github:acme/a'}", "a dot in it is written in quotes"),
        ("{a = {tags = 'v*'}}", "'a' must have flake"),
        ("{a = {flake = 'github:a/b', tag = 'v*'}}", "may have tags and token_file"),
        ("{a = 7}", "flake of 'a' is 7; it must be text, in quotes"),
        ("{a = ['github:a/b']}", "it must be text, in quotes"),
        ("{a = 2026-01-01}", "it must be text, in quotes"),
        ("{a = ''}", "flake of 'a' is ''; it must be a flake ref"),
        ("{a = 'github:a/b#c'}", "it must be a flake ref without #attribute"),
        ("{a = ' -x'}", "it must be a flake ref"),
        ("{a = {flake = 'x', tags = 1.0}}", "tags of 'a' is 1.0; it must be text"),
        ("{a = {flake = 'x', tags = [1.0]}}", "tags of 'a' is [1.0]; it must be text"),
        ("{a = {flake = 'x', tags = {v = 1}}}", "it must be text, in quotes"),
        ("{a = {flake = 'x', tags = ['!']}}", "it must be a list of patterns"),
        ("{a = {flake = 'x', token_file = 't'}}", "it must be an absolute path"),
        ("{a = {flake = 'x', token_file = 7}}", "token_file of 'a' is 7; it must be"),
    ],
)
def test_bad_flakes(text: str, reason: str) -> None:
    """Whoever names flakes wrongly reads which one, what of it, and what is allowed."""
    message = refused("flakes", text)
    assert message.startswith(f"FORGE_FLAKES is {text!r}; it must be a TOML inline")
    assert reason in message
    assert len(message.splitlines()) == 1


@given(text=st.text(alphabet="{}[]\"'=,.:/#- \nabv2", max_size=40).map("{{{}}}".format))
def test_anything_like_flakes(text: str) -> None:
    """What looks like TOML is understood or refused, and nothing else."""
    try:
        found = read("flakes", text)
    except SettingInvalid:
        return
    assert all(each.prefix and each.flake for each in found)
