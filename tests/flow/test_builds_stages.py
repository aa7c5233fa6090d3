"""Tests for `forgereg.flow.builds`: what can be seen of a build, from begin to end."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from forgereg.blobs.store import BlobStore
from forgereg.flow.build import Build
from forgereg.flow.report import State
from forgereg.nix.process import Exit
from forgereg.nix.progress import Progress
from forgereg.oci.errors import (
    BuildFailed,
    BuildUnknown,
    DiskFull,
    EvaluationFailed,
    NameUnknown,
)
from forgereg.oci.reference import Name, Tag
from forgereg.records.buildlogs import BuildLogs
from forgereg.records.builds import BuildRecords
from tests import doubles
from tests.conftest import Log
from tests.deferreds import begin, result_of
from tests.flow.stages import (
    HELLO,
    STAGES,
    add,
    go_on,
    hold,
    log_of,
    pull,
    reports,
    states,
)
from tests.registry import ANY_FORM, BEGIN, Served, files_below, serving

LATEST = "/v2/packages/hello/manifests/latest"


def nix_says(action: str, **rest: Any) -> str:
    return "@nix " + json.dumps({"action": action, **rest})


def logs(served: Served) -> int:
    return files_below(served.state / "logs")


def test_from_begin_to_end(served: Served) -> None:
    """A build is listed as locking, evaluating, building, reading and done, in turn."""
    seen = []
    hold(served, State.LOCKING)
    for _ in range(3):
        seen += states(served)
        served.nix.step()
    seen += states(served)
    served.readers.resume()
    assert [*seen, *states(served)] == [*STAGES, State.DONE]


def test_what_is_told_of_a_build(served: Served) -> None:
    """A build tells its image, who asked, when, what exactly is built, and how it ended."""
    served.clock.advance(5.0)
    hold(served, State.LOCKING)
    (first,) = reports(served)
    assert (first.image, first.asked_by) == (HELLO, ("192.0.2.1",))
    assert (first.locked, first.derivation, first.finished_at) == (None, None, None)
    served.clock.advance(20.0)
    go_on(served)
    (last,) = reports(served)
    assert (last.asked_at, last.started_at) == (BEGIN + 5.0, BEGIN + 5.0)
    assert (last.finished_at, last.error) == (BEGIN + 25.0, None)
    assert last.locked == served.nix.locked
    image = served.nix.packages["hello"].outputs["image"]
    assert last.derivation == image.derivation


def test_queued(served: Served) -> None:
    """With as many builds as may run, the next ones are queued until one ends."""
    served.set(max_builds=1)
    images = [HELLO, *add(served, "bye")]
    hold(served, State.BUILDING, images)
    assert states(served) == [State.BUILDING, State.QUEUED]
    assert served.nix.count("build") == 1
    served.nix.step()
    assert states(served) == [State.READING, State.BUILDING]
    go_on(served)
    assert states(served) == [State.DONE, State.DONE]


def test_queued_for_evaluation(served: Served) -> None:
    """No more evaluations run at a time than may, whatever else runs."""
    served.set(max_evaluations=1, max_builds=9)
    images = [HELLO, *add(served, "a", "b")]
    hold(served, State.EVALUATING, images)
    assert states(served) == [State.EVALUATING, State.QUEUED, State.QUEUED]
    served.nix.step()
    assert states(served) == [State.BUILDING, State.EVALUATING, State.QUEUED]
    go_on(served)


def test_two_hundred_names_at_once(served: Served) -> None:
    """Of two hundred images asked for at once none is lost, and N are built at a time."""
    served.set(max_builds=3, max_evaluations=200)
    images = add(served, *(f"p{number}" for number in range(200)))
    pulls = hold(served, State.BUILDING, images)
    assert states(served).count(State.BUILDING) == 3
    assert states(served).count(State.QUEUED) == 197
    go_on(served)
    assert all(result_of(each) for each in pulls)
    assert served.nix.counts == (1, 200, 200)


def test_who_asked(served: Served) -> None:
    """A build lists each client that asked for it once, however often it asked."""
    hold(served, State.BUILDING)
    for client in ("192.0.2.2", "192.0.2.1", "192.0.2.2"):
        pull(served, client=client)
    (report,) = reports(served)
    assert report.asked_by == ("192.0.2.1", "192.0.2.2")


def test_hundreds_of_clients(served: Served) -> None:
    """Of hundreds of clients a build remembers a hundred: the first, and the last."""
    hold(served, State.BUILDING)
    pulls = [pull(served, client=f"10.0.0.{number}") for number in range(250)]
    (report,) = reports(served)
    assert len(report.asked_by) == 100
    assert report.asked_by[0] == "192.0.2.1"
    assert report.asked_by[-1] == "10.0.0.249"
    go_on(served)
    assert all(result_of(each) for each in pulls)
    assert served.nix.counts == (1, 1, 1)


def test_progress(served: Served) -> None:
    """A build tells how far nix is: what is built, fetched, and in which phase."""
    hold(served, State.BUILDING)
    drv = "/nix/store/00000000000000000000000000000000-glibc-2.40.drv"
    served.nix.say(
        nix_says("start", id=1, type=104, text="", fields=[]),
        nix_says("result", id=1, type=105, fields=[2, 7, 1, 0]),
        nix_says("start", id=2, type=105, text="", fields=[drv, "", 1, 1]),
        nix_says("result", id=2, type=104, fields=["buildPhase"]),
        nix_says("start", id=3, type=101, text="", fields=["https://x/y"]),
        nix_says("result", id=3, type=105, fields=[100, 400, 0, 0]),
    )
    (report,) = reports(served)
    assert report.progress == Progress(
        done=2,
        expected=7,
        running=1,
        fetched_bytes=100,
        fetch_bytes=400,
        building="glibc-2.40",
        phase="buildPhase",
    )


def test_log(served: Served) -> None:
    """A build's log has what nix and the builders say, and their colours."""
    hold(served, State.BUILDING)
    served.nix.say(
        "warning: \x1b[31mold\x1b[0m",
        nix_says("result", id=2, type=101, fields=["checking for gcc… yes"]),
    )
    assert log_of(served) == "warning: \x1b[31mold\x1b[0m\nchecking for gcc… yes\n"


