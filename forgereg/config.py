"""
What an operator can set: one table, and the settings read by it. Pure, but for the file
that ``FORGE_FLAKES`` may name.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from attrs import frozen

from forgereg import values
from forgereg.values import FlakeSetting, Network

#: Begin like settings, and are for clients, for compose.yaml and for tests.
_OTHERS = {"FORGE_URL", "FORGE_IMAGE", "FORGE_LONG_TESTS", "FORGE_SCREENSHOTS"}
#: What Kubernetes says of a service that is called forge or forge-registry.
#: Source: Kubernetes, "Service", "Environment variables".
_OF_KUBERNETES = re.compile(
    r"\w+_SERVICE_(HOST|PORT(_\w+)?)=.*|\w+_PORT(_\d+_\w+)?=\w+://.*"
    r"|\w+_PORT_\d+_\w+=.*",
    re.DOTALL,
)


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
    log_format: str
    nix_build_timeout: float
    tag_ttl: float
    store: str
    system: str
    cache_size: int
    max_image_name_length: int
    max_tag_length: int
    max_image_size: int
    flakes: tuple[FlakeSetting, ...]
    tags: tuple[str, ...]
    token_file: str
    last_known_good: str
    failure_ttl: float
    max_builds: int
    max_queue: int
    max_evaluations: int
    evaluation_timeout: float
    evaluation_memory: int
    max_hold: float
    redirect_hold: float
    prewarm: tuple[str, ...]
    hook_secret_file: str
    admin_token_file: str
    build_log_size: int
    build_log_days: float
    blobs_size: int
    scrub_days: float
    sweep_bytes: int
    sweep_days: float
    pins: tuple[str, ...]
    transfer_coding: str
    fast_networks: tuple[Network, ...]
    trusted_proxies: tuple[Network, ...]
    stop_timeout: float

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
    :ivar live: whether a change takes effect without a restart.
    :ivar read: from text to value; raises ValueError, whose text says what is allowed.
    """

    name: str
    variable: str
    default: str
    unit: str
    help: str
    read: Callable[[str], Any]
    live: bool = False

    @property
    def option(self) -> str:
        """The option's name, without its dashes in front."""
        return self.name.replace("_", "-")


