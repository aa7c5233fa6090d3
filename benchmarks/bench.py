"""
Where the measuring is done: images in a Nix store, and registries to start.

::

    <tmp>/store/…     a Nix store of its own, with the archives
    <tmp>/<n>/        a registry, a peer or a client
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

from benchmarks import images
from benchmarks.images import Fill
from tests import daemon
from tests.daemon import Daemon


@frozen
class Archive:
    """
    An archive in the store.

    :ivar path: of the file, from outside the store.
    :ivar sha256: of it.
    :ivar size: in bytes, unpacked.
    """

    name: str
    path: Path
    sha256: str
    size: int


@define
class Bench:
    """
    A place to measure in.

    :ivar is_quick: whether all is to be a tenth of its size, and done less often.
    """

    tmp: Path
    is_quick: bool
    _archives: dict[str, Archive] = field(init=False, factory=dict)
    _numbers: Iterator[int] = field(init=False, factory=itertools.count)

    @property
    def times(self) -> int:
        """How often each thing is measured."""
        return 1 if self.is_quick else 3

    @property
    def megabyte(self) -> int:
        """What a megabyte of an image is made of, in bytes."""
        return 2**20 // 10 if self.is_quick else 2**20

    @property
    def store(self) -> Path:
        """The Nix store's root."""
        return self.tmp / "store"

    def folder(self) -> Path:
        """Make a new folder."""
        path = self.tmp / str(next(self._numbers))
        path.mkdir()
        return path

    def say(self, text: str) -> None:
        """Tell who waits what is being done."""
        print(text, file=sys.stderr, flush=True)

    def archive(
        self, name: str, fills: list[Fill], *, members: int = 0, packed: bool = False
    ) -> Archive:
        """
        Put an archive into the store, unless it is there.

        :param fills: its layers.
        :param members: how many more it has that are no part of the image.
        :param packed: whether with gzip.
        """
        if name not in self._archives:
            self.say(f"  making {name}")
            folder = self.folder()
            made = folder / name
            size = images.write_archive(
                made, f"localhost/{name}:1", fills, members=members, packed=packed
            )
            self._archives[name] = self._keep(made, size)
            shutil.rmtree(folder)
        return self._archives[name]

    def forget(self, archive: Archive) -> None:
        """Delete an archive."""
        del self._archives[archive.name]
        path = f"/nix/store/{archive.path.name}"
        self._nix_store("--delete", path)

    def _keep(self, made: Path, size: int) -> Archive:
        path = self._nix_store("--add-fixed", "sha256", str(made)).strip()
        inside = self.store / path.removeprefix("/")
        with inside.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Archive(made.name, inside, sha256, size)

    def _nix_store(self, *args: str) -> str:
        return subprocess.run(
            ["nix-store", "--store", str(self.store), *args],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=daemon.environment(),
        ).stdout

    def flake(self, *archives: Archive, built: dict[str, str] | None = None) -> str:
        """
        Write a flake with a package for each archive.

        :param built: more packages, by what archive nix is to copy for them.
        :returns: flake ref.
        """
        target = self.folder() / "flake"
        images.copy_flake(target)
        given = {
            "system": f"{platform.machine()}-linux",
            "fixed": {archive.name: archive.sha256 for archive in archives},
            "built": built or {},
        }
        (target / "given.json").write_text(json.dumps(given))
        return f"path:{target}"

    @contextlib.contextmanager
    def serving(
        self,
        reference: str,
        *options: str,
        cores: set[int] | None = None,
        port: int | None = None,
        folder: Path | None = None,
        **env: str,
    ) -> Iterator[Daemon]:
        """
        Run a registry that has never pulled anything, until the block is left.

        :param reference: of its flake.
        :param cores: those that it runs on; None for all.
        :param folder: where its state is, if it is to be kept.
        """
        tmp = folder or self.folder()
        options = ("--store", str(self.store), "--log-level", "info", *options)
        with daemon.registry(
            tmp, reference, *options, port=port, listener=None, twistd=(), **env
        ) as running:
            if cores is not None:
                for task in Path(f"/proc/{running.pid}/task").iterdir():
                    os.sched_setaffinity(int(task.name), cores)
            try:
                yield running
            except Exception:
                self.say(running.logged()[-2000:])
                raise
        if folder is None:
            shutil.rmtree(tmp)

    def settle(self) -> None:
        """Have all that was written on the disk, so that it costs nobody later."""
        os.sync()

    def close(self) -> None:
        """Delete everything."""
        subprocess.run(["chmod", "-R", "u+w", self.tmp], check=False)
        shutil.rmtree(self.tmp, ignore_errors=True)


def large(bench: Bench, *, packed: bool) -> Archive:
    """Give the archive of ten layers that has 1.2 GB."""
    files = images.programs()
    layers = [images.of_programs(files, 120 * bench.megabyte) for _ in range(10)]
    return bench.archive("large-gz" if packed else "large", layers, packed=packed)


def single(bench: Bench) -> Archive:
    """Give the plain archive of one layer that has a GB."""
    return bench.archive("single", [images.of_noise(1024 * bench.megabyte)])


def warm_layer(running: Daemon, archive: Archive, number: int = 0) -> str:
    """Pull an image's manifest; give the path of the URL of one of its layers."""
    name = f"/v2/packages/{archive.name}"
    layers = running.ask(f"{name}/manifests/latest").json["layers"]
    return f"{name}/blobs/{layers[number]['digest']}"
