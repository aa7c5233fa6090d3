"""
What a pull is traced by, and tracing nothing, which costs nothing.

A request is a `Span`. The states of a build are spans of their own below it, and so is
the sending of each blob. `forgereg.otel` is what keeps them; it is loaded only if an
operator has named where they are to be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from importlib.util import find_spec
from typing import Protocol
from urllib.parse import urlsplit

from twisted.web.http_headers import Headers

#: Where traces are sent: OpenTelemetry's own variables.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


class Build(Protocol):
    """What is told of a build."""

    @property
    def id(self) -> str: ...

    @property
    def image(self) -> str: ...

    @property
    def state(self) -> Enum | None: ...

    @property
    def is_over(self) -> bool: ...

    @property
    def derivation(self) -> str | None: ...

    @property
    def error(self) -> str | None: ...

    @property
    def owner_id(self) -> str | None: ...


class Span(Protocol):
    """A request that is being answered."""

    @property
    def marks(self) -> Mapping[str, str]:
        """What the lines that it causes in the log are marked with."""

    def work(self) -> AbstractContextManager[object]:
        """Have what is done here, and what is awaited here, be a part of it."""

    def end(self, status: int, sent_bytes: int, *, has_left: bool = False) -> None:
        """Tell how it was answered; only the first time counts."""


class Tracer(Protocol):
    """
    Keeps traces.

    :ivar is_on: whether it wants to be told of requests.
    """

    @property
    def is_on(self) -> bool: ...

    def request(self, method: str, path: str, client: str, headers: Headers) -> Span:
        """
        Begin to answer a request.

        :param path: without a query.
        """

    def moved(self, build: Build) -> None:
        """Be told that a build has entered a state, or is over."""

    def joined(self, build: Build) -> None:
        """Be told that the request of this moment waits for a build of another one."""

    def sending(self) -> AbstractContextManager[object]:
        """Have what is done here be the sending of a blob."""

    def stop(self) -> None:
        """Send what is left, within a few seconds. Blocking."""


class _Nothing:
    """A request that nobody traces."""

    marks: Mapping[str, str] = {}

    def work(self) -> AbstractContextManager[object]:
        return _NOTHING_TO_DO

    def end(self, status: int, sent_bytes: int, *, has_left: bool = False) -> None:
        pass


_NOTHING_TO_DO: AbstractContextManager[object] = nullcontext()
#: A span of which nothing is kept.
NOTHING = _Nothing()


class NoTraces:
    """Traces nothing."""

    is_on = False

    def request(self, method: str, path: str, client: str, headers: Headers) -> Span:
        return NOTHING

    def moved(self, build: Build) -> None:
        pass

    def joined(self, build: Build) -> None:
        pass

    def sending(self) -> AbstractContextManager[object]:
        return _NOTHING_TO_DO

    def stop(self) -> None:
        pass


def are_wanted(environ: Mapping[str, str]) -> bool:
    """
    Say whether traces are to be sent anywhere.

    Source: OpenTelemetry specification 1.40, "Environment Variable Specification".
    :raises ValueError: they are, and it cannot work; the text says what to do.
    """
    given = [(name, environ[name]) for name in _ENDPOINTS if environ.get(name)]
    is_off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not given or is_off or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    for name, value in given:
        if urlsplit(value).scheme not in ("http", "https"):
            raise ValueError(
                f"{name} is not the URL of a collector: http://…, https://…"
            )
    for name in _PROTOCOLS:
        if environ.get(name, _PROTOCOL) not in ("", _PROTOCOL):
            raise ValueError(
                f"{name} is {environ[name]!r}; traces are sent as {_PROTOCOL} alone:"
                " set it to that, and name the collector's port for it, usually 4318"
            )
    packages = (
        "opentelemetry",
        "opentelemetry.sdk",
        "opentelemetry.exporter.otlp.proto.http",
    )
    if not all(map(_is_there, packages)):
        raise ValueError(
            f"{given[0][0]} is set, and OpenTelemetry is not installed: install"
            " 'forge-registry[traces]', or unset it"
        )
    return True


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
