"""
Archives to measure with. Blocking.

Layers are made of this machine's own programs, so that they pack as real ones do, or
of noise, where only their size matters.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_LARGEST = 2**21

Fill = Callable[[tarfile.TarFile, BinaryIO], None]
"""Fills a layer; the file is what the tar is written to."""


def programs() -> Iterator[Path]:
    """Give this machine's files, again and again, in an order that is always the same."""
    files = [
        Path(folder, name)
        for top in ("/usr/lib", "/usr/bin", "/usr/share")
        for folder, _, names in os.walk(top)
        for name in sorted(names)
    ]
    # None of the very large ones, so that layers are not much larger than asked for.
    files = sorted(
        f
        for f in files
        if f.is_file() and not f.is_symlink() and f.stat().st_size < _LARGEST
    )
    random.Random(1).shuffle(files)
    return itertools.cycle(files)


def of_programs(files: Iterator[Path], size: int) -> Fill:
    """Fill a layer with files until it has a size, in bytes, or a little more."""

    def fill(tar: tarfile.TarFile, out: BinaryIO) -> None:
        while out.tell() < size:
            file = next(files)
            tar.add(file, str(file).lstrip("/"))

    return fill


def of_noise(size: int) -> Fill:
    """Fill a layer with one file of that many bytes; a megabyte of it repeats."""

    def fill(tar: tarfile.TarFile, out: BinaryIO) -> None:
        tar.addfile(_member("noise", size))
        block = random.Random(size).randbytes(2**20)
        for start in range(0, size, len(block)):
            out.write(block[: size - start])
        padding = -size % tarfile.BLOCKSIZE
        out.write(bytes(padding))
        tar.offset += size + padding

    return fill


def of_busybox(tar: tarfile.TarFile, out: BinaryIO) -> None:
    """Fill a layer with what a container needs to run."""
    tar.add("/bin/busybox", "bin/busybox")


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def write_archive(
    path: Path, tag: str, fills: list[Fill], *, members: int = 0, packed: bool = False
) -> int:
    """
    Write a docker-archive.

    :param tag: that it gives its image.
    :param members: how many more it has that are no part of the image.
    :param packed: whether with gzip.
    :returns: how many bytes it has, unpacked.
    """
    plain = path.with_name(f"{path.name}.plain") if packed else path
    names, diff_ids = [], []
    with tarfile.open(plain, "w") as archive:

        def add(name: str, content: bytes) -> None:
            archive.addfile(_member(name, len(content)), io.BytesIO(content))

        for fill in fills:
            with tempfile.TemporaryFile(dir=path.parent) as layer:
                with tarfile.open(fileobj=layer, mode="w") as tar:
                    fill(tar, layer)
                layer.seek(0)
                digest = hashlib.file_digest(layer, "sha256").hexdigest()
                size = layer.seek(0, os.SEEK_END)
                layer.seek(0)
                names.append(f"{digest}/layer.tar")
                diff_ids.append(f"sha256:{digest}")
                archive.addfile(_member(names[-1], size), layer)
        for number in range(members):
            add(f"member/{number}", b"x" * 4096)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/busybox", "true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        add("config.json", json.dumps(config).encode())
        entry = {"Config": "config.json", "RepoTags": [tag], "Layers": names}
        add("manifest.json", json.dumps([entry]).encode())
    size = plain.stat().st_size
    if packed:
        with path.open("wb") as out:
            subprocess.run(["gzip", "-6", "-c", plain], stdout=out, check=True)
        plain.unlink()
    return size


def copy_flake(target: Path) -> None:
    """Copy the flake that the archives are served from."""
    shutil.copytree(Path(__file__).parent / "flake", target)
    (target / "busybox").mkdir()
    shutil.copy("/bin/busybox", target / "busybox" / "busybox")
