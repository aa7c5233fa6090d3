"""
What the registry is given to stand on: a directory, nix, threads, clocks, names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from forgereg.blobs.store import BlobStore
from forgereg.flow.threads import InThread
from forgereg.logs import Recent
from forgereg.metrics import Metrics
from forgereg.nix.build import Run
from forgereg.nix.stream import RunStream
from forgereg.traces import NoTraces, Tracer


@define
class Machine:
    """
    What the registry stands on.

    :ivar state: its directory.
    :ivar env: what nix runs with.
    :ivar now: gives seconds since the epoch.
    :ivar new_id: gives names for builds and incidents, each time another one.
    :ivar in_thread: where disk and records are waited for.
    :ivar in_reader: where archives are read: as many at a time as there are cores.
    :ivar in_script: where what scripts write is waited for: they may take for ever.
    :ivar recent: the last warnings and errors.
    :ivar version: the registry's own.
    :ivar nix_version: as nix says it.
    :ivar tracer: keeps traces.
    """

    state: Path
    blobs: BlobStore
    run: Run
    run_stream: RunStream
    env: Mapping[str, str] = field(repr=False)
    clock: IReactorTime
    now: Callable[[], float]
    new_id: Callable[[], str]
    in_thread: InThread
    in_reader: InThread
    in_script: InThread
    metrics: Metrics = field(factory=Metrics)
    recent: Recent = field(factory=Recent)
    version: str = ""
    nix_version: str = ""
    tracer: Tracer = field(factory=NoTraces)
