"""Tests for `forgereg.flow.slots`."""

from __future__ import annotations

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from forgereg.flow.errand import Errand
from forgereg.flow.report import State
from forgereg.flow.slots import Slots
from forgereg.oci.errors import BuildCancelled, TooManyBuilds
from tests.deferreds import begin, result_of


@define(eq=False)
class Job(Errand):
    """An errand that notes where it stands; ``refused`` ones may not wait."""

    refused: bool = False
    states: list[State] = field(factory=list)

    def enter(self, state: State) -> None:
        self.states.append(state)

    def queue(self) -> None:
        if self.refused:
            raise TooManyBuilds("too many wait")
        super().queue()


@define
class Place:
    """
    Where jobs are done that end when a test says so.

    :ivar begun: what was begun, in order.
    :ivar running: what has not ended.
    """

    slots: Slots
    begun: list[str] = field(factory=list)
    running: dict[str, Deferred[None]] = field(factory=dict)

    def ask(self, image: str, *clients: str, refused: bool = False) -> Job:
        job = Job(image, list(clients or ["a"]), 60.0, refused=refused)
        begin(self._do(job)).addErrback(lambda f: f.trap(BuildCancelled) and None)
        return job

    async def _do(self, job: Job) -> None:
        async with self.slots.turn(job, State.BUILDING):
            self.begun.append(job.image)
            end = self.running[job.image] = Deferred()
            assert len(self.running) <= self.slots.most
            try:
                await job.wait(end)
            finally:
                del self.running[job.image]

    def end(self, *images: str) -> None:
        for image in images or list(self.running):
            self.running[image].callback(None)

    def order(self) -> list[str]:
        """End one after the other until none is left, and give what was begun."""
        while self.running:
            self.end(next(iter(self.running)))
        return self.begun


@pytest.fixture
def place() -> Place:
    return Place(Slots(1))


def test_at_most_so_many() -> None:
    """No more work runs at a time than there are places."""
    place = Place(Slots(2))
    for image in "xyz":
        place.ask(image)
    assert place.begun == ["x", "y"]
    place.end("y")
    assert place.begun == ["x", "y", "z"]


def test_states(place: Place) -> None:
    """Who finds a free place does not queue, and who does not is told so."""
    first, second = place.ask("x"), place.ask("y")
    assert (first.states, second.states) == ([State.BUILDING], [State.QUEUED])
    place.end()
    assert second.states == [State.QUEUED, State.BUILDING]


def test_first_come_first_served(place: Place) -> None:
    """One client's work is done in the order it came."""
    for image in "abcde":
        place.ask(image)
    assert place.order() == ["a", "b", "c", "d", "e"]


def test_more_places(place: Place) -> None:
    """When an operator adds places, work that waits begins at once."""
    for image in "wxyz":
        place.ask(image)
    place.slots.most = 3
    assert place.begun == ["w", "x", "y"]


def test_fewer_places() -> None:
    """When an operator takes places away, what runs goes on and the rest waits."""
    place = Place(Slots(3))
    for image in "wxyz":
        place.ask(image)
    place.slots.most = 1
    place.end("w")
    place.end("x")
    assert place.begun == ["w", "x", "y"]
    place.end("y")
    assert place.begun == ["w", "x", "y", "z"]


def test_fairness(place: Place) -> None:
    """Who asks for a hundred images does not keep another waiting who asks for one."""
    for number in range(100):
        place.ask(str(number), "greedy")
    place.ask("mine", "modest")
    assert place.order()[:4] == ["0", "1", "mine", "2"]


def test_taking_turns(place: Place) -> None:
    """Clients that ask for much take turns."""
    for client in "abc":
        for number in range(3):
            place.ask(f"{client}{number}", client)
    assert " ".join(place.order()) == "a0 a1 b0 c0 a2 b1 c1 b2 c2"


def test_joining_what_waits(place: Place) -> None:
    """Who joins work that another asked for does not stand in the other's queue."""
    jobs = [place.ask(str(number), "greedy") for number in range(100)]
    jobs[50].asked_by.append("modest")
    assert place.order()[:4] == ["0", "1", "50", "2"]


def test_cancelled_in_the_queue(place: Place) -> None:
    """Work that is cancelled while it waits is never begun, and holds nobody up."""
    place.ask("x")
    waiting = place.ask("y")
    place.ask("z")
    waiting.cancel()
    assert place.order() == ["x", "z"]


def test_cancelled_in_its_place(place: Place) -> None:
    """Work that is cancelled gives its place back."""
    running = place.ask("x")
    place.ask("y")
    running.cancel()
    assert place.begun == ["x", "y"]


def test_too_many_wait(place: Place) -> None:
    """Who may not wait is refused, and leaves nothing in the queue."""
    place.ask("x")
    job = Job("y", ["a"], 60.0, refused=True)
    with pytest.raises(TooManyBuilds):
        result_of(begin(place._do(job)))
    place.ask("z")
    assert place.order() == ["x", "z"]


def test_a_free_place_needs_no_queue(place: Place) -> None:
    """Where there is room, nobody is refused."""
    place.ask("x", refused=True)
    assert place.begun == ["x"]


def test_thousands_that_end_at_once(place: Place) -> None:
    """However many wait, they all get their turn, also when all ends at once."""
    done: list[int] = []

    async def work(number: int) -> None:
        async with place.slots.turn(Errand("x", ["a"], 60.0), State.BUILDING):
            await succeed(None)
            done.append(number)

    place.ask("first")
    for number in range(1000):
        begin(work(number))
    place.end("first")
    assert done == list(range(1000))


def test_work_that_fails(place: Place) -> None:
    """Work that fails gives its place back."""

    async def work() -> None:
        async with place.slots.turn(Errand("x", ["a"], 60.0), State.BUILDING):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        result_of(work())
    place.ask("y")
    assert place.begun == ["y"]


_ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 3)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("most"), st.integers(1, 4)),
)


@given(st.lists(_ACTIONS, max_size=40))
def test_nobody_is_lost(actions: list[tuple[str, int]]) -> None:
    """Whatever comes, goes and is cancelled: never too many run, and all get a turn."""
    place, jobs = Place(Slots(2)), list[Job]()
    for action, number in actions:
        if action == "ask":
            jobs.append(place.ask(str(len(jobs)), f"client {number}"))
        elif action == "end" and place.running:
            place.end([*place.running][number % len(place.running)])
        elif action == "cancel" and jobs:
            jobs[number % len(jobs)].cancel()
        elif action == "most":
            place.slots.most = number
        waiting = [j for j in jobs if not j.is_cancelled and j.image not in place.begun]
        assert not waiting or len(place.running) >= place.slots.most
    begun = place.order()
    assert len(begun) == len(set(begun))
    assert {j.image for j in jobs if not j.is_cancelled} <= set(begun)