def test_log_of_a_failure(served: Served) -> None:
    """A build that failed tells why, in the list and at the end of its log."""
    served.nix.fail("build", "error: no such compiler")
    with pytest.raises(BuildFailed):
        result_of(pull(served))
    (report,) = reports(served)
    why = f"build of {HELLO} failed: no such compiler"
    assert (report.state, report.error) == (State.FAILED, why)
    assert log_of(served) == f"error: no such compiler\n{why}\n"


def test_a_bug_is_not_told(
    served: Served, monkeypatch: pytest.MonkeyPatch, logged_failures: list[LogEvent]
) -> None:
    """What fails by a mistake of the registry is failed, without what it was to all."""

    def stage(store: BlobStore) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(BlobStore, "stage", stage)
    with pytest.raises(RuntimeError):
        result_of(pull(served))
    (report,) = reports(served)
    assert report.state is State.FAILED
    assert report.error == "the registry failed, and its log says how"
    logged_failures.clear()


def test_all_clients_leave(served: Served) -> None:
    """A build goes on when all who asked for it have left, and the image is there."""
    served.nix.pause()
    clients = [served.begin(LATEST, ANY_FORM) for _ in range(3)]
    for client in clients:
        client.hang_up()
    go_on(served)
    assert states(served) == [State.DONE]
    served.pull("packages/hello")
    assert served.nix.counts == (1, 1, 1)


def test_nine_of_ten_leave(served: Served) -> None:
    """When nine of ten who wait leave, the tenth has the image, of one build."""
    served.nix.pause()
    clients = [served.begin(LATEST, ANY_FORM) for _ in range(10)]
    served.nix.step()
    served.nix.step()
    for client in clients[:9]:
        client.hang_up()
    served.nix.finish()
    assert clients[9].answer().status == 200
    assert served.nix.counts == (1, 1, 1)


