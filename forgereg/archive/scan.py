"""
From an archive, of whatever kind, to its images. Blocking: for a thread.

What lies there unpacked is read where that is needed, and nothing is written. What is
packed, or comes from a pipe, is read once, forwards, and its blobs are written while it
goes by, as far as there is room.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from forgereg.archive.forward import Partial, Pass, Stage
from forgereg.archive.layout import read_layout
from forgereg.archive.members import Limits
from forgereg.archive.readahead import ReadAhead
from forgereg.archive.reading import Reading
from forgereg.archive.seekable import Directory, PlainTar
from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.archive.unpack import BROKEN, OPENERS
from forgereg.oci.errors import ArchiveInvalid

__all__ = ["Partial", "Stage", "scan", "scan_stream"]


def _ignore() -> None:
    pass


def scan(
    archive: Path,
    stage: Stage,
    max_bytes: int,
    platform: str,
    stopping: Callable[[], bool],
    open_below: Callable[[str], BinaryIO],
) -> Reading:
    """
    Read an archive, check it, and keep those blobs that have to be unpacked.

    :param stage: left by the caller, whatever happens.
    :param max_bytes: of the archive when it is unpacked.
    :param platform: what is served to clients that cannot choose among several, such
        as ``linux/amd64``.
    :param stopping: whether to give up; asked often, by several threads.
    :param open_below: opens a file of the archive, by its relative name, where the
        archive is a directory; it follows links no further than it should.
    :raises ArchiveInvalid: it is broken, hostile, or no image; nothing was kept.
    :raises ShuttingDown: it was given up.
    :raises FileNotFoundError: it is gone.
    """
    limits = Limits(max_bytes, stopping)
    if archive.is_dir():
        return _scan_directory(archive, Directory(limits, open_below), platform)
    with archive.open("rb") as file:
        kind = sniff(file.read(HEAD_BYTES))
        file.seek(0)
        with _told():
            if kind is Kind.TAR:
                members = PlainTar(limits, file)
                members.read()
                return read_layout(members, platform)
            if kind in OPENERS:
                return _scan_forward(OPENERS[kind](file), stage, limits, platform)
    advice = (
        "it would be run if its file were executable"
        if kind in (Kind.SCRIPT, Kind.PROGRAM)
        else "a docker-archive or an OCI layout is wanted"
    )
    raise ArchiveInvalid(f"the image is {kind.value}: {advice}")


def scan_stream(
    file: BinaryIO,
    stage: Stage,
    max_bytes: int,
    platform: str,
    stopping: Callable[[], bool],
    abandon: Callable[[], object] = _ignore,
) -> Reading:
    """
    Read a tar archive out of a pipe, to its end; else as `scan`.

    :param file: its reads may be short.
    :param abandon: ends a read that hangs, as nothing more is wanted; from any thread.
    """
    with _told():
        limits = Limits(max_bytes, stopping)
        return _scan_forward(file, stage, limits, platform, abandon)


def _scan_forward(
    file: BinaryIO,
    stage: Stage,
    limits: Limits,
    platform: str,
    abandon: Callable[[], object] = _ignore,
) -> Reading:
    passing = Pass(stage, limits)
    with ReadAhead(file, abandon) as ahead:
        passed = passing.read(ahead)
    reading = read_layout(passed, platform)
    passing.keep(reading)
    return reading


def _scan_directory(folder: Path, members: Directory, platform: str) -> Reading:
    if members.find("index.json"):
        with _told():
            return read_layout(members, platform)
    names = {entry.name for entry in folder.iterdir()}
    wanted = "an OCI layout or a docker-archive is wanted"
    if not names:
        raise ArchiveInvalid(f"the image is an empty directory: {wanted}")
    if {"config.json", "rootfs"} <= names:
        kind = "a runtime bundle (config.json and rootfs)"
    elif {"manifest.json", "version"} <= names:
        kind = "what skopeo calls dir:, a directory without tags"
    elif "manifest.json" in names:
        kind = "a docker-archive that is unpacked: pack it with tar"
    else:
        kind = "a directory without index.json"
    raise ArchiveInvalid(f"the image is {kind}; {wanted}")


@contextmanager
def _told() -> Iterator[None]:
    """Say what is wrong with an archive, whatever found it."""
    try:
        yield
    except BROKEN as e:
        raise ArchiveInvalid(f"the archive is damaged: {e}") from e
    except (tarfile.TarError, ValueError, OverflowError, IndexError) as e:
        raise ArchiveInvalid(f"the archive is not a tar archive: {e}") from e
