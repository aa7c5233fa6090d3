"""Tests for `forgereg.flow.layers`: where the bytes of blobs come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forgereg.blobs.stage import Partial
from forgereg.flow import cutting
from forgereg.flow.contents import Contents
from forgereg.oci.errors import ShuttingDown
from forgereg.oci.reference import parse_digest
from tests.archives import (
    Recipe,
    build_layered_image,
    gz,
    layer_of,
    oci_archive,
    tar,
    xz,
    zst,
)
from tests.client import Connection
from tests.conftest import Log
from tests.deferreds import result_of
from tests.doubles import Part
from tests.flow.packing import (
    DATA,
    DIGEST,
    ENTRIES,
    NAME,
    RECIPE,
    SMALL,
    STEP,
    delete_blobs,
    opened,
    put,
    put_folder,
    put_script,
    received,
    url,
)
from tests.registry import Served, digest_of, files_below, files_open_below

PACKED = gz(tar(ENTRIES))
#: What has the other layer where the big one was.
OTHER = tar(build_layered_image(Recipe((layer_of(SMALL), layer_of(DATA[::-1])))))


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "STEP", STEP)


@pytest.fixture(autouse=True)
def _all_closed(tmp_path: Path, served: Served) -> Iterator[None]:
    yield
    assert files_open_below(tmp_path) == []
    assert files_below(served.state / "partial") == 0


def pull(served: Served) -> None:
    """Pull the image, and have the registry let go of what it kept of it."""
    served.pull(NAME)
    delete_blobs(served)


def until_some(served: Served, connection: Connection) -> None:
    """Let readers go on until a client has something of a body, and not all."""
    while not received(connection):
        assert served.readers.step()
    assert len(received(connection)) < len(DATA)


@pytest.mark.parametrize("pack", [gz, zst, xz])
def test_many_receive_while_it_is_unpacked(
    served: Served, pack: Callable[[bytes], bytes]
) -> None:
    """Clients share one unpacking, and receive before it is finished."""
    put(served, pack(tar(ENTRIES)))
    pull(served)
    calls = served.readers.calls
    calls.clear()
    served.readers.pause()
    first = served.begin(url())
    until_some(served, first)
    second = served.begin(url())
    assert received(second) == received(first) == DATA[: len(received(first))]
    served.readers.resume()
    assert first.answer().body == second.answer().body == DATA
    assert calls.count("_copy") == 2 + len(DATA) // STEP, "each blob once"
    assert files_below(served.state / "blobs") == 3


def test_what_comes_last_waits(served: Served) -> None:
    """A client has not all of a blob before all of it is known to be right."""
    put(served, PACKED)
    pull(served)
    served.readers.pause()
    client = served.begin(url())
    until_some(served, client)
    while served.readers.step():
        if len(received(client)) < len(DATA):
            assert len(received(client)) <= len(DATA) - STEP
    assert client.answer().body == DATA


def test_a_lie_never_completes(served: Served, log: Log) -> None:
    """An archive that changed unnoticed breaks the connection; the next one says why."""
    path = put_script(served, tar(ENTRIES))
    pull(served)
    served.scripts.parts[path] = Part(OTHER)
    broken = served.begin(url())
    assert broken.aborted and len(received(broken)) < len(DATA)
    assert "no longer holds" in log.text
    answer = served.get(url())
    assert answer.status == 422
    assert f"no longer holds {DIGEST}: it was built anew" in answer.error[1]


def test_a_small_lie_is_told_at_once(served: Served) -> None:
    """Of a layer that is known to be wrong before a byte was sent the reason is told."""
    path = put_script(served, tar(ENTRIES))
    pull(served)
    other = Recipe((layer_of(SMALL[::-1]), layer_of(DATA)))
    served.scripts.parts[path] = Part(tar(build_layered_image(other)))
    answer = served.get(url(digest_of(SMALL)))
    assert answer.status == 422 and "no longer holds" in answer.error[1]


def test_nothing_is_read_behind_the_last(served: Served) -> None:
    """What lies behind the last layer that is missing may be damaged."""
    path = put_script(served, tar(ENTRIES))
    pull(served)
    head = tar(ENTRIES).partition(b"manifest.json")[0]
    served.scripts.parts[path] = Part(head + b"damage" * 9999)
    served.pull(NAME)
    assert len(served.scripts.argvs) == 2


@pytest.mark.parametrize("size", [0, 1, STEP, STEP + 1, 2 * STEP])
def test_sizes(served: Served, size: int) -> None:
    """A layer of any size comes back, be it empty."""
    data = DATA[:size]
    put(served, gz(tar(build_layered_image(Recipe((layer_of(data),))))))
    pull(served)
    assert served.get(url(digest_of(data))).body == data
    served.pull(NAME)


def test_same_layer_twice(served: Served) -> None:
    """An image that has a layer twice is pulled, and that layer brought back once."""
    twice = Recipe((layer_of(DATA), layer_of(SMALL), layer_of(DATA)))
    put(served, gz(tar(build_layered_image(twice))))
    pull(served)
    served.pull(NAME)
    assert files_below(served.state / "blobs") == 3


def test_no_room_at_all(served: Served) -> None:
    """Many clients receive a layer that is larger than all that may be kept."""
    served.set(blobs_size=STEP)
    put(served, PACKED)
    served.pull(NAME)
    served.readers.pause()
    clients = [served.begin(url()) for _ in range(5)]
    served.readers.resume()
    assert [client.answer().body for client in clients] == [DATA] * 5
    assert not served.blobs.path(parse_digest(DIGEST)).exists()
    assert served.readers.calls.count("_scan") == 1


@pytest.mark.parametrize(
    ("ranges", "parts"),
    [
        ("bytes=5-9", [(5, 10)]),
        ("bytes=100000-", [(100000, len(DATA))]),
        ("bytes=5-9,70000-200000", [(5, 10), (70000, 200001)]),
        ("bytes=70000-200000,5-9,0-0", [(70000, 200001), (5, 10), (0, 1)]),
    ],
)
def test_stretches_without_room(
    served: Served, ranges: str, parts: list[tuple[int, int]]
) -> None:
    """Stretches of a layer that cannot be kept are the right ones, in any order."""
    served.set(blobs_size=STEP)
    put(served, PACKED)
    served.pull(NAME)
    answer = served.get(url(), [("Range", ranges)])
    assert answer.status == 206
    bodies = answer.body.split(b"\r\n\r\n")[-len(parts) :]
    for body, (start, stop) in zip(bodies, parts, strict=True):
        assert body.partition(b"\r\n--")[0] == DATA[start:stop]


def test_disk_that_fills_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of a layer whose file is lost go on receiving it, without a seam."""
    put(served, PACKED)
    pull(served)
    served.readers.pause()
    clients = [served.begin(url()) for _ in range(3)]
    until_some(served, clients[0])
    monkeypatch.setattr(Partial, "write", lambda partial, data: partial._lose())
    served.readers.resume()
    assert [client.answer().body for client in clients] == [DATA] * 3
    assert not served.blobs.path(parse_digest(DIGEST)).exists()


