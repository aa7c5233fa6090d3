"""
The first manifest of an archive that is built, against reading that archive once.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator

from benchmarks import images
from benchmarks.bench import Archive, Bench, large
from benchmarks.table import Mark, Row
from benchmarks.timing import in_turns, seconds

_WITHOUT_NIX = (
    "what the same takes for an archive with next to nothing in it, {:.2f} s of Nix,"
    " is taken off"
)


def measure(bench: Bench) -> Iterator[Row]:
    """Measure packed and plain."""
    packed = large(bench, packed=True)
    unpack = ["sh", "-c", 'igzip -dc "$1" | sha256sum', "sh", str(packed.path)]
    first = FirstManifest(bench, packed)
    ours, theirs = in_turns(first.seconds, lambda: run_seconds(unpack), bench.times)
    yield Row(
        "manifest-gz",
        "first manifest of a 1.2 GB gz archive, 10 layers, already built",
        "`igzip -dc` and `sha256sum` side by side",
        ours,
        theirs,
        mark=Mark(1.15),
        remark=_WITHOUT_NIX.format(first.nix_seconds) + ".",
    )
    faster = ["sh", "-c", 'igzip -dc "$1" | openssl dgst -sha256', "sh", unpack[-1]]
    yield Row(
        "manifest-gz-openssl",
        "the same",
        "`igzip -dc` and `openssl dgst`, which hashes with the processor's instructions",
        ours,
        statistics.median(run_seconds(faster) for _ in range(bench.times)),
    )
    plain = large(bench, packed=False)
    hash_it = ["sha256sum", str(plain.path)]
    pinned = ["taskset", "-c", "0", *hash_it]
    one = FirstManifest(bench, plain, {0})
    ours, theirs = in_turns(one.seconds, lambda: run_seconds(pinned), bench.times)
    on_one = ours / theirs
    yield Row(
        "manifest-tar",
        "the same for a plain tar, on one core",
        "`sha256sum` of it",
        ours,
        theirs,
        mark=Mark(1.15),
        remark=_WITHOUT_NIX.format(one.nix_seconds) + ".",
    )
    two = FirstManifest(bench, plain, {0, 1})
    ours, theirs = in_turns(two.seconds, lambda: run_seconds(hash_it), bench.times)
    yield Row(
        "manifest-tar-2",
        "the same on two cores",
        "`sha256sum` of it",
        ours,
        theirs,
        mark=Mark(on_one),
        remark=f"The mark is the ratio on one core. {_WITHOUT_NIX.format(two.nix_seconds)}.",
    )
    faster = ["openssl", "dgst", "-sha256", str(plain.path)]
    yield Row(
        "manifest-tar-openssl",
        "the same on two cores",
        "`openssl dgst` of it",
        ours,
        statistics.median(run_seconds(faster) for _ in range(bench.times)),
    )


def run_seconds(argv: list[str]) -> float:
    """Time a command."""
    return seconds(lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL))


class FirstManifest:
    """
    How long a new registry takes to read an archive that is in the store.

    :ivar nix_seconds: what was last taken off, as it is not for reading.
    """

    def __init__(
        self, bench: Bench, archive: Archive, cores: set[int] | None = None
    ) -> None:
        """Write the flake."""
        self._bench = bench
        self._archive = archive
        self._cores = cores
        self._small = [
            bench.archive(f"small-{n}", [images.of_noise(100 + n)]) for n in range(2)
        ]
        self._flake = bench.flake(archive, *self._small)
        self.nix_seconds = 0.0

    def seconds(self) -> float:
        """Measure once."""
        self._bench.settle()
        with self._bench.serving(self._flake, cores=self._cores) as running:

            def ask(name: str) -> float:
                path = f"/v2/packages/{name}/manifests/latest"
                took = seconds(lambda: answers.append(running.ask(path).status))
                assert answers[-1] == 200, running.logged()
                return took

            answers: list[int] = []
            ask(self._small[0].name)
            self.nix_seconds = ask(self._small[1].name)
            return ask(self._archive.name) - self.nix_seconds
