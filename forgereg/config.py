"""
What an operator can set: one table, and the values read by it. Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen


class SettingInvalid(Exception):
    """A setting makes no sense; the text names it, its value and what is allowed."""


@frozen
class Settings:
    """
    How the registry runs; each field is a row of `TABLE`.

    :ivar port: a TCP port, or a Twisted server endpoint string.
    """

    flake: str
    host: str
    port: str
    state_dir: str
    log_level: str
    nix_build_timeout: float
    tag_ttl: float
    store: str
    system: str
    cache_size: int
    max_image_name_length: int
    max_tag_length: int
    max_image_size: int

    @property
    def endpoint(self) -> str:
        """The endpoint string to listen on."""
        if self.port.isdigit():
            host = self.host.replace(":", r"\:")
            return f"tcp:{self.port}:interface={host}:backlog=1024"
        return self.port


@frozen
class Row:
    """
    One setting.

    :ivar name: of the field, and, with dashes, of the option.
    :ivar variable: the environment variable, also in ``.env``.
    :ivar default: as it would be written; `Defaults` fills in what is in braces.
    :ivar unit: of the value; empty where it has none.
    :ivar read: from text to value; raises ValueError, whose text says what is allowed.
    """

    name: str
    variable: str
    default: str
    unit: str
    help: str
    read: Callable[[str], Any]

    @property
    def option(self) -> str:
        """The option's name, without its dashes in front."""
        return self.name.replace("_", "-")


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number from {low:.0f} to {high:.0f}")
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(high))
        if not digits or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _port(text: str) -> str:
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


def _level(text: str) -> str:
    if text.lower() not in _LEVELS:
        raise ValueError("one of debug, info, warning, error, critical")
    return _LEVELS[text.lower()]


def _flake(text: str) -> str:
    if not text or text.startswith("-") or "#" in text or not text.isprintable():
        raise ValueError("a flake ref without #attribute, such as github:owner/repo")
    return text


def _system(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+-[a-z0-9_]+", text):
        raise ValueError("a Nix system, such as x86_64-linux")
    return text


def _store(text: str) -> str:
    base = text.partition("?")[0]
    here = base in ("", "auto", "daemon", "local") or base.startswith(("/", "unix://"))
    if not here:
        raise ValueError(
            "a store on this machine: a path to its root, local, daemon or unix://…"
        )
    return text


def _directory(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("an absolute path")
    return posixpath.normpath(text)


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("an address")
    return text


#: Every setting. The README's table and `.env.example` say the same; a test compares.
TABLE = (
    Row(
        "flake", "GITHUB_REPO", "github:imincik/nix-forge", "",
        "flake ref whose packages and applications are served", _flake,
    ),
    Row(
        "host", "FLASK_HOST", "127.0.0.1", "",
        "address to listen on where the port is a number", _text,
    ),
    Row(
        "port", "FLASK_PORT", "6443", "",
        "TCP port, or a Twisted endpoint string, such as"
        " ssl:6443:privateKey=key.pem:certKey=cert.pem", _port,
    ),
    Row(
        "state_dir", "FORGE_STATE_DIR", "{state_dir}", "",
        "directory for records, unpacked layers and GC roots", _directory,
    ),
    Row(
        "log_level", "LOG_LEVEL", "info", "",
        "debug, info, warning, error or critical", _level,
    ),
    Row(
        "nix_build_timeout", "NIX_BUILD_TIMEOUT", "3600", "seconds",
        "how long nix may work for one pull, evaluation included",
        _number(1, 7 * 86400),
    ),
    Row(
        "tag_ttl", "FORGE_TAG_TTL", "300", "seconds",
        "how long the flake's revision is trusted before it is looked up again;"
        " 0 to look at every pull",
        _number(0, 366 * 86400),
    ),
    Row(
        "store", "FORGE_STORE", "", "",
        "the Nix store, as nix --store has it; empty for nix's own choice", _store,
    ),
    Row(
        "system", "FORGE_SYSTEM", "{system}", "",
        "Nix system whose packages are served", _system,
    ),
    Row(
        "cache_size", "CACHE_SIZE", "1000", "manifests",
        "how many manifests are kept in memory", _whole(1, 1_000_000),
    ),
    Row(
        "max_image_name_length", "MAX_IMAGE_NAME_LENGTH", "255", "characters",
        "longest repository name", _whole(1, 255),
    ),
    Row(
        "max_tag_length", "MAX_TAG_LENGTH", "128", "characters",
        "longest tag", _whole(1, 128),
    ),
    Row(
        "max_image_size", "FORGE_MAX_IMAGE_SIZE", str(32 * 2**30), "bytes",
        "largest archive, unpacked", _whole(2**20, 2**50),
    ),
)  # fmt: skip


def defaults(environ: Mapping[str, str], home: str, machine: str) -> Mapping[str, str]:
    """
    Give what each setting is if nobody sets it.

    :param home: the user's home directory.
    :param machine: this machine's architecture, as the kernel names it.
    :returns: by variable.
    """
    # systemd.exec(5), StateDirectory=; XDG Base Directory Specification.
    state = environ.get("XDG_STATE_HOME") or posixpath.join(home, ".local/state")
    filled = {
        "state_dir": environ.get("STATE_DIRECTORY")
        or posixpath.join(state, "forge-registry"),
        "system": f"{machine}-linux",
    }
    return {row.variable: row.default.format_map(filled) for row in TABLE}


def read_settings(
    options: Mapping[str, str | None], *sources: Mapping[str, str | None]
) -> Settings:
    """
    Read every setting from the first place that has it.

    :param options: by row name; None where it was not given.
    :param sources: by variable; the environment, ``.env``, the defaults. An empty
        value is none, but for the last, which has all.
    :raises SettingInvalid: a value makes no sense.
    """
    values = {}
    for row in TABLE:
        text = options.get(row.name)
        name = f"--{row.option}"
        if text is None:
            name = row.variable
            given = (source.get(name) for source in sources[:-1])
            text = next(filter(None, given), sources[-1][name]) or ""
        try:
            values[row.name] = row.read(text.strip())
        except ValueError as e:
            raise SettingInvalid(f"{name} is {text!r}; it must be {e}") from e
    return Settings(**values)
