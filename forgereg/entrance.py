"""
Put together what answers HTTP: the API, the pages, and what else has a path.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from forgereg.config import TABLE, Row, Settings
from forgereg.flow.applications import Applications
from forgereg.flow.catalogue import Catalogue
from forgereg.flow.health import Health
from forgereg.flow.inspection import Inspection
from forgereg.flow.registry import Registry
from forgereg.flow.status import Overview
from forgereg.flow.threads import InThread
from forgereg.flow.works import Works
from forgereg.lines import masked
from forgereg.metrics import Metrics
from forgereg.traces import Tracer
from forgereg.values import written
from forgereg.web.api import Api
from forgereg.web.applications import ApplicationFiles
from forgereg.web.builds import MAX_BODY as BUILDS_BODY
from forgereg.web.builds import BuildPages
from forgereg.web.coding import Codings
from forgereg.web.control import MAX_BODY as CONTROL_BODY
from forgereg.web.control import Control
from forgereg.web.events import Streams
from forgereg.web.guard import Clients, Guard
from forgereg.web.home import Home
from forgereg.web.hooks import MAX_BODY as HOOKS_BODY
from forgereg.web.hooks import Hooks
from forgereg.web.image import ImagePages
from forgereg.web.ledger import Ledger
from forgereg.web.login import MAX_BODY as LOGIN_BODY
from forgereg.web.login import Login
from forgereg.web.manifests import Manifests
from forgereg.web.pages import Pages
from forgereg.web.patience import Limits
from forgereg.web.probes import Probes
from forgereg.web.scrape import Scrape
from forgereg.web.session import Sessions
from forgereg.web.site import RegistrySite, Room
from forgereg.web.static import Static
from forgereg.web.status import Setting, StatusPage
from forgereg.web.tombstone import Tombstones


@define(eq=False)
class Entrance:
    """
    All that clients can ask, and who they are.

    :ivar now: gives seconds since the epoch.
    :ivar new_id: gives names for incidents, each time another one.
    """

    _settings: Settings
    _registry: Registry
    _works: Works
    _health: Health
    _overview: Overview
    _applications: Applications
    _catalogue: Catalogue
    _inspection: Inspection
    _clock: IReactorTime
    _now: Callable[[], float]
    _new_id: Callable[[], str]
    _in_thread: InThread
    _metrics: Metrics
    _tracer: Tracer
    guard: Guard = field(init=False, factory=Guard)
    clients: Clients = field(init=False, factory=Clients)
    codings: Codings = field(init=False)
    api: Api = field(init=False)
    hooks: Hooks = field(init=False)
    sessions: Sessions = field(init=False)
    streams: Streams = field(init=False)
    pages: Pages = field(init=False)
    status: StatusPage = field(init=False)
    site: RegistrySite = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.codings = Codings(self.clients)
        self.api = self._api()
        self.api.tracer = self._tracer
        self.hooks = Hooks(None, self._works.pushed, self._new_id)
        self.sessions = Sessions(lambda: self.guard.token, self.clients, self._now)
        self.streams = Streams(self._clock, self.clients.name)
        self.guard.has_session = self.sessions.is_known
        self.guard.is_told = self._settings.port.startswith("haproxy:")
        self.pages = Pages(
            Static(),
            self.clients,
            self.guard,
            self._in_thread,
            self._now,
            self._new_id,
        )
        self.status = StatusPage(
            self.pages,
            self._overview,
            lambda: (len(self.site.channels), self.site.busy),
        )
        ledger = Ledger(
            self.clients, self.guard, self._now, self._metrics, self._tracer
        )
        self.site = RegistrySite(self.api, self._rooms(), ledger)

    def _api(self) -> Api:
        settings = self._settings
        api = Api(
            self._registry,
            Manifests(
                self._registry,
                Tombstones(self._clock.seconds),
                self.clients,
                self._clock,
                self._now,
            ),
            self.clients,
            self.codings,
            self._clock,
            settings.max_image_name_length,
            settings.max_tag_length,
            self._new_id,
        )
        # systemd keeps the socket open while the next process starts.
        port = settings.port.removeprefix("haproxy:")
        api.hands_over = port.startswith("systemd:")
        return api

    def _rooms(self) -> dict[bytes, Room]:
        settings, works, clients = self._settings, self._works, self.clients
        control = Control(works, self.guard.check, clients.name, self._new_id)
        files = ApplicationFiles(
            self._applications,
            self._registry,
            clients,
            self._clock,
            self._now,
            lambda: self.api.limits,
            settings.max_image_name_length,
            settings.max_tag_length,
            self._new_id,
        )
        scrape = Scrape(self._metrics, self._in_thread, self._new_id)
        probes = Room(Probes(self._health, self._new_id).app.resource())
        home = Home(self._catalogue, self.pages)
        images = ImagePages(
            self._inspection,
            self.pages,
            settings.max_image_name_length,
            settings.max_tag_length,
        )
        login = Login(
            self.pages, self.sessions, lambda: self.guard.token, clients, self._clock
        )
        builds = BuildPages(
            self.pages,
            works,
            self.streams,
            clients,
            lambda: bool(self.guard.token),
            self.sessions.is_known,
            self._clock,
            self._now,
            self._in_thread,
        )
        return {
            b"": Room(home.app.resource()),
            b"healthz": probes,
            b"readyz": probes,
            b"-/api": Room(control.app.resource(), CONTROL_BODY),
            b"-/applications": Room(files.app.resource()),
            b"-/builds": Room(builds.app.resource(), BUILDS_BODY),
            b"-/hooks": Room(self.hooks.app.resource(), HOOKS_BODY),
            b"-/images": Room(images.app.resource()),
            b"-/login": Room(login.app.resource(), LOGIN_BODY),
            b"metrics": Room(scrape.app.resource()),
            b"-/static": Room(self.pages.static.app.resource()),
            b"-/status": Room(self.status.app.resource()),
        }

    def stop(self) -> None:
        """Keep nobody any longer who only watches."""
        self.streams.stop()

    def apply(
        self, settings: Settings, admin_token: str | None, hook_secret: str | None
    ) -> None:
        """Go by other settings from now on, as far as that needs no restart."""
        self.guard.token, self.hooks.secret = admin_token, hook_secret
        self.clients.proxies = settings.trusted_proxies
        self.clients.fast = settings.fast_networks
        self.codings.mode = settings.transfer_coding
        self.api.limits = Limits(settings.max_hold, settings.redirect_hold)
        self.status.settings = [
            _shown(row, settings if row.live else self._settings, settings)
            for row in TABLE
        ]


def _shown(row: Row, now: Settings, given: Settings) -> Setting:
    """
    Write a setting for anyone to read.

    :param given: what holds after a restart.
    """
    value, next_value = getattr(now, row.name), getattr(given, row.name)
    # Some depend on the machine, and are nobody's choice there.
    # What depends on the machine is shown beside what somebody has set.
    is_usual = "{" not in row.default and value == row.read(row.default)
    after = None if next_value == value else masked(written(next_value))
    return Setting(
        row.variable,
        masked(written(value)),
        row.unit,
        row.help,
        row.live,
        is_usual and after is None,
        after,
    )
