"""
Answer browsers at paths where there is no page; programs have the API tell them.
"""

from __future__ import annotations

from attrs import define
from klein import Klein
from twisted.web.server import Request

from forgereg.web.answer import reads
from forgereg.web.pages import Pages, go, tell_errors

_HTML = "text/html"


@define(eq=False)
class Nowhere:
    """What answers where nothing else does."""

    pages: Pages

    app = Klein()
    app.url_map.merge_slashes = False

    @app.route("/favicon.ico", methods=["GET"])
    def icon(self, request: Request) -> bytes:
        """Lead to the icon: browsers ask here, whatever the page says."""
        return go(request, self.pages.static.address("icon.svg"))

    tell_errors(app, lambda self: self.pages)


def is_browser(request: Request) -> bool:
    """Whether who asks says that they read pages: clients that pull do not."""
    return any(kind == _HTML and weight > 0 for kind, weight in reads(request))
