"""Tests for `forgereg.web.stream`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from zope.interface.verify import verifyObject

from forgereg.flow.source import FileSource
from forgereg.flow.threads import InThread
from forgereg.web.stream import CHUNK, ClientLeft, Truncated, send
from tests.deferreds import begin, no_result, result_of
from tests.doubles import Threads, at_once

DATA = os.urandom(64) * (CHUNK // 16)  # four chunks that differ everywhere


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "blob"
    path.write_bytes(DATA)
    return path


def opened(path: Path, in_thread: InThread = at_once, missing: int = 0) -> FileSource:
    """A blob in a file that lacks so many of its bytes."""
    return FileSource(path.open("rb", buffering=0), len(DATA) + missing, in_thread)


def is_closed(source: FileSource) -> bool:
    try:
        return source.extent is None
    except ValueError:
        return True


def producer_of(consumer: StringTransport) -> Any:
    assert consumer.producer is not None
    return consumer.producer


def paused_from_the_start() -> StringTransport:
    """A client that does not read until its producer is resumed."""
    consumer = StringTransport()
    register = consumer.registerProducer

    def paused(producer: Any, streaming: bool) -> None:
        register(producer, streaming)
        producer.pauseProducing()

    consumer.registerProducer = paused  # type: ignore[method-assign]
    return consumer


class Choosy(StringTransport):
    """A client that pauses its producer now and then while it is written to."""

    def __init__(self, pauses: list[bool]) -> None:
        super().__init__()
        self.pauses = iter(pauses)
        self.paused = False

    def write(self, data: bytes) -> None:
        super().write(data)
        assert self.producer is not None
        if next(self.pauses, False):
            self.paused = True
            self.producer.pauseProducing()


STRETCH = st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA))).map(
    lambda pair: (min(pair), max(pair))
)


@settings(max_examples=50)
@given(
    parts=st.lists(st.binary(max_size=9) | STRETCH, max_size=5),
    pauses=st.lists(st.booleans(), max_size=20),
)
def test_sends_what_was_asked_for(
    path: Path, parts: list[bytes | tuple[int, int]], pauses: list[bool]
) -> None:
    """Whenever the client pauses, it gets the bytes asked for, and nothing else."""
    consumer, file = Choosy(pauses), opened(path)
    sent = begin(send(file, parts, consumer))
    while consumer.paused and not sent.called:
        consumer.paused = False
        producer_of(consumer).resumeProducing()
    result_of(sent)
    wanted = [p if isinstance(p, bytes) else DATA[p[0] : p[1]] for p in parts]
    assert consumer.value() == b"".join(wanted)
    assert is_closed(file)
    assert consumer.producer is None


def test_is_a_push_producer(path: Path) -> None:
    """The consumer can pause and resume and stop, as Twisted has it."""
    consumer = paused_from_the_start()
    sent = begin(send(opened(path), [(0, 9)], consumer))
    verifyObject(IPushProducer, consumer.producer)
    assert consumer.streaming
    producer_of(consumer).resumeProducing()
    result_of(sent)


def test_waits_while_paused(path: Path) -> None:
    """No more is read from the disk than a slow client takes."""
    consumer = Choosy([True])
    sent = begin(send(opened(path), [(0, len(DATA))], consumer))
    no_result(sent)
    assert consumer.value() == DATA[:CHUNK]
    producer_of(consumer).pauseProducing()
    assert consumer.value() == DATA[:CHUNK]
    producer_of(consumer).resumeProducing()
    result_of(sent)
    assert consumer.value() == DATA


def test_nothing_to_send(path: Path) -> None:
    """An empty blob is sent, and its file is closed."""
    consumer, file = StringTransport(), opened(path)
    result_of(send(file, [(0, 0)], consumer))
    assert consumer.value() == b""
    assert is_closed(file)
    assert consumer.producer is None


def test_client_leaves(path: Path) -> None:
    """When the client hangs up, its file is closed and no more is sent."""
    consumer, file = Choosy([True]), opened(path)
    sent = begin(send(file, [(0, len(DATA))], consumer))
    producer_of(consumer).stopProducing()
    with pytest.raises(ClientLeft):
        result_of(sent)
    assert is_closed(file)
    assert consumer.value() == DATA[:CHUNK]
    assert consumer.producer is None


def test_client_has_left_before(path: Path) -> None:
    """A client that is gone before the first byte is sent nothing."""

    class Gone(StringTransport):
        def registerProducer(  # noqa: N802
            self, producer: Any, streaming: bool
        ) -> None:
            super().registerProducer(producer, streaming)
            producer.stopProducing()

    consumer, file = Gone(), opened(path)
    with pytest.raises(ClientLeft):
        result_of(send(file, [(0, 9)], consumer))
    assert is_closed(file)
    assert consumer.value() == b""


def test_cancelled_while_paused(path: Path) -> None:
    """Whoever cancels has the file closed, and a late resume does no harm."""
    consumer, file = Choosy([True]), opened(path)
    sent = begin(send(file, [(0, len(DATA))], consumer))
    producer = producer_of(consumer)
    sent.cancel()
    with pytest.raises(CancelledError):
        result_of(sent)
    assert is_closed(file)
    assert consumer.producer is None
    producer.resumeProducing()
    producer.stopProducing()


def uncached(monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    """Have the kernel say that reading would mean waiting."""

    def preadv(*args: object) -> int:
        raise error

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("error", [BlockingIOError, OSError])
def test_slow_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """What is not in memory is read in a thread, so that nobody else waits for it."""
    uncached(monkeypatch, error)
    consumer, threads = StringTransport(), Threads()
    file = opened(path, threads)
    threads.pause()
    sent = begin(send(file, [(5, len(DATA))], consumer))
    no_result(sent)
    assert consumer.value() == b""
    threads.resume()
    result_of(sent)
    assert consumer.value() == DATA[5:]
    assert set(threads.calls) == {"pread"}


def test_warm_file_needs_no_thread(path: Path) -> None:
    """What is in memory is sent at once."""
    threads = Threads()
    threads.pause()
    consumer = StringTransport()
    result_of(send(opened(path, threads), [(0, 9)], consumer))
    assert consumer.value() == DATA[:9]


def test_partly_cached(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part of a read comes back, all the bytes are sent in their order."""

    def short(read: Callable[..., int]) -> Callable[..., int]:
        def preadv(fd: int, buffers: list[bytearray], position: int, flags: int) -> int:
            small = bytearray(max(1, len(buffers[0]) // 3))
            count = read(fd, [small], position, flags)
            buffers[0][:count] = small[:count]
            return count

        return preadv

    monkeypatch.setattr(os, "preadv", short(os.preadv))
    consumer = StringTransport()
    result_of(send(opened(path), [(7, CHUNK + 9)], consumer))
    assert consumer.value() == DATA[7 : CHUNK + 9]


def test_client_leaves_while_the_disk_is_slow(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that hangs up during a read leaves no open file behind."""
    uncached(monkeypatch, BlockingIOError)
    consumer, threads = StringTransport(), Threads()
    file = opened(path, threads)
    threads.pause()
    sent = begin(send(file, [(0, 3 * CHUNK)], consumer))
    producer_of(consumer).stopProducing()
    threads.resume()
    with pytest.raises(ClientLeft):
        result_of(sent)
    assert is_closed(file)
    assert len(threads.calls) == 1


def test_cancelled_while_the_disk_is_slow(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling during a read closes the file, and what was read is dropped."""
    uncached(monkeypatch, BlockingIOError)
    consumer, threads = StringTransport(), Threads()
    file = opened(path, threads)
    threads.pause()
    sent = begin(send(file, [(0, 9)], consumer))
    sent.cancel()
    with pytest.raises(CancelledError):
        result_of(sent)
    assert is_closed(file)
    assert consumer.value() == b""


@pytest.mark.parametrize("cached", [True, False])
def test_truncated_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    """A file that is shorter than promised is an error, never a short answer."""
    if not cached:
        uncached(monkeypatch, BlockingIOError)
    consumer, file = StringTransport(), opened(path, missing=1)
    with pytest.raises(Truncated, match="^1 bytes are missing"):
        result_of(send(file, [(9, len(DATA) + 1)], consumer))
    assert consumer.value() == DATA[9:]
    assert is_closed(file)
    assert consumer.producer is None


def test_broken_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is an error, and the file is closed."""
    uncached(monkeypatch, OSError)

    def pread(*args: object) -> bytes:
        raise OSError("Input/output error")

    monkeypatch.setattr(os, "pread", pread)
    consumer, file = StringTransport(), opened(path)
    with pytest.raises(OSError, match="Input/output error"):
        result_of(send(file, [(0, 9)], consumer))
    assert is_closed(file)


def test_consumer_that_takes_no_producer(path: Path) -> None:
    """A connection that cannot be sent to leaves no open file behind."""
    consumer, file = StringTransport(), opened(path)
    consumer.registerProducer(object(), True)
    with pytest.raises(RuntimeError):
        result_of(send(file, [(0, 9)], consumer))
    assert is_closed(file)


def test_two_clients_of_one_blob(path: Path) -> None:
    """Two clients of one blob read it independently of one another."""
    one, other = StringTransport(), StringTransport()
    sent: list[Deferred[None]] = [
        begin(send(opened(path), [(0, 9)], one)),
        begin(send(opened(path), [(3, 5)], other)),
    ]
    for each in sent:
        result_of(each)
    assert (one.value(), other.value()) == (DATA[:9], DATA[3:5])
