"""
What a setting may be: its text in, its value out; else a ValueError that says what is
allowed. Pure, but for the file that ``FORGE_FLAKES`` may name.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from attrs import frozen

Network = IPv4Network | IPv6Network


@frozen
class FlakeSetting:
    """
    A flake whose images have names of their own.

    :ivar prefix: of those names, without a slash at the end; where one begins another,
        the longer counts.
    :ivar tags: patterns, as of the setting ``tags``.
    :ivar token_file: path; empty for none.
    """

    prefix: str
    flake: str
    tags: tuple[str, ...] = ()
    token_file: str = ""


def written(value: object) -> str:
    """Write a value for people; nothing where there is none."""
    match value:
        case tuple():
            return " ".join(map(written, value))
        case FlakeSetting():
            tags = f" ({' '.join(value.tags)})" if value.tags else ""
            return f"{value.prefix} = {value.flake}{tags}"
        case float():
            return f"{value:.15g}"
    return str(value)


def number(low: float, high: float) -> Callable[[str], float]:
    """Read a number from low to high."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number from {low:.0f} to {high:.0f}")
        return value

    return read


def whole(low: int, high: int) -> Callable[[str], int]:
    """Read a whole number from low to high."""

    def read(text: str) -> int:
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(high))
        if not digits or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def zero_or(read: Callable[[str], int]) -> Callable[[str], int]:
    """Read nought, or what else is allowed."""

    def read_any(text: str) -> int:
        try:
            return 0 if text == "0" else read(text)
        except ValueError as e:
            raise ValueError(f"{e}, or 0") from e

    return read_any


def port(text: str) -> str:
    """Read a TCP port or a Twisted endpoint string."""
    is_port = re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= 65535
    if not is_port and not re.match(r"[a-zA-Z0-9]+:", text):
        raise ValueError("a port from 1 to 65535, or a Twisted endpoint string")
    return text


_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warn": "warn",
    "warning": "warn",
    "error": "error",
    "critical": "critical",
}


def level(text: str) -> str:
    """Read a log level; give it as Twisted has it."""
    if text.lower() not in _LEVELS:
        raise ValueError("one of debug, info, warning, error, critical")
    return _LEVELS[text.lower()]


def flake(text: str) -> str:
    """Read a flake ref that names no attribute."""
    if not text or text.startswith("-") or "#" in text or not text.isprintable():
        raise ValueError("a flake ref without #attribute, such as github:owner/repo")
    return text


def system(text: str) -> str:
    """Read a Nix system."""
    if not re.fullmatch(r"[a-z0-9_]+-[a-z0-9_]+", text):
        raise ValueError("a Nix system, such as x86_64-linux")
    return text


def store(text: str) -> str:
    """Read a Nix store of this machine, or that it is nix's own choice."""
    base = text.partition("?")[0]
    here = base in ("", "auto", "daemon", "local") or base.startswith(("/", "unix://"))
    if not here:
        raise ValueError(
            "a store on this machine: a path to its root, local, daemon or unix://…"
        )
    return text


