"""
Show how the registry does, below ``/-/status``: what it knows of itself in, a page out.
"""

from __future__ import annotations

from attrs import define
from klein import Klein
from twisted.web.server import Request

from forgereg.web.pages import Pages, tell_errors


@define(eq=False)
class StatusPage:
    """The page."""

    _pages: Pages

    app = Klein()

    @app.route("/-/status", methods=["GET"])
    async def page(self, request: Request) -> bytes:
        """Show how it does."""
        return await self._pages.show(request, "status")


tell_errors(StatusPage.app, lambda page: page._pages)