@pytest.mark.parametrize("blobs_size", [0, STEP], ids=["kept", "straight"])
def test_archive_deleted_while_it_is_sent(served: Served, blobs_size: int) -> None:
    """Who receives a layer gets all of it, though nix collects its archive meanwhile."""
    served.set(blobs_size=blobs_size)
    path = put(served, PACKED)
    pull(served)
    served.readers.pause()
    client = served.begin(url())
    until_some(served, client)
    served.store.real(path).unlink()
    served.readers.resume()
    assert client.answer().body == DATA
    assert served.nix.count("build") == 1


@pytest.mark.parametrize("blobs_size", [0, STEP], ids=["kept", "straight"])
@pytest.mark.parametrize("data", [PACKED, tar(ENTRIES)], ids=["packed", "plain"])
def test_archive_deleted_before(served: Served, blobs_size: int, data: bytes) -> None:
    """A layer whose archive nix has collected is built again."""
    served.set(blobs_size=blobs_size)
    path = put(served, data)
    pull(served)
    served.store.real(path).unlink()
    assert served.get(url()).body == DATA
    assert served.nix.count("build") == 2


@pytest.mark.parametrize("blobs_size", [0, STEP], ids=["kept", "straight"])
@pytest.mark.parametrize("pack", [gz, bytes], ids=["packed", "plain"])
def test_archive_replaced(
    served: Served, blobs_size: int, pack: Callable[[bytes], bytes]
) -> None:
    """Another archive in place of one is read; what it has still is served, only that."""
    served.set(blobs_size=blobs_size)
    path = put(served, pack(tar(ENTRIES)))
    pull(served)
    served.store.real(path).unlink()
    moved = Recipe((layer_of(DATA), layer_of(DATA[::-1])))
    served.store.write(path, pack(tar(build_layered_image(moved))))
    assert served.get(url()).body == DATA
    for _ in range(2):
        gone = served.get(url(digest_of(SMALL)))
        assert gone.status == 422 and "pull it by tag" in gone.error[1]
    assert served.readers.calls.count("_scan") <= 3, "it is not read at each attempt"
    assert served.nix.count("build") == 1


