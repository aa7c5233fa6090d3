"""Tests for `forgereg.flow.builds`: builds that are cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from forgereg.flow.report import State
from forgereg.oci.errors import BuildCancelled, BuildOver
from forgereg.oci.reference import Name, Tag
from tests.deferreds import no_result, result_of
from tests.flow.stages import (
    HELLO,
    STAGES,
    add,
    cancel,
    go_on,
    hold,
    log_of,
    pull,
    reports,
    states,
)
from tests.registry import ANY_FORM, Served

LATEST = "/v2/packages/hello/manifests/latest"


def cancelled(awaited: Deferred[Any]) -> str:
    """Give what somebody reads whose build was cancelled."""
    with pytest.raises(BuildCancelled) as raised:
        result_of(awaited)
    return str(raised.value)


@pytest.mark.parametrize("stage", STAGES)
def test_at_each_stage(served: Served, stage: State) -> None:
    """A cancelled build tells all who wait, and its nix is told to end."""
    waiting = [*hold(served, stage), pull(served, client="192.0.2.2")]
    assert cancel(served).state is State.CANCELLED
    for each in waiting:
        assert cancelled(each).startswith(f"{HELLO} was cancelled by an operator")
    assert states(served) == [State.CANCELLED]
    error = reports(served)[0].error or ""
    assert error.startswith(f"{HELLO} was cancelled")
    assert log_of(served) == f"{error}\n"
    assert len(served.nix.killed) == (stage is not State.READING)


@pytest.mark.parametrize("stage", STAGES)
def test_not_again_at_once(served: Served, stage: State) -> None:
    """A cancelled build is not begun again by those who come back within a minute."""
    hold(served, stage)[0].addErrback(lambda failure: None)
    cancel(served)
    go_on(served)
    counts = served.nix.counts
    for _ in range(5):
        served.clock.advance(11.0)
        assert served.get(LATEST, ANY_FORM).status == 422
    assert served.nix.counts == counts
    assert states(served) == [State.CANCELLED]
    served.clock.advance(6.0)
    served.pull("packages/hello")


@pytest.mark.parametrize("stage", STAGES)
def test_retry(served: Served, stage: State) -> None:
    """An operator has a cancelled build begun again at once."""
    hold(served, stage)[0].addErrback(lambda failure: None)
    report = cancel(served)
    go_on(served)
    again = result_of(served.assembly.parts.works.retry(report.id, "admin"))
    assert again.id != report.id
    assert states(served) == [State.CANCELLED, State.DONE]
    served.pull("packages/hello")


def test_wanted_by_name(served: Served) -> None:
    """Who asks for a build by name has it built, whatever was cancelled before."""
    hold(served, State.BUILDING)[0].addErrback(lambda failure: None)
    cancel(served)
    go_on(served)
    result_of(served.assembly.parts.works.start("packages/hello", "admin"))
    assert states(served) == [State.CANCELLED, State.DONE]


def test_known_images(served: Served) -> None:
    """To cancel the build of a newer image does not keep back one that is known."""
    served.pull("packages/hello")
    served.clock.advance(300.0)
    hold(served, State.LOCKING)[0].addErrback(lambda failure: None)
    cancel(served, -1)
    go_on(served)
    assert served.get("/v2/packages/hello/manifests/2.12", ANY_FORM).status == 200


def test_queued(served: Served) -> None:
    """A build that is cancelled in the queue never begins; the one behind it does."""
    served.set(max_builds=1)
    images = [HELLO, *add(served, "a", "b")]
    pulls = hold(served, State.BUILDING, images)
    assert cancel(served, 1).state is State.CANCELLED
    cancelled(pulls[1])
    go_on(served)
    assert states(served) == [State.DONE, State.CANCELLED, State.DONE]
    assert served.nix.count("build") == 2


def test_the_place_is_given_back(served: Served) -> None:
    """When a build is cancelled, the next one begins."""
    served.set(max_builds=1)
    pulls = hold(served, State.BUILDING, [HELLO, *add(served, "a")])
    cancel(served)
    cancelled(pulls[0])
    assert states(served) == [State.CANCELLED, State.BUILDING]
    go_on(served)
    result_of(pulls[1])


@pytest.mark.parametrize("number", [0, 1])
def test_two_names_of_one_derivation(served: Served, number: int) -> None:
    """To cancel either of two builds of one derivation ends its nix, and both."""
    pulls = hold(served, State.BUILDING, [HELLO, "packages/hello:2.12"])
    cancel(served, number)
    for each in pulls:
        cancelled(each)
    assert states(served) == [State.CANCELLED, State.CANCELLED]
    assert len(served.nix.killed) == 1


@pytest.mark.parametrize("number", [0, 1])
def test_two_names_in_the_queue(served: Served, number: int) -> None:
    """Two builds of one derivation are cancelled in the queue as one."""
    served.set(max_builds=1)
    (other,) = add(served, "a")
    pulls = hold(served, State.BUILDING, [other, HELLO, "packages/hello:2.12"])
    assert states(served) == [State.BUILDING, State.QUEUED, State.QUEUED]
    cancel(served, 1 + number)
    for each in pulls[1:]:
        cancelled(each)
    go_on(served)
    assert states(served) == [State.DONE, State.CANCELLED, State.CANCELLED]
    assert served.nix.count("build") == 1


def test_reading_of_two_names(served: Served) -> None:
    """When nix is done, each of its builds is cancelled by itself."""
    pulls = hold(served, State.READING, [HELLO, "packages/hello:2.12"])
    cancel(served, 0)
    cancelled(pulls[0])
    go_on(served)
    result_of(pulls[1])
    assert states(served) == [State.CANCELLED, State.DONE]


@pytest.mark.parametrize("stage", [State.LOCKING, State.EVALUATING])
def test_what_others_wait_for(served: Served, stage: State) -> None:
    """To cancel a build ends neither the locking nor the evaluation others wait for."""
    pulls = hold(served, stage, [HELLO, "packages/hello:2.12"])
    cancel(served, 0)
    cancelled(pulls[0])
    no_result(pulls[1])
    go_on(served)
    result_of(pulls[1])
    assert states(served) == [State.CANCELLED, State.DONE]


def test_lists_while_a_build_is_cancelled(served: Served) -> None:
    """Who lists tags does not read that somebody's build was cancelled."""
    (waiting,) = hold(served, State.EVALUATING)
    client = served.begin("/v2/packages/hello/tags/list")
    cancel(served)
    cancelled(waiting)
    go_on(served)
    assert client.answer().json["tags"] == ["2.12", "latest"]


