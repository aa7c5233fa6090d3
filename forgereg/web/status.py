"""
Show how the registry does, below ``/-/status``: what it knows of itself in, a page out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, field, frozen
from klein import Klein
from twisted.web.server import Request

from forgereg.flow.health import is_ready
from forgereg.flow.status import Status
from forgereg.web.pages import Pages, tell_errors


@frozen
class Setting:
    """
    What an operator has set, without secrets.

    :ivar value: as it is now; empty for none.
    :ivar is_default: whether nobody has set it.
    :ivar is_live: whether a change takes effect without a restart.
    :ivar next_value: what it is after a restart, where that is something else.
    """

    variable: str
    value: str
    unit: str
    help: str
    is_live: bool
    is_default: bool
    next_value: str | None = None


class Overview(Protocol):
    """What gathers all there is to see: `flow.status.Overview`."""

    async def status(self) -> Status: ...


@define(eq=False)
class StatusPage:
    """
    The page, and what of it is shown anew every few seconds.

    :ivar connections: gives how many there are, and how many wait for an answer.
    :ivar settings: all of them; may be changed at any time.
    """

    _pages: Pages
    _overview: Overview
    _connections: Callable[[], tuple[int, int]]
    settings: Sequence[Setting] = field(init=False, default=())

    app = Klein()

    @app.route("/-/status", methods=["GET"])
    async def page(self, request: Request) -> bytes:
        """Show how it does, and how it is set up."""
        return await self._show(request, "status")

    @app.route("/-/status/now", methods=["GET"])
    async def now(self, request: Request) -> bytes:
        """Show how it does, as a part of a page."""
        return await self._show(request, "status_now")

    async def _show(self, request: Request, template: str) -> bytes:
        status = await self._overview.status()
        connections, busy = self._connections()
        return await self._pages.show(
            request,
            template,
            status=status,
            is_ready=is_ready(status.checks),
            connections=connections,
            # One of them is this one.
            busy=max(busy - 1, 0),
            settings=self.settings,
        )


tell_errors(StatusPage.app, lambda page: page._pages)
