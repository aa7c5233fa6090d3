"""
Blobs compressed for their way to clients: each form is made once, while it is sent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

from attrs import define, field
from cachetools import LRUCache
from twisted.internet.defer import Deferred

from forgereg.archive.sniff import HEAD_BYTES, Kind, sniff
from forgereg.blobs.encoder import Encoder
from forgereg.blobs.stage import Partial
from forgereg.blobs.store import BlobStore
from forgereg.flow.failures import Failures
from forgereg.flow.growing import Followed, Growing
from forgereg.flow.source import FileSource, Source
from forgereg.flow.threads import InThread, or_drop
from forgereg.logs import logger
from forgereg.metrics import Cache, Metrics
from forgereg.oci.errors import ArchiveInvalid, DiskFull, RegistryError
from forgereg.oci.reference import Digest
from forgereg.records.records import KnownBlob

_log = logger(__name__)

#: How much is compressed at a time, in bytes.
_STEP = 2**20
#: Below this, in bytes, a layer or configuration fits into a packet or two anyway.
_WORTH_BYTES = 1024
_PACKED = (Kind.GZIP, Kind.ZSTD, Kind.XZ)
#: How many blobs are known not to get smaller.
_MOST = 10_000

#: Opens the plain bytes.
Plain = Callable[[], Coroutine[Any, Any, tuple[KnownBlob, Source]]]


@define(eq=False)
class Encodings:
    """
    The encoded forms of blobs, beside them in the blob store.

    :ivar in_reader: where they are made: as many at a time as there are cores.
    """

    _blobs: BlobStore
    _failures: Failures
    _in_thread: InThread
    _in_reader: InThread
    _metrics: Metrics = field(factory=Metrics)
    _on_disk: Cache = field(init=False)
    _growing: dict[tuple[Digest, str], Growing] = field(init=False, factory=dict)
    _useless: LRUCache[tuple[Digest, str], bool] = field(
        init=False, factory=lambda: LRUCache(_MOST)
    )

    def __attrs_post_init__(self) -> None:
        self._on_disk = self._metrics.cache("encoding")

    async def open(self, digest: Digest, coding: str, plain: Plain) -> Source | None:
        """
        Give a blob in a coding: whole, or as it is made.

        :param coding: ``gzip`` or ``zstd``.
        :returns: None where it is better sent as it is.
        :raises RegistryError: it cannot be had in any form.
        """
        key = digest, coding
        if key in self._useless or ("encoding", key) in self._failures:
            return None
        growing = self._growing.get(key)
        if growing is None:
            opened = self._in_thread(self._blobs.open, digest, None, coding)
            file = await or_drop(opened, lambda each: each.close() if each else None)
            if file is not None:
                self._on_disk.count(True)
                return FileSource(file, file.seek(0, 2), self._in_thread)
            growing = self._growing.get(key)
        self._on_disk.count(growing is not None)
        if growing is not None:
            followed = Followed(growing)
        else:
            growing = self._growing[key] = Growing()
            followed = Followed(growing)
            running = Deferred.fromCoroutine(self._run(key, growing, plain))
            running.addErrback(lambda f: _log.failure("a blob was not encoded", f))
        error = await followed.begun()
        if error is None and growing.written:
            return followed
        followed.close()
        return None

    async def _run(
        self, key: tuple[Digest, str], growing: Growing, plain: Plain
    ) -> None:
        error: RegistryError | None = ArchiveInvalid(f"{key[0]} was not encoded")
        stack = ExitStack()
        source: Source | None = None
        try:
            known, source = await plain()
            head = await _some(source, 0, min(_STEP, known.size))
            if known.size < _WORTH_BYTES or sniff(head[:HEAD_BYTES]) in _PACKED:
                self._useless[key] = True
            else:
                stage = await self._in_thread(stack.enter_context, self._blobs.stage())
                partial = await self._in_thread(stage.partial, known.size)
                await self._encode(key, growing, known, source, head, partial)
            error = None
        except RegistryError as e:
            self._failures.remember(("encoding", key), e)
            error = e
        finally:
            del self._growing[key]
            growing.finish(error)
            if source is not None:
                source.close()
            await self._in_thread(stack.close)

    async def _encode(
        self,
        key: tuple[Digest, str],
        growing: Growing,
        known: KnownBlob,
        source: Source,
        data: bytes,
        partial: Partial,
    ) -> None:
        """
        Write the encoded form.

        :param data: what was read of the source already.
        """
        digest, coding = key
        no_room = DiskFull(f"there is no room for {digest} as {coding}")
        reader = await self._in_thread(partial.reader)
        if reader is None:
            raise no_room
        # It may turn out larger than what it is made of.
        growing.begin(FileSource(reader, sys.maxsize, self._in_thread))
        encoder = Encoder(coding)
        position = written = 0
        while data:
            position += len(data)
            is_last = position == known.size
            written += await self._in_reader(_write, encoder, data, is_last, partial)
            if partial.is_lost:
                raise no_room
            growing.advance(written)
            data = await _some(source, position, min(_STEP, known.size - position))
        if position < known.size:
            raise ArchiveInvalid(f"{digest} ends too soon")
        if written < known.size:
            await self._in_thread(partial.keep, digest, coding)
        else:
            self._useless[key] = True


async def _some(source: Source, position: int, size: int) -> bytes:
    if not size:
        return b""
    return source.peek(position, size) or await source.read(position, size)


def _write(encoder: Encoder, data: bytes, is_last: bool, partial: Partial) -> int:
    """Blocking."""
    encoded = encoder.encode(data) + (encoder.finish() if is_last else b"")
    partial.write(encoded)
    return len(encoded)