def test_two_names_of_one_derivation(served: Served) -> None:
    """Two tags of one image are two builds and one nix; both tell how far it is."""
    images = [HELLO, "packages/hello:2.12"]
    pulls = hold(served, State.BUILDING, images)
    served.nix.say(
        "warning: old",
        nix_says("start", id=1, type=104, text="", fields=[]),
        nix_says("result", id=1, type=105, fields=[2, 7, 1, 0]),
    )
    first, second = reports(served)
    assert (first.state, second.state) == (State.BUILDING, State.BUILDING)
    assert first.progress == second.progress == Progress(2, 7, 1)
    assert log_of(served, 1) == (
        f"build {first.id} ({HELLO}) builds the same derivation\nwarning: old\n"
    )
    go_on(served)
    assert states(served) == [State.DONE, State.DONE]
    assert reports(served)[1].progress == Progress(2, 7, 1)
    assert all(result_of(each) for each in pulls)
    assert served.nix.counts == (1, 1, 1)


def test_two_names_of_what_fails(served: Served) -> None:
    """When the one nix of two builds fails, both have failed, for the same reason."""
    pulls = hold(served, State.BUILDING, [HELLO, "packages/hello:2.12"])
    served.nix.fail("build", "error: it is broken")
    go_on(served)
    for each in pulls:
        with pytest.raises(BuildFailed, match="it is broken"):
            result_of(each)
    assert states(served) == [State.FAILED, State.FAILED]


def test_two_names_are_asked_for_by_all(served: Served) -> None:
    """Who asks for one name of a derivation counts as who asked for its build."""
    hold(served, State.BUILDING, [HELLO, "packages/hello:2.12"])
    pull(served, "packages/hello:2.12", client="192.0.2.7")
    first, second = reports(served)
    assert first.asked_by == second.asked_by == ("192.0.2.1", "192.0.2.7")


def test_builds_that_change_places(served: Served) -> None:
    """Two builds may wait for each other's derivations one after the other."""
    gates: dict[str, Deferred[None]] = {"x": Deferred(), "y": Deferred()}
    nix: list[Deferred[str]] = []

    async def run() -> str:
        nix.append(Deferred())
        return await nix[-1]

    async def work(build: Build) -> str:
        first = await served.builds.realise(build, "/nix/store/0-first.drv", run)
        await gates[build.image]
        return first + await served.builds.realise(build, "/nix/store/1-next.drv", run)

    pulls = [served.builds.pull(key, key, key, work)[1] for key in gates]
    nix[0].callback("first ")
    gates["y"].callback(None)
    gates["x"].callback(None)
    assert states(served) == [State.BUILDING, State.BUILDING]
    assert reports(served)[1].asked_by == ("y", "x")
    nix[1].callback("next")
    assert list(map(result_of, pulls)) == ["first next"] * 2
    assert states(served) == [State.DONE, State.DONE]


def test_nothing_new(served: Served) -> None:
    """A tag that is looked up again and found to be the same leaves no build behind."""
    served.pull("packages/hello")
    for _ in range(3):
        served.clock.advance(300.0)
        served.pull("packages/hello")
    assert served.nix.count("metadata") == 4
    assert states(served) == [State.DONE]


def test_names_that_nobody_knows(served: Served) -> None:
    """Asking for what is not there leaves neither builds nor logs behind."""
    served.nix.pause()
    pulls = [pull(served, f"packages/{name}:latest") for name in "abc"]
    pulls.append(pull(served, "packages/hello:7"))
    served.nix.say("warning: Git tree is dirty")
    served.nix.finish()
    for each in pulls:
        with pytest.raises(Exception, match="has no"):
            result_of(each)
    assert (reports(served), logs(served)) == ([], 0)
    assert result_of(begin(served.builds.newest(5))) == []


