"""
Whole images: built and pulled by podman, and copied by skopeo.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import images, peers
from benchmarks.bench import Bench, large
from benchmarks.clients import Overlay, skopeo_copy, told
from benchmarks.table import Mark, Row
from benchmarks.timing import in_turns, seconds
from tests import daemon


def measure_cold(bench: Bench) -> Iterator[Row]:
    """Measure from nothing but a flake to a container that has run."""
    # Plain, as Debian 12's podman cannot load an archive that is packed with gzip.
    files = images.programs()
    fills = [images.of_programs(files, 40 * bench.megabyte) for _ in range(5)]
    source = bench.archive("source", [*fills, images.of_busybox])
    # Each is another derivation, so that none is built when it is asked for.
    ours = [f"ours-{n}" for n in range(bench.times + 1)]
    theirs = [f"theirs-{n}" for n in range(bench.times + 1)]
    flake = bench.flake(source, built=dict.fromkeys((*ours, *theirs), source.name))
    link = bench.folder() / "result"
    env = daemon.environment(XDG_CACHE_HOME=str(bench.folder()))
    build = ["nix", "--extra-experimental-features", "nix-command flakes", "build"]
    build += ["--store", str(bench.store), "--json", "--out-link", str(link)]
    with bench.serving(flake) as running, Overlay(bench.folder()) as podman:

        def pull() -> float:
            name = running.ref(f"packages/{ours.pop()}:latest")
            return _timed(bench, podman, lambda: told(podman.run(name)))

        def load() -> float:
            installable = f"{flake}#{theirs.pop()}.image"

            def work() -> None:
                built = subprocess.run(
                    [*build, installable], check=True, env=env, stdout=subprocess.PIPE
                )
                (found,) = json.loads(built.stdout)
                path = bench.store / found["outputs"]["out"].removeprefix("/")
                told(podman.load(path))
                told(podman.run(f"localhost/{source.name}:1"))

            return _timed(bench, podman, work)

        # The flake is copied into the store once.
        in_turns(pull, load, 1)
        taken = in_turns(pull, load, bench.times)
    yield Row(
        "cold-pull",
        "cold pull of a plain archive of 200 MB, 6 layers (image not built) by podman into a running"
        " container",
        "`nix build && podman load && podman run`",
        *taken,
        mark=Mark(1.0),
    )


def _timed(bench: Bench, podman: Overlay, work: Callable[[], object]) -> float:
    bench.settle()
    taken = seconds(work)
    podman.forget()
    return taken


def measure_copy(bench: Bench) -> Iterator[Row]:
    """Measure a copy of what is there already."""
    archive = large(bench, packed=True)
    folder = bench.folder()
    copy = folder / "copy"
    name = f"packages/{archive.name}:latest"
    with (
        bench.serving(bench.flake(archive)) as running,
        peers.docker_registry(folder) as port,
    ):
        peers.give(running, archive.name, port)

        def copied(at: int) -> float:
            bench.settle()
            return skopeo_copy(at, name, copy)

        ours, theirs = partial(copied, running.port), partial(copied, port)
        in_turns(ours, theirs, 1)
        taken = in_turns(ours, theirs, 2 * bench.times)
    yield Row(
        "copy",
        "`skopeo copy` of the 1.2 GB image, warm",
        "docker-registry with the same bytes",
        *taken,
        mark=Mark(1.0),
    )
