"""
Encrypt stretches of a file straight to a client's socket.

Twisted's TLS hands on one record after another, and copies each of them several times;
half of the CPU time of sending a blob went there.
"""

from __future__ import annotations

import os

from attrs import frozen
from OpenSSL.SSL import Connection, Error, WantReadError
from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Server
from twisted.protocols.tls import BufferingTLSTransport

from forgereg.flow.source import Source

#: As much as a record holds, in bytes.
_RECORD = 2**14
#: How much is read and encrypted at a time, in bytes: what it becomes is no more than
#: Twisted sends at once, and than the allocator has at hand.
_PIECE = 7 * _RECORD
#: How much a client is sent before others have their turn, in bytes: a millisecond's.
_TURN = 8 * _PIECE


@frozen
class TlsWay:
    """
    A way to a client's socket beside Twisted's TLS, in order with what goes there.

    :ivar tcp: the connection.
    """

    _tls: BufferingTLSTransport
    _connection: Connection
    tcp: Server

    def settle(self) -> bool:
        """
        Hand on to the connection what was written before.

        :returns: whether that is all; else TLS waits for the client, and will resume.
        """
        self._tls._aggregator.flush()
        return not self._tls._appSendBuffer

    def copy(self, source: Source, start: int, stop: int) -> int | None:
        """
        Send some of what can be read without waiting for a disk.

        All that was written has to be settled and sent.

        :returns: how many bytes were taken; None where they have to be read.
        """
        if source.extent is None:
            return None
        fd, offset = source.extent
        stop = min(stop, start + _TURN)
        buffer = memoryview(bytearray(min(_PIECE, stop - start)))
        position, is_free = start, True
        while is_free and position < stop:
            try:
                piece = buffer[: stop - position]
                count = os.preadv(fd, [piece], offset + position, os.RWF_NOWAIT)
            except OSError:  # not cached, or a file system that cannot tell
                break
            if not count:
                break
            is_free = self._write(piece[:count])
            position += count
        return position - start or None

    def _write(self, data: memoryview) -> bool:
        """Encrypt and send; give whether more could be sent at once."""
        try:
            done = self._connection.send(data[:_RECORD])
        except Error:
            # Twisted finds out whether it waits for the client, or hangs up.
            self._flush()
            self._tls.write(bytes(data))
            return False
        try:
            self._connection.sendall(data[done:])
        except Error:
            # The first did not have to wait: this is the end, and who knows where.
            self._tls.abortConnection()
            return False
        return self._flush()

    def _flush(self) -> bool:
        """Send what is encrypted; give whether more could be sent at once."""
        is_free, limit = True, self.tcp.SEND_LIMIT
        while True:
            try:
                sealed = self._connection.bio_read(limit)
            except WantReadError:
                return is_free
            sent = self.tcp.writeSomeData(sealed) if is_free else 0
            if not isinstance(sent, int):
                sent = 0  # it is broken, which the connection finds out
            if sent < len(sealed):
                self.tcp.write(sealed[sent:])
                is_free = False
            if len(sealed) < limit:
                return is_free


def beside(transport: ITransport | None) -> TlsWay | None:
    """Give the way beside Twisted's TLS, where that is as it is known."""
    if type(transport) is not BufferingTLSTransport:
        return None
    tcp, connection = transport.transport, transport.getHandle()
    if type(tcp) is not Server or tcp.TLS or not isinstance(connection, Connection):
        return None
    # These alone are not of its interface.
    is_known = all(hasattr(transport, a) for a in ("_aggregator", "_appSendBuffer"))
    return TlsWay(transport, connection, tcp) if is_known else None