def test_a_name_that_an_operator_wants(served: Served) -> None:
    """A build that an operator asked for by name is listed, whatever came of it."""
    result_of(served.assembly.parts.works.start("packages/nope", "admin"))
    (report,) = reports(served)
    assert (report.state, report.asked_by) == (State.FAILED, ("admin",))
    assert "has no package 'nope'" in (report.error or "")
    assert "has no package 'nope'" in log_of(served)


def test_a_full_queue(served: Served) -> None:
    """With a full queue, more is refused for now, while what is known is served."""
    images = add(served, "a", "b", "c")
    served.pull("packages/hello")
    served.set(max_evaluations=1, max_queue=1)
    hold(served, State.LOCKING, images[:2])
    assert states(served)[1:] == [State.EVALUATING, State.QUEUED]
    client = served.begin("/v2/packages/c/manifests/latest", ANY_FORM)
    answer = client.answer()
    assert (answer.status, answer.error[0]) == (429, "TOOMANYREQUESTS")
    assert "1 builds are waiting" in answer.error[1]
    assert int(answer["Retry-After"] or 0) > 0
    assert served.get(LATEST, ANY_FORM).status == 200
    assert states(served)[1:] == [State.EVALUATING, State.QUEUED]
    go_on(served)
    served.pull("packages/c")


def test_a_queue_of_who_builds_nothing(served: Served) -> None:
    """Who lists the tags of anything is refused where too many do, as who builds is."""
    images = add(served, "a", "b", "c")
    served.pull("packages/hello")
    served.set(max_evaluations=1, max_queue=1)
    served.nix.pause()
    lists = [f"/v2/{image.partition(':')[0]}/tags/list" for image in images]
    first, second, third = map(served.begin, lists)
    assert third.answer().status == 429
    go_on(served)
    assert (first.answer().status, second.answer().status) == (200, 200)


