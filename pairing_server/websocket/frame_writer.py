"""Frames to a client: their heads, and the system call that those of one read share."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence

from pairing_server.relay.send_queue import Entry

# A frame's first byte: the opcode, and that it is the only one of its message.
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
# So many bytes of one batch are written at once.
BATCH_SIZE = 64 * 1024
# From that size on a message is not copied to put its head before it.
LARGE = 2048

_medium_head = struct.Struct("!BBH").pack
_large_head = struct.Struct("!BBQ").pack
# The heads of texts below LARGE, by size: nearly all that is sent.
_TEXT_HEADS = tuple(
    bytes((TEXT, size)) if size < 126 else _medium_head(TEXT, 126, size) for size in range(LARGE)
)


def _head(first: int, size: int) -> bytes:
    """The head of one final, unmasked frame with that many bytes (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((first, size))
    return _medium_head(first, 126, size) if size < 65536 else _large_head(first, 127, size)


class WriteBatch:
    """While the frames of one read are served, each connection's writes wait here and share a system call."""

    __slots__ = ("is_open", "writers")

    def __init__(self) -> None:
        self.is_open = False
        self.writers: list[FrameWriter] = []

    def end(self) -> None:
        self.is_open = False
        writers, self.writers = self.writers, []
        for writer in writers:
            writer.flush()


# One event loop reads at a time.
write_batch = WriteBatch()


class FrameWriter:
    """Writes one connection's frames while it `is_open`: until its close frame, or its end."""

    __slots__ = ("_batch", "_batch_size", "_transport", "is_open")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.is_open = True
        # Heads and messages that wait for the end of the batch.
        self._batch: list[bytes] = []
        self._batch_size = 0

    def write(self, message: bytes, binary: bool) -> None:
        """Write one message."""
        if not self.is_open:
            return
        size = len(message)
        head = _TEXT_HEADS[size] if size < LARGE and not binary else _head(BINARY if binary else TEXT, size)
        if write_batch.is_open:
            # All in one step: nearly everything that is sent goes this way.
            batch = self._batch
            if not batch:
                write_batch.writers.append(self)
            batch += (head, message)
            self._batch_size += size
            if self._batch_size >= BATCH_SIZE:
                self.flush()
        elif size < LARGE:
            self._transport.write(head + message)
        else:
            self._transport.writelines((head, message))

    def write_all(self, entries: Sequence[Entry]) -> None:
        """Write several messages in one system call."""
        parts: list[bytes] = []
        for entry in entries:
            parts += (_head(BINARY if entry.binary else TEXT, len(entry.message)), entry.message)
        self._write(b"".join(parts))

    def write_control(self, first: int, payload: bytes) -> None:
        """Write a ping, a pong or the close frame: `payload` has at most 125 bytes."""
        self._write(_head(first, len(payload)) + payload)

    def close(self, payload: bytes) -> None:
        """Write what waits and a close frame. Nothing is written behind it."""
        self.write_control(CLOSE, payload)
        self.end()

    def end(self) -> None:
        """Write what waits, and nothing behind it."""
        self.flush()
        self.is_open = False

    def _write(self, frames: bytes) -> None:
        if not self.is_open:
            return
        if not write_batch.is_open:
            self._transport.write(frames)
            return
        if not self._batch:
            write_batch.writers.append(self)
        self._batch.append(frames)
        self._batch_size += len(frames)
        if self._batch_size >= BATCH_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write what waits for the end of the batch."""
        batch, size = self._batch, self._batch_size
        if not batch:
            return
        self._batch, self._batch_size = [], 0
        if size < len(batch) * LARGE // 2:
            self._transport.write(b"".join(batch))
        else:
            self._transport.writelines(batch)

    def pending(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._batch_size + self._transport.get_write_buffer_size()

    def acknowledge_later(self) -> None:
        """Let the kernel acknowledge what the client sends later: at once costs a packet for each message.

        Linux only. The kernel returns to acknowledging at once when the client pauses.
        """
        if self.is_open and hasattr(socket, "TCP_QUICKACK"):
            connection: socket.socket = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
