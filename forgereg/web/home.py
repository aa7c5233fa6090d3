"""
The first page: what there is to pull, and how; looked through by words and by kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import attrs
from attrs import define, frozen
from klein import Klein
from twisted.web.server import Request

from forgereg.flow.catalogue import Catalogue, Standing, View
from forgereg.flow.entries import Entry, Kind
from forgereg.web.answer import JSON, reads, whole
from forgereg.web.arguments import digits, is_given, word
from forgereg.web.commands import commands, compose_command
from forgereg.web.host import is_secure
from forgereg.web.pages import Pages, tell_errors

E = TypeVar("E", bound=Enum)

#: How many entries one page has.
_PAGE = 50
#: How much of what somebody looks for is read, in characters.
_MOST_TEXT = 200
#: After how long the page looks again, in seconds: while a flake is read, and while
#: something is built.
_READING_SECONDS, _BUILDING_SECONDS = 1, 4
_HTML = "text/html"


@frozen
class Query:
    """
    What somebody wants to see.

    :ivar q: words.
    :ivar page: counted from 1.
    :ivar client: whose commands, as `forgereg.web.commands` calls it.
    """

    q: str = ""
    kind: Kind | None = None
    state: Standing | None = None
    page: int = 1
    client: str = "docker"

    def address(self, **changes: Any) -> str:
        """Give the address of the page for this, or for something else."""
        # What is looked for otherwise begins at its first page.
        other = attrs.evolve(self, **{"page": 1, **changes})
        said = {
            each.name: getattr(other, each.name)
            for each in attrs.fields(Query)
            if getattr(other, each.name) != each.default
        }
        words = {k: v.value if isinstance(v, Enum) else v for k, v in said.items()}
        return f"/?{urlencode(words, errors='replace')}" if words else "/"


@frozen
class Image:
    """
    An image of an entry.

    :ivar command: pulls it.
    :ivar build: id of the build that is under way, or that failed.
    """

    path: str
    standing: Standing
    command: str
    build: str | None


@frozen
class Row:
    """
    An entry as it is shown.

    :ivar site: the host of its home page.
    :ivar command: pulls it, or starts the application.
    :ivar images: of an application.
    :ivar flake: its flake's ref, as anyone may read it.
    """

    entry: Entry
    standing: Standing
    build: str | None
    site: str
    command: str
    images: Sequence[Image]
    flake: str


@define
class Home:
    """What answers at ``/``."""

    _catalogue: Catalogue
    pages: Pages

    app = Klein()

    @app.route("/", methods=["GET"])
    async def home(self, request: Request) -> bytes:
        """Show the catalogue, or the part of it that changes; to programs, where it is."""
        pages = self.pages
        said = reads(request)
        if said.provided and not said[_HTML]:
            return _point(request, pages.host(request))
        query = _read(request)
        values = await pages.in_thread(
            _values,
            await self._catalogue.view(),
            query,
            pages.host(request),
            is_secure(request, pages.clients),
        )
        template = "catalogue" if is_given(request, "part") else "home"
        return await pages.show(request, template, **values)


tell_errors(Home.app, lambda home: home.pages)


def _point(request: Request, host: str) -> bytes:
    """Tell a program that reads no pages where everything is."""
    where = {
        "registry": host,
        "catalogue": "/v2/_catalog",
        "api": "/-/api/openapi.json",
    }
    return whole(request, JSON, json.dumps(where).encode() + b"\n")


def _read(request: Request) -> Query:
    """Read what is wanted; nonsense counts as nothing."""

    def one_of(kinds: type[E], name: str) -> E | None:
        said = word(request, name)
        return next((each for each in kinds if each.value == said), None)

    client = word(request, "client")
    return Query(
        " ".join(word(request, "q").split())[:_MOST_TEXT],
        one_of(Kind, "kind"),
        one_of(Standing, "state"),
        digits(word(request, "page")) or 1,
        client if client in _CLIENTS else "docker",
    )


_CLIENTS = {each.client: each.title for each in commands("", is_secure=True)}


def _values(view: View, query: Query, host: str, tls: bool) -> Mapping[str, object]:
    """Give what the template shows."""
    hits = view.search(query.q, query.kind, query.state)
    pages = max(1, -(-len(hits.entries) // _PAGE))
    query = attrs.evolve(query, page=min(max(1, query.page), pages))
    first = (query.page - 1) * _PAGE
    flakes = {shelf.prefix: shelf.shown for shelf in view.shelves}

    def pull(path: str) -> str:
        found = commands(f"{host}/{path}:latest", tls)
        return next(each.pull for each in found if each.client == query.client)

    def image(path: str) -> Image:
        return Image(path, view.standing(path), pull(path), view.build(path))

    def row(entry: Entry) -> Row:
        path, images, command = entry.path, [], ""
        if entry.kind is Kind.PACKAGE:
            command = pull(path)
        else:
            prefix = f"{entry.prefix}/" if entry.prefix else ""
            command = compose_command(host, f"{prefix}{entry.name}", tls)
            images = [image(each) for each in view.images(entry)]
        return Row(
            entry,
            view.standing(path),
            view.build(path),
            urlsplit(entry.homepage or "").hostname or "",
            command,
            images,
            flakes[entry.prefix],
        )

    rows = [row(entry) for entry in hits.entries[first : first + _PAGE]]
    again = 0
    if any(row.standing is Standing.BUILDING for row in rows):
        again = _BUILDING_SECONDS
    if any(shelf.is_reading for shelf in view.shelves):
        again = _READING_SECONDS
    note = next(
        each.note for each in commands(f"{host}/x", tls) if each.client == query.client
    )
    return {
        "query": query,
        "rows": rows,
        "count": _count(view, query, len(hits.entries)),
        "pages": pages,
        "shelves": view.shelves,
        "is_empty": not view.entries,
        "is_waiting": any(s.is_reading and not s.is_read for s in view.shelves),
        "has_kinds": len({entry.kind for entry in view.entries}) > 1,
        "kinds": [(kind, hits.kinds[kind]) for kind in Kind],
        "standings": [(standing, hits.standings[standing]) for standing in Standing],
        "clients": _CLIENTS,
        "note": note,
        "again": again,
    }


def _count(view: View, query: Query, found: int) -> str:
    """Say how much there is, or was found."""
    if query.q or query.kind or query.state:
        return f"{found:,} of {len(view.entries):,} match"
    if not view.entries and not all(shelf.is_read for shelf in view.shelves):
        return ""
    packages = sum(entry.kind is Kind.PACKAGE for entry in view.entries)
    applications = len(view.entries) - packages
    said = [f"{packages:,} package{'s' * (packages != 1)}"]
    if applications:
        said.append(f"{applications:,} application{'s' * (applications != 1)}")
    return " and ".join(said)