def test_a_log_that_cannot_be_deleted(
    served: Served, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """A log that a broken disk keeps is told of, and is in nobody's way."""

    def forget(logs: BuildLogs, ids: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(BuildLogs, "forget", forget)
    served.restart()
    served.pull("packages/hello")
    served.nix.fail("eval", "error: flake does not provide attribute 'x'")
    with pytest.raises(NameUnknown):
        result_of(pull(served, "packages/nope:latest"))
    assert "cannot be deleted" in log.text


def test_an_older_image_instead(served: Served) -> None:
    """A build that failed has failed, also where the last image that worked is served."""
    served.set(last_known_good="always")
    served.pull("packages/hello")
    served.nix.push()
    served.clock.advance(300.0)
    served.nix.fail("eval", "error: it is broken")
    result_of(pull(served))
    report = reports(served)[1]
    assert report.state is State.FAILED
    assert "it is broken" in (report.error or "")


def test_builds_of_one_moment(served: Served) -> None:
    """Builds are listed the newest first, also those that one moment saw."""
    images = add(served, "a", "b", "c")
    for image in images:
        result_of(pull(served, image))
    assert [report.image for report in reports(served)] == images
    newest = result_of(served.assembly.parts.works.builds(1))
    assert [report.image for report in newest] == images[-1:]


def test_what_runs_comes_first(served: Served) -> None:
    """A build that still runs is listed before those that ended since it began."""
    images = add(served, "a", "b")
    hold(served, State.READING, images[:1])
    served.clock.advance(5.0)
    served.nix.fail("eval", "error: broken")
    served.nix.finish()
    with pytest.raises(EvaluationFailed):
        result_of(pull(served, images[1]))
    newest = result_of(served.assembly.parts.works.builds(9))
    assert [report.image for report in newest] == images


def test_unknown_build(served: Served) -> None:
    """Whoever asks for a build that never was is told so."""
    with pytest.raises(BuildUnknown, match="'nope'"):
        result_of(served.assembly.parts.works.build("nope"))


def test_blobs_that_are_brought_back(served: Served) -> None:
    """To read an archive that was replaced is a build as any other."""
    digests = served.digests("packages/hello")
    for file in (served.state / "blobs").rglob("*"):
        if file.is_file():
            file.unlink()
    served.nix.packages["hello"].outputs["image"].make()
    assert served.get(f"/v2/packages/hello/blobs/{digests[2]}").status == 200
    report = reports(served)[-1]
    assert (report.image, report.state) == (
        f"packages/hello@{digests[2]}",
        State.DONE,
    )


def test_a_full_disk(served: Served, monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    """While builds cannot be written down, they are made and listed all the same."""

    def save(records: BuildRecords, rows: object, gone: object) -> None:
        raise DiskFull("no room")

    monkeypatch.setattr(BuildRecords, "save", save)
    served.pull("packages/hello")
    assert states(served) == [State.DONE]
    result_of(served.assembly.end())
    assert "builds are not remembered: no room" in log.text


def alive() -> list[Build]:
    """List the builds that are anywhere in memory."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Build)]


def test_memory(served: Served) -> None:
    """However many pulls there were, nothing of them stays in memory."""
    add(served, "a", "b")
    served.set(tag_ttl=0.0, failure_ttl=0.0)
    served.nix.packages["bad"] = doubles.Package()
    others = len(alive())  # that the log of an earlier test may still hold
    for number in range(100):
        for name in ("a", "b", "bad", f"unknown-{number}"):
            pull(served, f"packages/{name}:latest").addErrback(
                lambda failure: failure.trap(NameUnknown) and None
            )
    assert len(alive()) <= others
    assert states(served) == [State.DONE, State.DONE]
    assert served.builds.busy == set()


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[Served]:
    """A registry whose records are in a file."""
    with serving(tmp_path, database=f"sqlite:///{tmp_path / 'r.sqlite'}") as served:
        yield served


@pytest.mark.parametrize("stage", STAGES)
def test_restart(lasting: Served, stage: State) -> None:
    """What a restart interrupts is marked so, and built again when asked for."""
    hold(lasting, stage)
    lasting.nix.die()
    lasting.readers = doubles.Threads()
    lasting.restart()
    begin(lasting.assembly.begin())
    (report,) = reports(lasting)
    assert report.state is State.INTERRUPTED
    assert "pull again" in (report.error or "")
    result_of(pull(lasting))
    assert states(lasting) == [State.INTERRUPTED, State.DONE]


def test_what_ended_before_a_restart(lasting: Served) -> None:
    """Builds and logs outlast a restart, as they were."""
    lasting.nix.fail("build", "error: it is broken")
    with pytest.raises(BuildFailed):
        result_of(pull(lasting))
    before = reports(lasting), log_of(lasting)
    lasting.restart()
    begin(lasting.assembly.begin())
    assert (reports(lasting), log_of(lasting)) == before


@pytest.mark.parametrize("stage", STAGES)
def test_stop(served: Served, stage: State) -> None:
    """What runs when the registry stops is interrupted, with an answer to all."""
    (waiting,) = hold(served, stage)
    served.assembly.stop()
    for verb in ("metadata", "eval", "build"):
        served.nix.fail(verb, exit=Exit(None, stopped=True))
    go_on(served)
    with pytest.raises(Exception, match="shutting down"):
        result_of(waiting)
    result_of(served.assembly.end())
    assert states(served) == [State.INTERRUPTED]


def test_stop_with_a_long_queue(served: Served) -> None:
    """Hundreds of builds that wait when the registry stops are all told."""
    served.set(max_builds=1, max_evaluations=500)
    images = add(served, *(f"p{number}" for number in range(300)))
    pulls = hold(served, State.BUILDING, images)
    served.nix.fail("build", exit=Exit(None, stopped=True))
    served.nix.resume()
    for each in pulls:
        with pytest.raises(Exception, match="shutting down"):
            result_of(each)
    assert set(states(served)) == {State.INTERRUPTED}


def test_start_joins(served: Served) -> None:
    """An operator who asks for what is being built joins that build."""
    hold(served, State.BUILDING)
    report = served.registry.start(Name("packages/hello"), Tag("latest"), "admin")
    assert report.asked_by == ("192.0.2.1", "admin")
    assert [report.id] == [each.id for each in reports(served)]
