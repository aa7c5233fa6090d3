"""
Ask a registry about its builds: questions in, what it answers out.

Whatever goes wrong on the way is a `Trouble`, which is one line for people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click
import treq
from attrs import define, field, fields_dict, frozen
from hyperlink import EncodedURL
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import RequestTransmissionFailed, ResponseFailed

from forgereg.cli.screen import clean
from forgereg.flow.report import State
from forgereg.nix.progress import Progress

#: How long an answer may take, in seconds; a sweep walks the disk.
_PATIENCE_SECONDS, _SWEEP_SECONDS = 60.0, 3600.0
#: What is raised by reading an answer that is not what it should be.
_STRANGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
#: What is raised where there is no answer.
_LOST = (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
    RequestTransmissionFailed,
    ResponseFailed,
    SSL.Error,
    VerificationError,
)


_T = TypeVar("_T")


class Trouble(click.ClickException):
    """What was asked for cannot be had; the message says why in one line."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(clean(" ".join(message.split())))
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        """Tell it on standard error."""
        click.echo(f"forge-registry: {self.message}", file=file, err=True)


@frozen
class Build:
    """
    A build, as the registry tells it.

    :ivar seconds: how long it took; None while it runs.
    :ivar raw: the whole of it.
    """

    id: str
    image: str
    state: State
    asked_at: datetime
    seconds: float | None
    progress: Progress
    error: str | None
    raw: Mapping[str, Any]

    @classmethod
    def read(cls, raw: Any) -> Build:
        """
        Read a build.

        :raises ValueError: or another of what is raised where something is missing.
        """
        known = fields_dict(Progress)
        numbers = {key: raw["progress"][key] for key in known}
        for key, value in numbers.items():
            numbers[key] = type(getattr(Progress(), key))(value)
        return cls(
            str(raw["id"]),
            str(raw["image"]),
            State(raw["state"]),
            datetime.fromisoformat(raw["asked_at"]),
            None if raw["duration_seconds"] is None else float(raw["duration_seconds"]),
            Progress(**numbers),
            None if raw["error"] is None else str(raw["error"]),
            raw,
        )


@frozen
class _Answer:
    body: bytes
    next_offset: str

    def json(self) -> Any:
        return json.loads(self.body)


