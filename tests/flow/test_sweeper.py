"""Tests for `forgereg.flow.sweeper`, in a whole registry in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from forgereg.flow.pulls import PullLog
from forgereg.flow.report import SweepReport
from forgereg.flow.retention import Budget, Busy
from forgereg.flow.sweeper import Sweeper
from forgereg.nix.roots import Roots
from forgereg.nix.store import Store
from forgereg.oci.errors import DiskFull
from forgereg.oci.manifest import sha256
from forgereg.oci.reference import Name, Tag, parse_digest
from forgereg.records.kept import Forgotten, KeptImage, KeptImages
from forgereg.records.pulls import Pulls
from forgereg.records.records import Source
from tests.archives import Recipe, layer
from tests.conftest import Log
from tests.deferreds import begin, no_result, result_of
from tests.doubles import Threads, store_path
from tests.registry import ANY_FORM, BEGIN, Served, files_below, serving

P = ParamSpec("P")
T = TypeVar("T")

DAY = 86400.0
EVERYTHING = Budget(0, 1.0)
#: It has a layer in common with hello.
OTHER = Recipe((layer("lower"), layer("other")))


@define
class Swept:
    """
    A registry with ``hello`` and ``other``, and what sweeps it.

    :ivar budget: nothing is kept that nobody pulled for a day.
    """

    served: Served
    budget: Budget = EVERYTHING
    busy: Busy = Busy()
    forgotten: list[KeptImage] = field(factory=list)
    #: name of a blocking step → what happens when it has just been done
    meanwhile: dict[str, Callable[[], object]] = field(factory=dict)
    threads: Threads = field(factory=Threads)
    pull_log: PullLog = field(init=False)
    sweeper: Sweeper = field(init=False)

    def __attrs_post_init__(self) -> None:
        served = self.served
        pulls = Pulls(served.records.engine)
        self.pull_log = PullLog(pulls.note, served.threads, served.clock, self.now)
        self.sweeper = self.sweeping(KeptImages(served.records.engine))

    def sweeping(self, images: KeptImages) -> Sweeper:
        served = self.served
        return Sweeper(
            images,
            self.pull_log,
            served.blobs,
            Store(served.store.root),
            Roots(served.state / "roots"),
            lambda: self.budget,
            lambda: self.busy,
            self.forget,
            self.now,
            self.in_thread,
        )

    def in_thread(
        self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        result = self.threads(call, *args, **kwargs)
        self.meanwhile.pop(call.__name__, lambda: None)()
        return result

    def now(self) -> float:
        return BEGIN + self.served.clock.seconds()

    def forget(self, image: KeptImage) -> None:
        self.forgotten.append(image)
        self.served.registry.forget()

    def pull(self, name: str) -> list[str]:
        """Pull an image; give the digests of its manifest, config and layers."""
        digests = self.served.digests(f"packages/{name}")
        digest = parse_digest(digests[0])
        self.pull_log.pulled(Name(f"packages/{name}"), digest, Tag("latest"))
        self.served.clock.advance(10.0)
        return digests

    def sweep(self, dry_run: bool = False) -> SweepReport:
        return result_of(self.sweeper.sweep(dry_run))

    def files(self) -> tuple[int, int]:
        """Count the blobs and the GC roots."""
        state = self.served.state
        return files_below(state / "blobs"), len(list((state / "roots").iterdir()))


@pytest.fixture
def a(tmp_path: Path) -> Iterator[Swept]:
    with serving(tmp_path) as served:
        served.nix.packages["other"] = served.store.package("1.0", OTHER, name="other")
        yield Swept(served)


def names(report: SweepReport) -> list[Sequence[str]]:
    return [image.names for image in report.images]


HELLO_NAMES = ("packages/hello:2.12", "packages/hello:latest")
OTHER_NAMES = ("packages/other:1.0", "packages/other:latest")


def test_image_is_let_go_of_and_comes_back(a: Swept) -> None:
    """An image that nobody pulls is gone, and is built anew when its tag is pulled."""
    digests = a.pull("hello")
    assert a.files() == (3, 1)
    a.served.clock.advance(2 * DAY)
    report = a.sweep()
    assert names(report) == [HELLO_NAMES]
    assert report.images[0].last_pulled == BEGIN
    assert (report.blobs, report.kept_bytes, report.dry_run) == (3, 0, False)
    assert report.freed_bytes == report.images[0].bytes > 0
    assert a.files() == (0, 0)
    target = f"/v2/packages/hello/manifests/{digests[0]}"
    assert a.served.get(target, ANY_FORM).status == 404
    assert a.served.get(f"/v2/packages/hello/blobs/{digests[2]}").status == 404
    assert a.pull("hello") == digests
    assert a.served.get(target, ANY_FORM).status == 200
    assert a.files() == (3, 1)
    assert a.served.nix.count("build") == 2


def test_dry_run(a: Swept) -> None:
    """A dry run says just what a sweep would do, and does none of it."""
    digests = a.pull("hello")
    a.served.clock.advance(2 * DAY)
    planned = a.sweep(dry_run=True)
    assert planned.dry_run and names(planned) == [HELLO_NAMES]
    assert a.files() == (3, 1)
    assert a.served.digests("packages/hello", digests[0]) == digests
    assert a.forgotten == []
    done = a.sweep()
    assert (done.images, done.blobs) == (planned.images, planned.blobs)
    assert done.freed_bytes == planned.freed_bytes
    assert done.kept_bytes == planned.kept_bytes


def test_other_images_stay_whole(a: Swept) -> None:
    """Letting go of an image leaves what it shares with others, and all of theirs."""
    a.pull("hello")
    a.served.clock.advance(2 * DAY)
    a.pull("other")
    before = a.sweep(dry_run=True)
    assert names(a.sweep()) == [HELLO_NAMES]
    assert a.files() == (3, 1)
    builds = a.served.nix.count("build")
    a.served.pull("packages/other")
    assert a.served.nix.count("build") == builds
    assert a.sweep(dry_run=True).kept_bytes == before.kept_bytes


def test_bytes(a: Swept) -> None:
    """What was pulled longest ago goes until the rest fits."""
    a.pull("hello")
    a.pull("other")
    a.served.clock.advance(DAY)
    a.budget = Budget(0, 0)
    everything = a.sweep().kept_bytes
    a.budget = Budget(everything, 0)
    assert names(a.sweep()) == []
    a.budget = Budget(everything - 1, 0)
    report = a.sweep()
    assert names(report) == [HELLO_NAMES]
    assert report.freed_bytes + report.kept_bytes == everything


def test_pinned_image_stays(a: Swept) -> None:
    """What is pinned stays, however long nobody pulls it."""
    a.pull("hello")
    a.pull("other")
    a.budget = Budget(1, 1.0, ("packages/hello",))
    a.served.clock.advance(2 * DAY)
    assert names(a.sweep()) == [OTHER_NAMES]


def test_image_that_nobody_pulled(a: Swept) -> None:
    """An image that was built ahead counts from when it was first there."""
    warm = a.served.registry.warm(Name("packages/hello"), Tag("latest"), "prewarm")
    result_of(warm)
    a.served.clock.advance(DAY / 2)
    assert names(a.sweep()) == []
    a.served.clock.advance(2 * DAY)
    (image,) = a.sweep().images
    assert image.last_pulled is None


def test_pull_that_is_not_written_down_yet(a: Swept) -> None:
    """An image that was pulled a moment ago stays, whatever the records know."""
    digests = a.pull("hello")
    a.served.clock.advance(2 * DAY)
    a.pull_log.pulled(Name("packages/hello"), parse_digest(digests[0]), None)
    assert names(a.sweep()) == []


@pytest.mark.parametrize("is_written", [True, False])
def test_pull_during_a_sweep(a: Swept, is_written: bool) -> None:
    """An image that is pulled after it was chosen is not let go of."""
    digests = a.pull("hello")
    a.served.clock.advance(2 * DAY)

    def pull() -> None:
        a.pull_log.pulled(Name("packages/hello"), parse_digest(digests[0]), None)
        if is_written:
            a.served.clock.advance(10.0)

    a.meanwhile["delete_others"] = pull
    assert names(a.sweep()) == []
    assert a.threads.calls.count("forget") == is_written
    a.served.pull("packages/hello", digests[0])


@pytest.mark.parametrize("since", ["before", "_survey", "delete_others"])
@pytest.mark.parametrize("what", ["build", "transfer"])
def test_busy_image_stays(a: Swept, what: str, since: str) -> None:
    """An image that is being built, read or sent stays until that is over."""
    digests = a.pull("hello")
    a.served.clock.advance(2 * DAY)
    derivation = a.served.nix.packages["hello"].outputs["image"].derivation

    def begin_it() -> None:
        if what == "build":
            a.busy = Busy(derivations={derivation})
        else:
            a.busy = Busy(blobs={parse_digest(digests[2])})

    if since == "before":
        begin_it()
    a.meanwhile[since] = begin_it
    assert names(a.sweep()) == []
    a.busy = Busy()
    assert names(a.sweep()) == [HELLO_NAMES]


def test_derivation_that_is_built_again_meanwhile(a: Swept) -> None:
    """A build that begins while its old image is forgotten keeps its GC root."""
    a.pull("hello")
    a.served.clock.advance(2 * DAY)

    derivation = a.served.nix.packages["hello"].outputs["image"].derivation

    def build() -> None:
        a.busy = Busy(derivations={derivation})

    a.meanwhile["forget"] = build
    assert names(a.sweep()) == [HELLO_NAMES]
    assert a.files() == (0, 1)


def test_running_transfer_goes_on(a: Swept) -> None:
    """Who is being sent a blob gets all of it, though its file is deleted."""
    digests = a.pull("hello")
    a.served.clock.advance(2 * DAY)
    opened = result_of(
        a.served.registry.blob(Name("packages/hello"), parse_digest(digests[2]))
    )
    a.sweep()
    assert a.files() == (0, 0)
    assert str(sha256(opened.source.peek(0, opened.size))) == digests[2]
    opened.close()


def test_one_image_at_a_time(a: Swept) -> None:
    """Between two steps of a sweep others have their turn."""
    a.pull("hello")
    a.pull("other")
    a.served.clock.advance(2 * DAY)
    a.sweep()
    steps = ["_survey", "delete_others", *["forget", "delete", "_delete"] * 2]
    assert a.threads.calls == steps


def test_second_sweep_joins_the_first(a: Swept) -> None:
    """Who asks for a sweep while one is under way is told what that one did."""
    a.pull("hello")
    a.served.clock.advance(2 * DAY)
    a.threads.pause()
    leaver, first, second = (begin(a.sweeper.sweep(False)) for _ in range(3))
    leaver.addErrback(lambda _: None)
    leaver.cancel()
    no_result(second)
    a.threads.resume()
    assert result_of(first) is result_of(second)
    assert len(a.forgotten) == 1
    assert names(a.sweep()) == []


def test_nothing_to_sweep(a: Swept) -> None:
    """A registry that has nothing lets go of nothing."""
    assert a.sweep() == SweepReport((), 0, 0, 0, False)
    assert a.sweep(dry_run=True) == SweepReport((), 0, 0, 0, True)


def orphan(a: Swept, data: bytes, days_ago: float) -> None:
    """Leave a blob and a GC root that no image has."""
    with a.served.blobs.stage() as stage:
        partial = stage.partial()
        partial.write(data)
        partial.keep(sha256(data))
    name = store_path(data.decode()).removeprefix("/nix/store/")
    link = a.served.state / "roots" / name
    link.symlink_to("/nix/store/nowhere")
    when = a.now() - days_ago * DAY
    for path in (a.served.blobs.path(sha256(data)), link):
        os.utime(path, (when, when), follow_symlinks=False)


def test_orphans(a: Swept, log: Log) -> None:
    """Files that no image has go after a day, even without a budget."""
    a.budget = Budget(0, 0)
    a.pull("hello")
    orphan(a, b"old", 1.1)
    orphan(a, b"young", 0.9)
    assert a.files() == (5, 3)
    planned, done = a.sweep(dry_run=True), a.sweep()
    assert (planned.blobs, planned.freed_bytes) == (1, 3)
    assert (done.blobs, done.freed_bytes) == (1, 3)
    assert a.files() == (4, 2)
    assert "1 blobs and 1 GC roots of no image" in log.text


def test_many_orphans_go_in_steps(a: Swept) -> None:
    """However many files are left over, other work has its turn between them."""
    for number in range(101):
        orphan(a, b"%d" % number, 2.0)
    assert a.sweep().blobs == 101
    assert a.threads.calls.count("_delete") == 2


def test_archive_that_is_being_read(a: Swept) -> None:
    """What is being unpacked is never touched, however long that takes."""
    with a.served.blobs.stage() as stage:
        partial = stage.partial()
        partial.write(b"half")
        for path in (a.served.state / "partial").rglob("*"):
            os.utime(path, (0.0, 0.0))
        a.sweep()
        partial.keep(sha256(b"half"))
    assert a.files() == (1, 0)


def test_blob_that_is_written_again_meanwhile(a: Swept) -> None:
    """A blob that nobody had and that is unpacked during a sweep is kept."""
    orphan(a, b"old", 2.0)
    path = a.served.blobs.path(sha256(b"old"))
    a.meanwhile["_survey"] = lambda: os.utime(path, (a.now(), a.now()))
    assert a.sweep().blobs == 0
    assert path.exists()


def test_deleted_by_hand(a: Swept) -> None:
    """Files that an operator has deleted take up nothing, and their image goes, too."""
    a.pull("hello")
    (path,) = [each for each in (a.served.state / "roots").iterdir()]
    for each in [*(a.served.state / "blobs").rglob("*")]:
        if each.is_file():
            each.unlink()
    (archive,) = a.served.store.root.rglob("*.tar.gz")
    archive.unlink()
    path.unlink()
    a.served.clock.advance(2 * DAY)
    report = a.sweep()
    assert names(report) == [HELLO_NAMES]
    assert (report.blobs, report.freed_bytes) == (0, 0)


@frozen
class FullDisk(KeptImages):
    """Records that have no room until every blob is deleted."""

    blobs: Path

    def forget(self, source: Source, after: float | None) -> Forgotten | None:
        if files_below(self.blobs):
            raise DiskFull("full")
        return super().forget(source, after)


def test_full_disk_is_swept(a: Swept) -> None:
    """On a disk without room for a record, blobs go first and make room."""
    a.pull("hello")
    a.served.clock.advance(2 * DAY)
    images = FullDisk(a.served.records.engine, a.served.state / "blobs")
    a.sweeper = a.sweeping(images)
    assert names(a.sweep()) == [HELLO_NAMES]
    assert a.files() == (0, 0)