#: Every setting. The README and `.env.example` say the same; a test compares.
TABLE = (
    Row(
        "flake", "GITHUB_REPO", "github:imincik/nix-forge", "",
        "flake ref whose packages and applications are served", values.flake,
    ),
    Row(
        "host", "FLASK_HOST", "127.0.0.1", "",
        "address to listen on where the port is a number", values.text,
    ),
    Row(
        "port", "FLASK_PORT", "6443", "",
        "TCP port, or a Twisted endpoint string, such as"
        " ssl:6443:privateKey=key.pem:certKey=cert.pem", values.port,
    ),
    Row(
        "state_dir", "FORGE_STATE_DIR", "{state_dir}", "",
        "directory for records, unpacked layers and GC roots", values.directory,
    ),
    Row(
        "log_level", "LOG_LEVEL", "info", "",
        "debug, info, warning, error or critical", values.level, live=True,
    ),
    Row(
        "log_format", "FORGE_LOG_FORMAT", "text", "",
        "how the log is written: text, for people, or json, an object a line",
        values.log_format, live=True,
    ),
    Row(
        "nix_build_timeout", "NIX_BUILD_TIMEOUT", "3600", "seconds",
        "how long nix may work on one build, evaluation included",
        values.number(1, 7 * 86400), live=True,
    ),
    Row(
        "tag_ttl", "FORGE_TAG_TTL", "300", "seconds",
        "how long the flake's revision is trusted before it is looked up again;"
        " 0 to look at every pull",
        values.number(0, 366 * 86400), live=True,
    ),
    Row(
        "store", "FORGE_STORE", "", "",
        "the Nix store, as nix --store has it; empty for nix's own choice",
        values.store,
    ),
    Row(
        "system", "FORGE_SYSTEM", "{system}", "",
        "Nix system whose packages are served", values.system,
    ),
    Row(
        "cache_size", "CACHE_SIZE", "1000", "manifests",
        "how many manifests are kept in memory", values.whole(1, 1_000_000),
    ),
    Row(
        "max_image_name_length", "MAX_IMAGE_NAME_LENGTH", "255", "characters",
        "longest repository name", values.whole(1, 255),
    ),
    Row(
        "max_tag_length", "MAX_TAG_LENGTH", "128", "characters",
        "longest tag", values.whole(1, 128),
    ),
    Row(
        "max_image_size", "FORGE_MAX_IMAGE_SIZE", str(32 * 2**30), "bytes",
        "largest archive, unpacked", values.whole(2**20, 2**50),
    ),
    Row(
        "flakes", "FORGE_FLAKES", "", "",
        'more flakes, by what the names of their images begin with: {team-a = "github:'
        'acme/a"}, or the path of a TOML file', values.flakes,
    ),
    Row(
        "tags", "FORGE_TAGS", "", "",
        "patterns of git tags, branches and revisions that can be pulled as tags, such"
        " as v* branch:main rev:*", values.patterns, live=True,
    ),
    Row(
        "token_file", "FORGE_TOKEN_FILE", "", "",
        "file with the access token for the flake's forge", values.file,
    ),
    Row(
        "last_known_good", "FORGE_LAST_KNOWN_GOOD", "unreachable", "",
        "when a tag goes on meaning the last image that worked: off, unreachable (the"
        " flake cannot be fetched) or always (its build fails, too)",
        values.kept, live=True,
    ),
    Row(
        "failure_ttl", "FORGE_FAILURE_TTL", "60", "seconds",
        "how long a failure is remembered before the same is tried again",
        values.number(0, 366 * 86400), live=True,
    ),
    Row(
        "max_builds", "FORGE_MAX_BUILDS", "8", "builds",
        "how many builds nix works on at a time", values.whole(1, 1000), live=True,
    ),
    Row(
        "max_queue", "FORGE_MAX_QUEUE", "1000", "builds",
        "how many builds may wait for their turn", values.whole(0, 100_000), live=True,
    ),
    Row(
        "max_evaluations", "FORGE_MAX_EVALUATIONS", "2", "evaluations",
        "how many evaluations nix works on at a time", values.whole(1, 1000), live=True,
    ),
    Row(
        "evaluation_timeout", "FORGE_EVALUATION_TIMEOUT", "600", "seconds",
        "how long one evaluation may take", values.number(1, 366 * 86400), live=True,
    ),
    Row(
        "evaluation_memory", "FORGE_EVALUATION_MEMORY", str(8 * 2**30), "bytes",
        "how much memory one evaluation may take; 0 for any",
        values.zero_or(values.whole(2**28, 2**50)), live=True,
    ),
    Row(
        "max_hold", "FORGE_MAX_HOLD", "0", "seconds",
        "how long a client is kept waiting before it is told to come again; 0 for as"
        " long as the build takes", values.number(0, 366 * 86400), live=True,
    ),
    Row(
        "redirect_hold", "FORGE_REDIRECT_HOLD", "0", "seconds",
        "how long a client waits before it is sent to the same place again, for proxies"
        " that wait no longer; 0 for never", values.number(0, 3600), live=True,
    ),
    Row(
        "prewarm", "FORGE_PREWARM", "", "",
        "images that are built before anyone asks, at start and when the flake changes",
        values.images, live=True,
    ),
    Row(
        "hook_secret_file", "FORGE_HOOK_SECRET_FILE", "", "",
        "file with the secret of push webhooks; without it they are not answered",
        values.file, live=True,
    ),
    Row(
        "admin_token_file", "FORGE_ADMIN_TOKEN_FILE", "", "",
        "file with the token that lets others than this machine control builds",
        values.file, live=True,
    ),
    Row(
        "build_log_size", "FORGE_BUILD_LOG_SIZE", str(10 * 2**20), "bytes",
        "how much of what nix says in one build is kept", values.whole(2**10, 2**40),
        live=True,
    ),
    Row(
        "build_log_days", "FORGE_BUILD_LOG_DAYS", "14", "days",
        "how long builds and their logs are remembered",
        values.number(0, 36600), live=True,
    ),
    Row(
        "blobs_size", "FORGE_BLOBS_SIZE", str(20 * 2**30), "bytes",
        "how much unpacked layers and their encoded forms may take on disk before those"
        " that nobody pulled for longest are dropped; 0 for any", values.whole(0, 2**60),
        live=True,
    ),
    Row(
        "scrub_days", "FORGE_SCRUB_DAYS", "7", "days",
        "in how long each unpacked layer is read again and checked; 0 for never",
        values.number(0, 36600), live=True,
    ),
    Row(
        "sweep_bytes", "FORGE_SWEEP_BYTES", "0", "bytes",
        "how much images may take on disk before those that nobody pulled for longest"
        " are forgotten; 0 for any", values.whole(0, 2**60), live=True,
    ),
    Row(
        "sweep_days", "FORGE_SWEEP_DAYS", "0", "days",
        "after how long images that nobody pulls are forgotten; 0 for never",
        values.number(0, 36600), live=True,
    ),
    Row(
        "pins", "FORGE_PINS", "", "",
        "patterns of images that are never forgotten, such as packages/hello:*",
        values.pins, live=True,
    ),
    Row(
        "transfer_coding", "FORGE_TRANSFER_CODING", "auto", "",
        "when layers are compressed on their way, for clients that offer it: auto (not"
        " in FORGE_FAST_NETWORKS), always or never", values.coding, live=True,
    ),
    Row(
        "fast_networks", "FORGE_FAST_NETWORKS",
        "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16"
        " ::1 fc00::/7 fe80::/10", "",
        "networks to whose clients layers are sent as they are; none for no network",
        values.networks, live=True,
    ),
    Row(
        "trusted_proxies", "FORGE_TRUSTED_PROXIES", "127.0.0.0/8 ::1", "",
        "networks of reverse proxies whose X-Forwarded-… headers are believed; none for no"
        " network", values.networks, live=True,
    ),
    Row(
        "stop_timeout", "FORGE_STOP_TIMEOUT", "30", "seconds",
        "how long running transfers may take when the registry stops",
        values.number(0, 3600), live=True,
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


def find_strangers(*sources: Mapping[str, str | None]) -> dict[str, str]:
    """
    Find what is set, begins like a setting, and is none.

    :param sources: by variable; the environment and ``.env``.
    :returns: name → what to do about it.
    """
    known = _OTHERS | {row.variable for row in TABLE}
    meant = {row.variable.removeprefix("FORGE_"): row.variable for row in TABLE}
    meant |= {row.name.upper(): row.variable for row in TABLE}
    found = {}
    for name, value in (each for source in sources for each in source.items()):
        if not name.startswith("FORGE_") or name in known:
            continue
        if _OF_KUBERNETES.fullmatch(f"{name}={value}"):
            continue
        near = get_close_matches(name.removeprefix("FORGE_"), meant, 1, 0.7)
        found[name] = "README, 'Settings', lists them"
        if near:
            found[name] = f"did you mean {meant[near[0]]}?"
    return found