def test_between_two_steps(served: Served) -> None:
    """A build that is cancelled while the disk is waited for ends before its next step."""
    served.nix.pause()
    waiting = pull(served)
    served.nix.step()
    build = served.builds.find((Name("packages/hello"), Tag("latest")))
    assert build is not None
    served.threads.pause()
    served.nix.step()
    build.cancel()
    served.threads.resume()
    assert cancelled(waiting).startswith(f"{HELLO} was cancelled")
    assert served.nix.count("build") == 0
    assert states(served) == [State.CANCELLED]


def test_too_late(served: Served) -> None:
    """A build that is over cannot be cancelled."""
    served.pull("packages/hello")
    with pytest.raises(BuildOver, match="is done already"):
        cancel(served)


def test_twice(served: Served) -> None:
    """Who cancels a build twice is told that it is over."""
    (waiting,) = hold(served, State.BUILDING)
    cancel(served)
    with pytest.raises(BuildOver, match="is cancelled already"):
        cancel(served)
    cancelled(waiting)


def test_blobs(served: Served) -> None:
    """To read an archive again for a layer can be cancelled as any build."""
    digests = served.digests("packages/hello")
    for file in (served.state / "blobs").rglob("*"):
        if file.is_file():
            file.unlink()
    served.nix.packages["hello"].outputs["image"].make()
    served.readers.pause()
    client = served.begin(f"/v2/packages/hello/blobs/{digests[2]}")
    assert states(served) == [State.DONE, State.READING]
    cancel(served, 1)
    assert client.answer().status == 422
    served.readers.resume()