def directory(text: str) -> str:
    """Read an absolute path."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError("an absolute path")
    return posixpath.normpath(text)


def text(text: str) -> str:
    """Read what must not be empty."""
    if not text.strip():
        raise ValueError("an address")
    return text


def file(text: str) -> str:
    """Read an absolute path, or that there is none."""
    return directory(text) if text else ""


def words(text: str) -> tuple[str, ...]:
    """Read words with spaces or commas between them."""
    return tuple(text.replace(",", " ").split())


def _words_like(
    pattern: re.Pattern[str], what: str
) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        each = words(text)
        if not all(map(pattern.fullmatch, each)):
            raise ValueError(f"a list of {what}, with spaces between them")
        return each

    return read


#: Read patterns of git refs.
patterns = _words_like(
    re.compile(r"(?:(?:tag|branch|rev):)?(?:[A-Za-z0-9_.*?-]|\[!?[A-Za-z0-9_.-]+\])+"),
    "patterns, such as v* tag:v* branch:main rev:*",
)

# As OCI distribution-spec v1.1 has names.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = rf"{_COMPONENT}(?:/{_COMPONENT})*"

#: Read names of images.
images = _words_like(
    re.compile(rf"{_NAME}(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?"),
    "images, such as packages/hello packages/hello:1.0",
)


#: Read patterns of images, with or without a tag.
pins = _words_like(
    re.compile(
        r"(?:[a-z0-9_./*?-]|\[!?[a-z0-9_.-]+\])+(?::(?:[\w.*?-]|\[!?[\w.-]+\])+)?"
    ),
    "patterns of images, such as packages/hello applications/*/web:v*",
)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text.lower()

    return read


#: Read how the log is written.
log_format = _one_of("text", "json")

#: Read when the last image that worked is kept.
kept = _one_of("off", "unreachable", "always")

#: Read when layers are compressed on their way.
coding = _one_of("auto", "always", "never")


def networks(text: str) -> tuple[Network, ...]:
    """Read networks and addresses, or that there are none."""
    each = words(text)
    if tuple(map(str.lower, each)) == ("none",):
        return ()
    try:
        # A zone means something on one machine alone, and ip_network would forget it.
        if not each or "%" in text:
            raise ValueError("no zone here")
        return tuple(map(ip_network, each))
    except ValueError as e:
        raise ValueError(
            "a list of networks and addresses, such as 10.0.0.0/8 fd00::/8 192.0.2.1,"
            " with spaces between them, or none; after the slash all bits are 0"
        ) from e


_FLAKES = (
    'a TOML inline table, such as {team-a = "github:acme/a"}, or the absolute path of a'
    " TOML file"
)
_MAX_PREFIX = 128
#: What a prefix must not have in it: after "team" and "team/applications" alike,
#: packages/hello would be an image of an application, and a package.
_FAMILIES = {"packages", "applications"}


def flakes(text: str) -> tuple[FlakeSetting, ...]:
    """Read flakes by the prefix of their images' names. Blocking: it may be a file."""
    try:
        if text.startswith("/"):
            with open(text, "rb") as file:
                table = tomllib.load(file)
        else:
            document = tomllib.loads(f"flakes = {text or '{}'}")
            table = document.pop("flakes")
            if document or not isinstance(table, dict):
                raise ValueError("this is none")
        return tuple(_flake_setting(prefix, table[prefix]) for prefix in table)
    except OSError as e:
        raise ValueError(f"{_FLAKES}: it cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{_FLAKES}: {e}") from e


def _flake_setting(prefix: str, value: object) -> FlakeSetting:
    components = prefix.split("/")
    if not re.fullmatch(_NAME, prefix) or len(prefix) > _MAX_PREFIX:
        raise ValueError(
            f"{prefix!r} cannot begin the name of an image, as team-a or"
            f' "acme/team-a" can; {_MAX_PREFIX} characters are allowed'
        )
    if components[0] == "v2" or not _FAMILIES.isdisjoint(components):
        raise ValueError(
            f"{prefix!r} would be ambiguous: it must not begin with v2, nor have"
            " packages or applications in it"
        )
    fields = value if isinstance(value, dict) else {"flake": value}
    if "flake" not in fields or fields.keys() - {"flake", "tags", "token_file"}:
        raise ValueError(
            f"{prefix!r} must have flake, and may have tags and token_file; a prefix"
            " with a dot in it is written in quotes"
        )
    tags = fields.get("tags", "")
    if isinstance(tags, list) and all(isinstance(each, str) for each in tags):
        tags = " ".join(tags)
    texts = {**fields, "tags": tags}

    def field(name: str, read: Callable[[str], Any]) -> Any:
        text = texts.get(name, "")
        try:
            if not isinstance(text, str):
                raise ValueError("text, in quotes")
            return read(text.strip())
        except ValueError as e:
            raise ValueError(
                f"{name} of {prefix!r} is {fields.get(name)!r}; it must be {e}"
            ) from e

    return FlakeSetting(
        prefix,
        field("flake", flake),
        field("tags", patterns),
        field("token_file", file),
    )
