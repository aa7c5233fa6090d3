"""
Show an image to people, below ``/-/images/``.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from http import HTTPStatus
from typing import Any, Protocol

from attrs import define, frozen
from klein import Klein
from twisted.web.server import Request
from werkzeug.exceptions import NotFound
from werkzeug.routing import PathConverter

from forgereg.flow.anatomy import Part
from forgereg.flow.inspected import Built, Inspected, Listed, PullDays
from forgereg.oci.errors import NameInvalid, NameUnknown
from forgereg.oci.reference import Digest, Name, Tag, parse_name, parse_reference
from forgereg.records.revisions import Sharing
from forgereg.web.arguments import word
from forgereg.web.commands import commands, compose_command
from forgereg.web.drawing import Column, Stretch, columns, stretches
from forgereg.web.host import is_secure
from forgereg.web.pages import Pages, go, tell_errors

#: How many layers are listed, and how many characters of what made one.
_MOST_LAYERS, _MOST_MADE = 300, 160
#: How dockerTools lists what is in a layer.
_STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-([^'\",\s\]/]+)")
_EPOCH = date(1970, 1, 1)


class Inspection(Protocol):
    """What is known of images; see `forgereg.flow.inspection`."""

    async def image(
        self, name: Name, reference: Tag | Digest | None, platform: str = ""
    ) -> Inspected:
        """Tell of an image."""

    def is_application(self, name: Name) -> bool:
        """Whether a name is that of an application."""

    async def application(self, name: Name) -> Listed:
        """List the images of an application."""

    async def near(self, text: str) -> list[str]:
        """List names that are known."""


@frozen
class LayerRow:
    """
    A layer as it is shown.

    :ivar made: what made it, in short; ``more`` is all of it where that is longer.
    :ivar of_largest: how large it is, in percent of the largest.
    :ivar is_new: whether the image before had it not.
    """

    number: int
    part: Part
    stretch: Stretch
    of_largest: float
    made: str
    more: str
    sharing: Sharing | None
    is_new: bool


@frozen
class Day:
    """A day on which something was pulled, and its columns."""

    date: str
    by_tag: int
    by_digest: int
    tags: Column
    digests: Column


@frozen
class Chart:
    """
    Pulls over time.

    :ivar days: those with pulls.
    :ivar most: of one day.
    """

    first: str
    last: str
    days: tuple[Day, ...]
    most: int
    by_tag: int
    by_digest: int


@define(eq=False)
class ImagePages:
    """
    The pages of images and applications.

    :ivar max_name_length: in characters, as is that of tags.
    """

    _inspection: Inspection
    _pages: Pages
    _max_name_length: int
    _max_tag_length: int

    app = Klein()
    app.url_map.converters["several"] = PathConverter
    app.url_map.merge_slashes = False

    @app.route("/-/images", methods=["GET"])
    def images(self, request: Request) -> bytes:
        """Lead to the list of them."""
        return go(request, "/")

    @app.route("/-/images/<several:path>", methods=["GET"])
    async def image(self, request: Request, path: str) -> bytes:
        """Show an image, or an application."""
        if path.endswith("/"):
            raise NotFound
        try:
            name = parse_name(path, self._max_name_length)
            if self._inspection.is_application(name):
                listed = await self._inspection.application(name)
                return await self._pages.show(
                    request, "application", it=listed, start=self._start(request, name)
                )
            reference = self._reference(request)
            platform = word(request, "platform")
            it = await self._inspection.image(name, reference, platform)
        except (NameUnknown, NameInvalid) as e:
            near = await self._inspection.near(path)
            request.setResponseCode(HTTPStatus.NOT_FOUND)
            return await self._pages.show(
                request, "unknown", message=e.detail, names=near
            )
        return await self._pages.show(request, "image", **self._values(request, it))

    def _reference(self, request: Request) -> Tag | Digest | None:
        text = word(request, "digest") or word(request, "tag")
        return parse_reference(text, self._max_tag_length) if text else None

    def _start(self, request: Request, application: Name) -> str:
        *prefix, _, word = application.components
        host, tls = self._pages.host(request), is_secure(request, self._pages.clients)
        return compose_command(host, "/".join([*prefix, word]), tls)

    def _values(self, request: Request, it: Inspected) -> dict[str, Any]:
        host, image = self._pages.host(request), it.image
        tls = is_secure(request, self._pages.clients)
        reference = pulled = f":{it.tag}"
        if image is not None and (it.tag is None or it.is_past):
            pulled = f"@{image.digest}"
        if it.tag is None:
            reference = pulled
        return {
            "it": it,
            "image": image,
            "reference": reference,
            "clients": commands(f"{host}/{it.name}{pulled}", tls),
            "layers": [] if image is None else layer_rows(it, image),
            "size": 0 if image is None else sum(image.anatomy.sizes.values()),
            "chart": chart_of(it.pulls),
        }


tell_errors(ImagePages.app, lambda self: self._pages)


def layer_rows(it: Inspected, image: Built) -> list[LayerRow]:
    """Lay out the layers of an image, the lowest first."""
    layers = image.anatomy.layers[:_MOST_LAYERS]
    change = it.steps[0].change if it.steps else None
    added = {part.digest for part in change.added} if change else set()
    made = image.config.created_by if image.config else ()
    made = (*made, *[""] * len(layers))
    largest = max((part.size for part in layers), default=0) or 1
    drawn = stretches([part.size for part in layers])
    rows = []
    for number, (part, stretch) in enumerate(zip(layers, drawn, strict=True)):
        short = in_short(made[number])
        rows.append(
            LayerRow(
                number + 1,
                part,
                stretch,
                round(100 * part.size / largest, 2),
                short,
                made[number] if short != made[number] else "",
                image.sharing.get(part.digest),
                part.digest in added,
            )
        )
    return rows


def in_short(made: str) -> str:
    """Say in short what made a layer: of store paths, what their names say."""
    names = _STORE_PATH.findall(made)
    text = ", ".join(names) if names and made.startswith("store paths:") else made
    return text if len(text) <= _MOST_MADE else f"{text[:_MOST_MADE]}…"


def chart_of(pulls: PullDays) -> Chart:
    """Draw how often something was pulled."""
    most = max((*pulls.by_tag, *pulls.by_digest), default=0)
    tags = columns(pulls.by_tag, most or 1, 0.5)
    digests = columns(pulls.by_digest, most or 1, 0.9)
    first = _EPOCH + timedelta(pulls.first)
    each = zip(pulls.by_tag, pulls.by_digest, tags, digests, strict=True)
    days = tuple(
        Day((first + timedelta(number)).isoformat(), *day)
        for number, day in enumerate(each)
        if day[0] or day[1]
    )
    last = first + timedelta(len(pulls.by_tag) - 1)
    return Chart(
        first.isoformat(),
        last.isoformat(),
        days,
        most,
        sum(pulls.by_tag),
        sum(pulls.by_digest),
    )