@pytest.mark.parametrize("blobs_size", [0, STEP], ids=["kept", "straight"])
def test_archive_that_became_plain(served: Served, blobs_size: int) -> None:
    """An archive that is not compressed any more is served as it lies."""
    served.set(blobs_size=blobs_size)
    path = put(served, PACKED)
    pull(served)
    served.store.write(path, tar(ENTRIES))
    assert served.get(url()).body == DATA
    assert files_below(served.state / "blobs") == 0


def test_plain_archive(served: Served) -> None:
    """Of an archive that is not compressed no copy is made."""
    put(served, tar(ENTRIES))
    served.pull(NAME)
    assert served.get(url(), [("Range", "bytes=7-70000")]).body == DATA[7:70001]
    assert files_below(served.state / "blobs") == 0
    assert served.readers.calls == ["_scan"]


def test_directory(served: Served) -> None:
    """Of an OCI layout in a directory no copy is made."""
    put_folder(served, oci_archive(RECIPE))
    served.pull(NAME)
    assert served.get(url()).body == DATA
    assert files_below(served.state / "blobs") == 0


def test_damaged_archive(served: Served, log: Log) -> None:
    """An archive that was damaged on the disk is named as the cause."""
    path = put(served, PACKED)
    pull(served)
    status = served.store.real(path).stat()
    served.store.write(path, PACKED[:2000])
    os.utime(served.store.real(path), ns=(status.st_atime_ns, status.st_mtime_ns))
    answer = served.get(url())
    assert answer.status == 422 and "damaged" in answer.error[1]


@pytest.mark.parametrize("blobs_size", [0, STEP], ids=["kept", "straight"])
def test_client_who_leaves(served: Served, blobs_size: int) -> None:
    """Nothing stays open for a client who has left, whenever that was."""
    served.set(blobs_size=blobs_size)
    put(served, PACKED)
    pull(served)
    for steps in range(9):
        delete_blobs(served)
        served.readers.pause()
        client = served.begin(url())
        for _ in range(steps):
            served.readers.step()
        client.hang_up()
        served.readers.resume()
        assert files_open_below(served.store.root) == []


def test_client_who_leaves_while_files_are_opened(served: Served) -> None:
    """Nothing stays open for a client who leaves before the first byte."""
    put(served, PACKED)
    pull(served)
    for blobs_size in (0, STEP):
        served.set(blobs_size=blobs_size)
        for steps in range(12):
            delete_blobs(served)
            served.threads.pause()
            blob = opened(served)
            for _ in range(steps):
                served.threads.step()
            if blob.called:
                result_of(blob).close()
            else:
                blob.addErrback(lambda _: None)
                blob.cancel()
            served.threads.resume()
            assert files_open_below(served.store.root) == []


def test_stopping(served: Served) -> None:
    """A registry that stops gives up what it unpacks, and says so."""
    put(served, PACKED)
    pull(served)
    served.readers.pause()
    blob = opened(served)
    served.assembly.parts.archives.stop()
    served.readers.resume()
    with pytest.raises(ShuttingDown, match="is shutting down"):
        result_of(blob)


def test_bugs_do_not_hang_anyone(
    served: Served, monkeypatch: pytest.MonkeyPatch, logged_failures: list[object]
) -> None:
    """Where the registry itself fails, nobody waits for ever, and the log has it."""
    put(served, PACKED)
    pull(served)

    def unpacked(*of: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(Contents, "_unpacked", unpacked)
    blob = opened(served)
    result_of(blob).close()
    assert logged_failures
    logged_failures.clear()
