"""
Layers over a slow link: coded against plain.

The link is a pair of virtual interfaces, one of them in a network namespace, which the
kernel's token bucket lets no more through than is said. There is no delay: kernels
without netem cannot make one, and a layer is long enough for it not to matter.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from attrs import frozen

from benchmarks import images
from benchmarks.bench import Bench, warm_layer
from benchmarks.clients import Fetched, curl
from benchmarks.table import Row
from benchmarks.timing import in_turns

#: Bits in a second, as tc has it, and how many bytes may go at once.
LINKS = (("50 Mbit/s", "50mbit", "64kb"), ("1 Gbit/s", "1gbit", "1mb"))
CODINGS = ("gzip", "zstd")
_NAME = "forge-bench"
#: Of the benchmarking range. Source: RFC 2544, C.2.2.
_HERE, _THERE = "198.18.77.1", "198.18.77.2"


@frozen
class Link:
    """A way from a namespace to this machine, and how to make it slow."""

    namespace: str

    def shape(self, rate: str, burst: str) -> None:
        """Let no more through towards the namespace."""
        _ip(
            "tc", "qdisc", "replace", "dev", "bench0", "root", "tbf",
            "rate", rate, "burst", burst, "latency", "50ms",
        )  # fmt: skip

    def curl(self, url: str, *options: str) -> Fetched:
        """Fetch from inside the namespace."""
        return curl(url, *options, before=("ip", "netns", "exec", self.namespace))


@contextlib.contextmanager
def linked() -> Iterator[Link]:
    """Make a link for as long as the block is entered."""
    # What a run that was killed has left; the interfaces go with it.
    subprocess.run(["ip", "netns", "delete", _NAME], stderr=subprocess.DEVNULL)
    with contextlib.ExitStack() as undo:
        _ip("ip", "netns", "add", _NAME)
        undo.callback(_ip, "ip", "netns", "delete", _NAME)
        _ip("ip", "link", "add", "bench0", "type", "veth", "peer", "bench1")
        undo.callback(_ip, "ip", "link", "delete", "bench0")
        _ip("ip", "link", "set", "bench1", "netns", _NAME)
        _ip("ip", "address", "add", f"{_HERE}/30", "dev", "bench0")
        _ip("ip", "link", "set", "bench0", "up")
        inside = ("ip", "-n", _NAME)
        _ip(*inside, "address", "add", f"{_THERE}/30", "dev", "bench1")
        _ip(*inside, "link", "set", "bench1", "up")
        yield Link(_NAME)


def _ip(*argv: str) -> None:
    subprocess.run(argv, check=True)


def measure(bench: Bench) -> Iterator[Row]:
    """Measure each coding over each link, made for the first time and again."""
    fill = images.of_programs(images.programs(), 40 * bench.megabyte)
    archive = bench.archive("layer", [fill])
    options = ("--host", "0.0.0.0")
    flake = bench.flake(archive)
    with linked() as link:
        for speed, rate, burst in LINKS:
            link.shape(rate, burst)
            for coding in CODINGS:
                with bench.serving(
                    flake, *options, FORGE_TRANSFER_CODING="always"
                ) as running:
                    path = warm_layer(running, archive)
                    url = f"http://{_HERE}:{running.port}{path}"
                    what, key = f"{speed}, {coding}", f"coding-{rate}-{coding}"
                    yield from _compare(bench, link, url, what, key, coding)


def _compare(
    bench: Bench, link: Link, url: str, what: str, key: str, coding: str
) -> Iterator[Row]:
    # Which is decoded by curl, and so paid for.
    offer = ("--compressed", "-H", f"Accept-Encoding: {coding}")
    first = link.curl(url, *offer)
    plain = link.curl(url)
    work = f"a layer of {plain.size / 1e6:.0f} MB over {what}"
    if first.size >= plain.size:
        why = "The registry sent it plain."
        yield Row(key, work, "plain", None, plain.seconds, remark=why)
        return
    again, theirs = in_turns(
        lambda: link.curl(url, *offer).seconds,
        lambda: link.curl(url).seconds,
        bench.times,
    )
    yield Row(
        f"{key}-first", f"{work}, coded as it goes", "plain", first.seconds, theirs,
        remark=f"{first.size / 1e6:.0f} MB travelled.",
    )  # fmt: skip
    yield Row(key, f"{work}, coded before", "plain", again, theirs)
