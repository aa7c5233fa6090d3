"""Bring a pull to a stage, and hold it there."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from forgereg.flow.registry import Found
from forgereg.flow.report import Report, State
from forgereg.oci.media import MANIFESTS
from forgereg.oci.reference import Name, Tag
from tests.archives import Recipe, layer
from tests.deferreds import begin, result_of
from tests.registry import Served

HELLO = "packages/hello:latest"
#: Where a pull can be held, and how many children of nix have ended by then.
STAGES = {
    State.LOCKING: 0,
    State.EVALUATING: 1,
    State.BUILDING: 2,
    State.READING: 3,
}


def pull(
    served: Served, image: str = HELLO, client: str = "192.0.2.1"
) -> Deferred[Found]:
    """Begin to pull an image."""
    name, _, tag = image.partition(":")
    return begin(served.registry.manifest(Name(name), Tag(tag), MANIFESTS, client))


def hold(
    served: Served, stage: State, images: Sequence[str] = (HELLO,)
) -> list[Deferred[Found]]:
    """Pull images, and hold them where they have come to a stage."""
    served.nix.pause()
    served.readers.pause()
    pulls = [pull(served, image) for image in images]
    for _ in range(STAGES[stage]):
        served.nix.step()
    return pulls


def go_on(served: Served) -> None:
    """Let nix, and who reads archives, go on."""
    served.nix.finish()
    served.readers.resume()


def reports(served: Served) -> list[Report]:
    """List the builds, the oldest first, as an operator sees them."""
    return result_of(served.assembly.parts.works.builds(1000))[::-1]


def states(served: Served) -> list[State]:
    """Give the states of the builds, the oldest first."""
    return [report.state for report in reports(served)]


def cancel(served: Served, number: int = 0) -> Report:
    """Cancel a build."""
    return result_of(served.assembly.parts.works.cancel(reports(served)[number].id))


def log_of(served: Served, number: int = 0) -> str:
    """Read the log of a build."""
    id = reports(served)[number].id
    return result_of(served.assembly.parts.works.log(id, 0, 2**20)).decode()


def add(served: Served, *names: str) -> list[str]:
    """Put packages into the flake; give the images of them."""
    for name in names:
        recipe = Recipe((layer(name),))
        served.nix.packages[name] = served.store.package("1.0", recipe, name=name)
    return [f"packages/{name}:latest" for name in names]
