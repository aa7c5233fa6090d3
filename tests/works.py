"""Builds that are only played, for whoever watches and steers them."""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.web.resource import Resource
from twisted.web.server import Request

from forgereg.flow.report import Choice, Report, State, SweepReport, SweptImage
from forgereg.flow.works import parse_image
from forgereg.nix.progress import Progress
from forgereg.oci.errors import (
    BuildOver,
    BuildUnknown,
    Forbidden,
    NameUnknown,
)
from forgereg.web.control import Control

#: The wall clock when a test begins, in seconds since the epoch.
BEGIN = 1_700_000_000.0

RUNNING = Report(
    id="b2",
    image="packages/hello:latest",
    state=State.BUILDING,
    asked_by=("192.0.2.1", "192.0.2.2"),
    asked_at=BEGIN,
    started_at=BEGIN + 1.5,
    locked="github:acme/forge/" + "0" * 40,
    derivation="/nix/store/0-hello.drv",
    progress=Progress(3, 10, 2, 0, 2**20, 2**22, "hello-2.12", "buildPhase"),
)
FAILED = Report(
    id="b1",
    image="packages/broken:latest",
    state=State.FAILED,
    asked_by=("192.0.2.1",),
    asked_at=BEGIN - 100,
    started_at=BEGIN - 90,
    finished_at=BEGIN - 30,
    error="builder for 'broken' failed",
)


@define
class FakeWorks:
    """
    Builds in memory.

    :ivar logs: by id.
    :ivar asked: what was to be changed, and by whom.
    :ivar coming: what becomes of the first build, step by step, as its log is read.
    """

    reports: list[Report] = field(factory=lambda: [RUNNING, FAILED])
    logs: dict[str, bytes] = field(factory=dict)
    asked: list[tuple[object, ...]] = field(factory=list)
    error: Exception | None = None
    coming: list[Report] = field(factory=list)

    async def builds(self, most: int, choice: Choice) -> list[Report]:
        """Give the first of them."""
        if self.error is not None:
            raise self.error
        return [each for each in self.reports if each.fits(choice)][:most]

    async def build(self, id: str) -> Report:
        """Give one."""
        for report in self.reports:
            if report.id == id:
                return report
        raise BuildUnknown(f"no build is called {id!r}")

    async def log(self, id: str, offset: int, most: int) -> bytes:
        """Give a stretch of a log; by the next time, the first build is further."""
        if self.coming:
            self.reports[0] = self.coming.pop(0)
        return self.logs.get(id, b"")[offset : offset + most]

    async def start(self, image: str, client: str) -> Report:
        """Join the first build if it is of that image."""
        image = "{}:{}".format(*parse_image(image))
        self.asked.append(("start", image, client))
        if image != self.reports[0].image:
            raise NameUnknown(f"there is no {image}")
        return self.reports[0]

    async def cancel(self, id: str) -> Report:
        """End a build."""
        report = await self.build(id)
        if report.state.is_over:
            raise BuildOver("the build is over")
        self.asked.append(("cancel", id))
        return evolve(report, state=State.CANCELLED)

    async def retry(self, id: str, client: str) -> Report:
        """Begin anew, under another id."""
        report = await self.build(id)
        self.asked.append(("retry", id, client))
        return evolve(report, id="b3", state=State.QUEUED)

    async def sweep(self, dry_run: bool) -> SweepReport:
        """Let one image go."""
        self.asked.append(("sweep", dry_run))
        image = SweptImage(("packages/old:latest",), 50 * 2**20, None, "never pulled")
        return SweepReport((image,), 3, 50 * 2**20, 2**30, dry_run)


@define
class Controlled:
    """
    The control API over builds that are only played.

    :ivar token: who sends it may change things; empty for everyone.
    """

    works: FakeWorks = field(factory=FakeWorks)
    token: str = ""

    def _check(self, request: Request) -> None:
        said = request.getHeader("Authorization")
        if self.token and said != f"Bearer {self.token}":
            raise Forbidden("only whoever has the token may change anything")

    @property
    def resource(self) -> Resource:
        """The API as Twisted has it."""
        return Control(
            self.works, self._check, lambda _: "192.0.2.1", lambda: "f00"
        ).app.resource()
