"""
Show builds to people, below ``/-/builds``: what runs, what ran, and what nix says.

All of it is there without scripts; with them, what runs is told of as it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol
from urllib.parse import urlencode

from attrs import define, evolve, field, frozen
from klein import Klein
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from forgereg.flow.report import Choice, Report, State
from forgereg.flow.source import FileSource
from forgereg.flow.threads import InThread, or_drop
from forgereg.oci.errors import BuildUnknown
from forgereg.records.buildlogs import BuildLogs
from forgereg.records.loglines import LogLines, Search
from forgereg.web import control
from forgereg.web.arguments import digits, known_states, word
from forgereg.web.events import Pulse, Stream, Streams
from forgereg.web.excerpt import Excerpt, chosen, excerpt, numbered, resumed_at
from forgereg.web.guard import Clients
from forgereg.web.login import read_form
from forgereg.web.pages import Pages, go, tell_errors
from forgereg.web.stream import ClientLeft, send

#: Below which path the pages are.
BUILDS = "/-/builds"
#: How large a form may be, in bytes.
MAX_BODY = 2**12
#: How many builds a page lists, and how many pages there are at most.
_ON_A_PAGE, _MOST_PAGES = 50, 200
#: How many are listed that are under way.
_MOST_ACTIVE = 500
_OVER = frozenset(state for state in State if state.is_over)
_ACTIVE = frozenset(State) - _OVER
#: How often is looked at what is watched, in seconds: a log, and the list.
_LOG_SECONDS, _LIST_SECONDS = 0.5, 1.0
#: How long after its end a build's log may still grow, in seconds.
_SETTLING = 2.0
#: How long what is looked for in a log may be, in characters.
_MAX_QUERY = 200


class Works(control.Works, Protocol):
    """The builds, and their logs."""

    @property
    def logs(self) -> BuildLogs: ...


@frozen
class _Listed:
    """What the list shows, and of what."""

    choice: Choice
    page: int
    active: Sequence[Report]
    _past: Sequence[Report]

    @property
    def past(self) -> Sequence[Report]:
        return self._past[:_ON_A_PAGE]

    @property
    def has_more(self) -> bool:
        return len(self._past) > _ON_A_PAGE and self.page < _MOST_PAGES

    def query(self, page: int = 1) -> str:
        """Write down what was asked for."""
        said = [("state", state.value) for state in self.choice.states]
        said += [("image", self.choice.image)] * bool(self.choice.image)
        said += [("page", str(page))] * (page > 1)
        return f"?{urlencode(said)}" if said else ""


@define(eq=False)
class BuildPages:
    """
    The pages.

    :ivar now: gives seconds since the epoch.
    """

    pages: Pages
    _works: Works
    _streams: Streams
    _clients: Clients
    _clock: IReactorTime
    _now: Callable[[], float]
    _in_thread: InThread
    _logs: Pulse = field(init=False)
    _lists: Pulse = field(init=False)
    #: One at a time: what is looked for may be in hundreds of megabytes.
    _searching: DeferredLock = field(init=False, factory=DeferredLock)

    app = Klein()
    app.url_map.merge_slashes = False

    def __attrs_post_init__(self) -> None:
        self._logs = Pulse(self._clock, _LOG_SECONDS)
        self._lists = Pulse(self._clock, _LIST_SECONDS)

    @app.route(BUILDS, methods=["GET"])
    async def list(self, request: Request) -> bytes:
        """List builds."""
        choice, page = _choice(request), _page(request)
        return await self.pages.show(
            request,
            "builds",
            listed=await self._listed(choice, page),
            states=State,
        )

    @app.route(BUILDS, methods=["POST"])
    async def start(self, request: Request) -> bytes:
        """Build an image."""
        self.pages.guard.check(request)
        image = read_form(request, MAX_BODY).get("image", "").strip()
        report = await self._works.start(image, self._clients.name(request))
        return go(request, f"{BUILDS}/{report.id}")

    @app.route(f"{BUILDS}/events", methods=["GET"])
    async def list_events(self, request: Request) -> bytes:
        """Tell how the first page of the list changes: further down it hardly does."""
        choice, may_change = _choice(request), self.pages.may_change(request)
        key = (choice, may_change)

        async def write() -> str:
            listed = await self._listed(choice, 1)
            return await self.pages.render(
                "builds_list", listed=listed, may_change=may_change
            )

        async def tell(stream: Stream) -> None:
            told = ""
            while True:
                text = await self._lists.look(key, write)
                if text != told:
                    await stream.send("list", text)
                    told = text
                stream.keep_alive()
                await self._lists.beat()

        return await self._streams.serve(request, tell)

    async def _listed(self, choice: Choice, page: int) -> _Listed:
        async def some(states: frozenset[State], most: int) -> list[Report]:
            states = states & choice.states if choice.states else states
            wanted = evolve(choice, states=states)
            return await self._works.builds(most, wanted) if states else []

        before = (page - 1) * _ON_A_PAGE
        active = await some(_ACTIVE, _MOST_ACTIVE) if page == 1 else []
        past = await some(_OVER, before + _ON_A_PAGE + 1)
        return _Listed(choice, page, active, past[before:])

    @app.route(f"{BUILDS}/<id>", methods=["GET"])
    async def build(self, request: Request, id: str) -> bytes:
        """Show a build and its log."""
        report = await self._works.build(id)
        query = word(request, "q")[:_MAX_QUERY]
        lines = LogLines(self._works.logs, id, report.state.is_over)
        if query:
            search = await self._search(id, query)
            shown = Excerpt([])
            found = await self._in_thread(numbered, search.found)
        else:
            search, found = None, []
            read = chosen(request, lines)
            shown = await self._in_thread(lambda: excerpt(read()))
        return await self.pages.show(
            request,
            "build",
            build=report,
            query=query,
            found=found,
            is_cut=search is not None and search.is_cut,
            log=shown,
            path=f"{BUILDS}/{id}",
        )

    async def _search(self, id: str, text: str) -> Search:
        search = Search(self._works.logs, id, text)
        async with self._searching:
            # Whoever leaves is not looked for any more.
            while await self._in_thread(search.step):
                pass
        return search

    @app.route(f"{BUILDS}/<id>/events", methods=["GET"])
    async def events(self, request: Request, id: str) -> bytes:
        """Tell how a build goes on, and what nix says."""
        await self._works.build(id)
        offset = resumed_at(request)
        may_change = self.pages.may_change(request)
        tell = partial(self._tell, id, offset, may_change)
        return await self._streams.serve(request, tell)

    async def _tell(
        self, id: str, offset: int, may_change: bool, stream: Stream
    ) -> None:
        told = ""
        while True:
            try:
                report = await self._logs.look(id, lambda: self._works.build(id))
            except BuildUnknown:  # it has come to nothing
                await stream.send("end", "")
                return
            is_over = report.state.is_over
            state = await self._logs.look(
                (report, may_change), partial(self._write_state, report, may_change)
            )
            if state != told:
                await stream.send("state", state)
                told = state
            log, text = await self._logs.look(
                (id, offset, is_over), partial(self._write_log, id, offset, is_over)
            )
            if text:
                await stream.send("log", text, str(log.stop))
                offset = log.stop
            finished = report.finished_at or 0.0
            is_all = offset >= log.size
            if is_over and is_all and self._now() - finished > _SETTLING:
                await stream.send("end", "")
                return
            stream.keep_alive()
            await self._logs.beat()

    async def _write_state(self, report: Report, may_change: bool) -> str:
        values = {"may_change": may_change, "path": f"{BUILDS}/{report.id}"}
        parts = [
            await self.pages.render(part, build=report, **values)
            for part in ("build_state", "build_facts")
        ]
        return "".join(parts)

    async def _write_log(
        self, id: str, offset: int, is_over: bool
    ) -> tuple[Excerpt, str]:
        lines = LogLines(self._works.logs, id, is_over)

        def read() -> Excerpt:
            return excerpt(lines.news(offset), offset)

        log = await self._in_thread(read)
        if not log.lines:
            return log, ""
        path = f"{BUILDS}/{id}"
        return log, await self.pages.render("build_lines", log=log, path=path)

    @app.route(f"{BUILDS}/<id>/log.txt", methods=["GET"])
    async def download(self, request: Request, id: str) -> bytes:
        """Give the log as a file."""
        report = await self._works.build(id)
        opening = self._in_thread(self._works.logs.open, id)
        file = await or_drop(opening, lambda late: late and late.close())
        size = 0
        if file is not None:
            source = FileSource(file, self._works.logs.size(id), self._in_thread)
            size = source.size
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        request.setHeader("Content-Length", str(size))
        request.setHeader("Cache-Control", "no-store")
        request.setHeader(
            "Content-Disposition", f'attachment; filename="{_file_name(report)}"'
        )
        if file is not None and request.method == b"HEAD":
            source.close()
        elif file is not None:
            try:
                await send(source, [(0, size)], request)
            except ClientLeft:
                pass
        return b""

    @app.route(f"{BUILDS}/<id>/cancel", methods=["POST"])
    async def cancel(self, request: Request, id: str) -> bytes:
        """End a build."""
        self.pages.guard.check(request)
        report = await self._works.cancel(id)
        return go(request, f"{BUILDS}/{report.id}")

    @app.route(f"{BUILDS}/<id>/retry", methods=["POST"])
    async def retry(self, request: Request, id: str) -> bytes:
        """Build again."""
        self.pages.guard.check(request)
        report = await self._works.retry(id, self._clients.name(request))
        return go(request, f"{BUILDS}/{report.id}")

    tell_errors(app, lambda self: self.pages)


def _choice(request: Request) -> Choice:
    return Choice(known_states(request), word(request, "image")[:_MAX_QUERY])


def _page(request: Request) -> int:
    return min(max(1, digits(word(request, "page")) or 1), _MOST_PAGES)


def _file_name(report: Report) -> str:
    """Give a name that is one on any system."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in report.image)
    return f"{name[:100]}-{report.id}.log"
