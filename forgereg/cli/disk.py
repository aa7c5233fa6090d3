"""
Look at the state directory, and at the Nix store as a directory. Blocking; a registry
that runs does not notice.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from forgereg.assembly import open_records
from forgereg.blobs.names import files
from forgereg.cli.findings import Finding, doubtful, fine, skipped, wrong
from forgereg.config import Settings
from forgereg.flow.health import Unwell, look_at_disk
from forgereg.nix.store import store_root
from forgereg.records.database import VERSION
from forgereg.sizes import size

#: With less than this, builds may fail, in bytes.
_FEW_BYTES = 5 * 2**30
#: Source: "Database File Format" of SQLite.
_SQLITE, _VERSION_AT = b"SQLite format 3\0", 60

#: What the registry has there → whether it is a directory.
_CONTENT = {
    "lock": False,
    "registry.sqlite": False,
    "registry.sqlite-wal": False,
    "registry.sqlite-shm": False,
    "roots": True,
    "blobs": True,
    "partial": True,
    "logs": True,
}


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
            yield doubtful("store", f"{folder} has {size(free)} left", advice)
        else:
            yield fine("store", f"{folder}, {size(free)} are free")


def look_at_state(settings: Settings) -> Iterator[Finding]:
    """See that the state directory can be used, and has room."""
    folder = Path(settings.state_dir)
    if not folder.exists():
        above = next(each for each in folder.parents if each.exists())
        try:
            # Not by its permissions: /proc has the usual ones.
            free = look_at_disk(above)
        except Unwell as e:
            why = e.detail.removeprefix("the state directory ")
            yield wrong(
                "state",
                f"{folder} is not there, and {above} {why}",
                "make it, and give it to the registry's user; or set FORGE_STATE_DIR",
            )
            yield from skipped("nothing can be written there", "room")
            return
        yield fine("state", f"{folder} will be made")
        yield from _room(settings, folder, free)
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
        yield from skipped("nothing can be written there", "room", "records")
        return
    # Such as what root made there who started the registry once.
    others = [
        name
        for name, is_folder in _CONTENT.items()
        if (each := folder / name).exists()
        and (each.is_dir() != is_folder or not os.access(each, os.W_OK))
    ]
    if others:
        yield wrong(
            "state",
            f"{folder} can be written, but not {', '.join(others)} in it",
            "give all of it to the registry's user (chown -R)",
        )
    else:
        yield fine("state", f"{folder} can be written")
    yield from _room(settings, folder, free)
    is_live = is_running(folder)
    yield from _records(folder, is_live)
    if is_live:
        yield fine("registry", f"one runs in {folder}")


def _room(settings: Settings, folder: Path, free: int) -> Iterator[Finding]:
    taken = sum(found.st_size for _, found in files(folder / "blobs"))
    most = settings.blobs_size
    if most > taken + free:
        yield doubtful(
            "room",
            f"layers may take {size(most)} (FORGE_BLOBS_SIZE), and there are"
            f" {size(taken + free)}",
            "lower FORGE_BLOBS_SIZE, or give the state directory a larger disk",
        )
    else:
        yield fine("room", f"layers take {size(taken)}, {size(free)} are free")


def _records(folder: Path, is_live: bool) -> Iterator[Finding]:
    """Look at the head of the records, without SQLite, which would make files."""
    file = folder / "registry.sqlite"
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
    elif not is_live and (why := _refused(folder)):
        yield wrong("records", f"{file} cannot be opened: {why}", begin_anew)
    else:
        yield fine("records", f"{file}")


def _refused(folder: Path) -> str:
    """Open a copy of the records as the start does; give what it says, if anything."""
    with tempfile.TemporaryDirectory() as copy:
        try:
            for name in ("registry.sqlite", "registry.sqlite-wal"):
                if (folder / name).exists():
                    shutil.copyfile(folder / name, Path(copy, name))
            open_records(Path(copy)).close()
        except SQLAlchemyError as e:
            return str(e).partition("\n")[0]
        except OSError:
            pass  # there is no room for a copy: its head was well
    return ""


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


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