@define
class Remote:
    """
    A registry somewhere.

    :ivar url: where it is, without a slash at the end.
    :ivar request: asks by HTTP, as ``treq.request`` does.
    :ivar token: shows that we may change things; empty if there is none.
    """

    _url: str
    _request: Callable[..., Deferred[Any]]
    _token: str = field(repr=False)
    _reactor: IReactorTime

    async def builds(self, states: Iterable[State] = ()) -> list[Build]:
        """List builds, those that run first; only those in some states, if any."""
        query = {"limit": 1000, "state": ",".join(state.value for state in states)}
        answer = await self._ask("GET", f"/builds?{urlencode(query)}")
        return self._read(lambda: [Build.read(raw) for raw in answer.json()["builds"]])

    async def build(self, id: str) -> Build:
        """Give one build."""
        return self._one(await self._ask("GET", _path(id)))

    async def log(self, id: str, offset: int) -> tuple[bytes, int]:
        """Give a piece of a log, and where the next one begins, in bytes."""
        answer = await self._ask("GET", f"{_path(id)}/log?offset={offset}")
        # Whatever is told, what was read once is not read again.
        following = self._read(lambda: int(answer.next_offset))
        return answer.body, max(following, offset + len(answer.body))

    async def start(self, image: str) -> Build:
        """Have an image built."""
        return self._one(await self._ask("POST", "/builds", {"image": image}))

    async def cancel(self, id: str) -> Build:
        """End a build."""
        return self._one(await self._ask("POST", f"{_path(id)}/cancel", {}))

    async def retry(self, id: str) -> Build:
        """Have what failed built again."""
        return self._one(await self._ask("POST", f"{_path(id)}/retry", {}))

    async def sweep(self, dry_run: bool) -> Mapping[str, Any]:
        """Let go of what is not needed; give the schema ``Sweep``."""
        answer = await self._ask("POST", "/sweep", {"dry_run": dry_run}, _SWEEP_SECONDS)
        return self._read(lambda: dict(answer.json()))

    def _one(self, answer: _Answer) -> Build:
        return self._read(lambda: Build.read(answer.json()))

    def _read(self, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except _STRANGE as e:
            raise Trouble(
                f"{self._url} does not answer as a forge-registry does; is --url right?"
            ) from e

    async def _ask(
        self, method: str, path: str, sent: object = None, seconds: float | None = None
    ) -> _Answer:
        asking = Deferred.fromCoroutine(self._ask_patiently(method, path, sent))
        patience = seconds or _PATIENCE_SECONDS
        try:
            return await asking.addTimeout(patience, self._reactor)
        except DeferredTimeoutError as e:
            raise Trouble(f"{self._url} does not answer for {patience:.0f} s") from e

    async def _ask_patiently(self, method: str, path: str, sent: object) -> _Answer:
        options = {} if sent is None else {"json": sent}
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            response = await self._request(
                method,
                _Url.from_text(f"{self._url}/-/api{path}"),
                headers=headers,
                # The token is for this registry, and for no other.
                allow_redirects=False,
                **options,
            )
            body = await treq.content(response)
        except _LOST as e:
            reasons = [reason.value for reason in getattr(e, "reasons", ())]
            for reason in reasons:
                if isinstance(reason, CancelledError):
                    raise reason from e
            why = _why(reasons[0] if reasons else e)
            raise Trouble(f"{self._url} cannot be reached: {why}") from e
        if 200 <= response.code < 300:
            offsets = response.headers.getRawHeaders("X-Log-Offset", [""])
            return _Answer(body, offsets[0])
        raise self._refusal(response, body)

    def _refusal(self, response: Any, body: bytes) -> Trouble:
        hint = ""
        if response.code in (401, 403):
            hint = "" if self._token else " (show a token with --token-file)"
        try:
            return Trouble(str(json.loads(body)["errors"][0]["message"]) + hint)
        except _STRANGE:
            pass
        for place in response.headers.getRawHeaders("Location", []):
            hint = f" and leads to {place}"
        return Trouble(
            f"{self._url} answers {response.code}{hint}, not as a forge-registry does;"
            " is --url right?"
        )


class _Url(EncodedURL):
    """A URL that is taken as it is."""

    def to_uri(self) -> _Url:
        """Give it, since it is ASCII: asked for more, [::1] and a_b are no hosts."""
        return self


def _path(id: str) -> str:
    return f"/builds/{quote(id, safe='')}"


def _why(error: BaseException) -> str:
    if isinstance(error, SSL.Error):
        # A list of (library, function, reason), and none where the peer just left.
        entries = error.args[0] if error.args else ()
        reasons = [str(entry[-1]) for entry in entries if isinstance(entry, tuple)]
        return f"TLS: {'; '.join(reasons) or 'the connection was closed'}"
    if isinstance(error, VerificationError):
        return "TLS: the certificate is for another name"
    return str(error) or type(error).__name__


def _is_word(text: str) -> bool:
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None


def parse_url(text: str) -> str:
    """
    Check where a registry is said to be.

    :raises Trouble: there can be none; the text is not repeated, it may have secrets.
    """
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
        host.encode("idna")
        fits = url.scheme in ("http", "https") and host and port != 0
        plain = not (url.query or url.fragment or "@" in url.netloc)
        if fits and plain and _is_word(text):
            return text.rstrip("/")
    except ValueError:
        pass
    raise Trouble("--url must be http:// or https://, a host, and maybe :port")


def parse_token(text: str) -> str:
    """
    Check what a token file has.

    :raises Trouble: it is no token; it is not repeated.
    """
    token = text.strip()
    if not _is_word(token):
        raise Trouble("--token-file must have one word of ASCII characters, the token")
    return token
