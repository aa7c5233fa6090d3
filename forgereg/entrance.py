"""
Put together what answers HTTP: the API, the pages, and what else has a path.
"""

from __future__ import annotations

from attrs import define, field

from forgereg.config import TABLE, Row, Settings
from forgereg.endpoint import parse_endpoint
from forgereg.lines import masked
from forgereg.parts import Parts
from forgereg.secrets import Secrets
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
from forgereg.web.nowhere import Nowhere
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
    """All that clients can ask, and who they are."""

    _parts: Parts
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
        parts, machine = self._parts, self._parts.machine
        self.codings = Codings(self.clients)
        self.api = self._api()
        self.api.tracer = machine.tracer
        self.hooks = Hooks(None, parts.works.pushed, machine.new_id)
        self.sessions = Sessions(lambda: self.guard.token, self.clients, machine.now)
        self.streams = Streams(machine.clock, self.clients.name)
        self.guard.has_session = self.sessions.is_known
        self.guard.is_told = parse_endpoint(parts.settings.port).is_told
        self.pages = Pages(
            Static(),
            self.clients,
            self.guard,
            machine.in_thread,
            machine.now,
            machine.new_id,
        )
        self.status = StatusPage(
            self.pages,
            parts.overview,
            lambda: (len(self.site.channels), self.site.busy),
        )
        ledger = Ledger(
            self.clients, self.guard, machine.now, machine.metrics, machine.tracer
        )
        self.site = RegistrySite(self.api, self._rooms(), ledger)

    def _api(self) -> Api:
        parts, machine = self._parts, self._parts.machine
        settings = parts.settings
        api = Api(
            parts.registry,
            Manifests(
                parts.registry,
                Tombstones(machine.clock.seconds),
                self.clients,
                machine.clock,
                machine.now,
            ),
            self.clients,
            self.codings,
            machine.clock,
            settings.max_image_name_length,
            settings.max_tag_length,
            machine.new_id,
        )
        # systemd keeps the socket open while the next process starts.
        api.hands_over = parse_endpoint(settings.port).kind == "systemd"
        return api

    def _rooms(self) -> dict[bytes, Room]:
        parts, machine = self._parts, self._parts.machine
        settings, works, clients = parts.settings, parts.works, self.clients
        control = Control(works, self.guard.check, clients.name, machine.new_id)
        files = ApplicationFiles(
            parts.applications,
            parts.registry,
            clients,
            machine.clock,
            machine.now,
            lambda: self.api.limits,
            settings.max_image_name_length,
            settings.max_tag_length,
            machine.new_id,
        )
        scrape = Scrape(machine.metrics, machine.in_thread, machine.new_id)
        probes = Room(Probes(parts.health, machine.new_id).app.resource())
        home = Home(parts.catalogue, self.pages)
        images = ImagePages(
            parts.inspection,
            self.pages,
            settings.max_image_name_length,
            settings.max_tag_length,
        )
        login = Login(
            self.pages, self.sessions, lambda: self.guard.token, clients, machine.clock
        )
        builds = BuildPages(
            self.pages,
            works,
            self.streams,
            clients,
            machine.clock,
            machine.now,
            machine.in_thread,
        )
        nowhere = Room(Nowhere(self.pages).app.resource())
        return {
            b"": Room(home.app.resource()),
            b"-": nowhere,
            b"favicon.ico": nowhere,
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

    def apply(self, settings: Settings, secrets: Secrets) -> None:
        """
        Go by other settings from now on, as far as that needs no restart.

        :param settings: as they are set, some for after a restart; the parts have them
            already.
        """
        self.guard.token, self.hooks.secret = secrets.admin_token, secrets.hook_secret
        self.clients.proxies = settings.trusted_proxies
        self.clients.fast = settings.fast_networks
        self.codings.mode = settings.transfer_coding
        self.api.limits = Limits(settings.max_hold, settings.redirect_hold)
        now = self._parts.settings
        self.status.settings = [_shown(row, now, settings) for row in TABLE]


def _shown(row: Row, now: Settings, given: Settings) -> Setting:
    """
    Write a setting for anyone to read.

    :param given: what holds after a restart.
    """
    value, next_value = getattr(now, row.name), getattr(given, row.name)
    # Defaults with braces depend on the machine, and are shown beside what is set.
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
