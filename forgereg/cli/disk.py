"""
Look at the state directory, and at the Nix store as a directory. Blocking; a registry
that runs does not notice.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from forgereg.blobs.names import files
from forgereg.cli.findings import Finding, doubtful, fine, wrong
from forgereg.config import Settings
from forgereg.flow.health import Unwell, look_at_disk
from forgereg.nix.store import store_root
from forgereg.records.database import VERSION

#: With less than this, builds may fail, in bytes.
_FEW_BYTES = 5 * 10**9
#: Source: "Database File Format" of SQLite.
_SQLITE, _VERSION_AT = b"SQLite format 3\0", 60


def look_at_store(settings: Settings) -> Iterator[Finding]:
    """See that what nix builds can be read, and has room."""
    folder = store_root(settings.store) / "nix/store"
    if not folder.is_dir():
        # Nix makes it at the first build.
        yield doubtful(
            "store", f"{folder} is not there", "see that FORGE_STORE is right"
        )
    elif not os.access(folder, os.R_OK | os.X_OK):
        yield wrong(
            "store", f"{folder} cannot be read", "let the registry's user read it"
        )
    else:
        free = _free_bytes(folder)
        if free < _FEW_BYTES:
            advice = "make room, as with nix-collect-garbage"
            yield doubtful("store", f"{folder} has {_gb(free)} left", advice)
        else:
            yield fine("store", f"{folder}, {_gb(free)} are free")


def look_at_state(settings: Settings) -> Iterator[Finding]:
    """See that the state directory can be used, and has room."""
    folder = Path(settings.state_dir)
    if not folder.exists():
        above = next(each for each in folder.parents if each.exists())
        if os.access(above, os.W_OK | os.X_OK):
            yield fine("state", f"{folder} will be made")
            free = _free_bytes(above)
            yield from _room(settings, folder, free)
        else:
            yield wrong(
                "state",
                f"{folder} is not there, and {above} cannot be written",
                "make it, and give it to the registry's user; or set FORGE_STATE_DIR",
            )
        return
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        names = _user(owner), _user(os.geteuid())
        yield doubtful(
            "state",
            f"{folder} belongs to {names[0]}, and you are {names[1]}",
            f"run the doctor as the registry's user: sudo -u {names[0]} …",
        )
    try:
        free = look_at_disk(folder)
    except Unwell as e:
        advice = "make room, or give it to the registry's user (chown)"
        yield wrong("state", f"{folder}: {e.detail}", advice)
        return
    yield fine("state", f"{folder} can be written")
    yield from _room(settings, folder, free)
    yield from _records(folder / "registry.sqlite")
    if is_running(folder):
        yield fine("registry", f"one runs in {folder}")


def _room(settings: Settings, folder: Path, free: int) -> Iterator[Finding]:
    taken = sum(found.st_size for _, found in files(folder / "blobs"))
    most = settings.blobs_size
    if most > taken + free:
        yield doubtful(
            "room",
            f"layers may take {_gb(most)} (FORGE_BLOBS_SIZE), and there are"
            f" {_gb(taken + free)}",
            "lower FORGE_BLOBS_SIZE, or give the state directory a larger disk",
        )
    else:
        yield fine("room", f"layers take {_gb(taken)}, {_gb(free)} are free")


def _records(file: Path) -> Iterator[Finding]:
    """Look at the head of the records, without SQLite, which would make files."""
    try:
        with file.open("rb") as opened:
            head = opened.read(100)
    except FileNotFoundError:
        return
    except OSError as e:
        advice = "let the registry's user read and write it"
        yield wrong("records", f"{file} cannot be read: {e.strerror}", advice)
        return
    begin_anew = "move it away, with -wal and -shm, and the registry begins anew"
    found = int.from_bytes(head[_VERSION_AT : _VERSION_AT + 4], "big")
    if head and not head.startswith(_SQLITE):
        yield wrong("records", f"{file} is damaged", begin_anew)
    elif found not in (0, VERSION):  # the newest may be in its -wal alone
        yield wrong("records", f"{file} is of another version", begin_anew)
    else:
        yield fine("records", f"{file}")


def is_running(folder: Path) -> bool:
    """Say whether a registry runs in a directory, without trying to take its lock."""
    try:
        inode = (folder / "lock").stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    # Source: proc_locks(5): a lock, its kind, …, major:minor:inode, and the bytes.
    held = [words for line in locks if "FLOCK" in (words := line.split())]
    return any(words[-3].rpartition(":")[2] == str(inode) for words in held)


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
