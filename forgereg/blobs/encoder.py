"""
Compress a blob for its way to a client: equal bytes give equal bytes. Blocking.

Both codings let other threads run. On one core, of a tar of ``/usr/bin`` and
``/usr/lib/python3`` (557 MB):

=======  =====  ====  =======  =====
coding   level  MB/s  smaller  given
=======  =====  ====  =======  =====
gzip     0       400   2.16 ×   185
gzip     1       399   2.44 ×   164
gzip     2       373   2.47 ×   151
gzip     3       289   2.50 ×   115
zstd     -1      377   2.26 ×   167
zstd     1       333   2.58 ×   129
zstd     2       275   2.77 ×    99
zstd     3       201   2.92 ×    69
=======  =====  ====  =======  =====

"Given" are MB/s of compressed bytes: a link of 1 Gbit/s takes 125. zlib's own level 1
reads 76 MB/s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen
from backports import zstd
from isal import isal_zlib

#: Its window in zstd, 512 KiB, is far below the 8 MiB that RFC 9659 allows.
_LEVEL = 1
#: A header and a trailer of gzip; without time or name. Source: zlib, deflateInit2.
_AS_GZIP = 31

_BEGIN: dict[str, Callable[[], Any]] = {
    "gzip": lambda: isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _AS_GZIP),
    "zstd": lambda: zstd.ZstdCompressor(level=_LEVEL),
}


@frozen(eq=False)
class Encoder:
    """
    One blob on its way.

    :ivar coding: ``gzip`` or ``zstd``.
    """

    coding: str
    _stream: Any = field(init=False, repr=False)

    @_stream.default
    def _begin(self) -> Any:
        return _BEGIN[self.coding]()

    def encode(self, data: bytes) -> bytes:
        """Give what can be sent of what came so far; often nothing."""
        return bytes(self._stream.compress(data))

    def finish(self) -> bytes:
        """Give the rest, once; nothing can be encoded after it."""
        return bytes(self._stream.flush())
