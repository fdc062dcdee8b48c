"""Frames to a client: framed, gathered and written."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol

from pairing_server.relay.send_queue import Entry, SendQueue
from pairing_server.websocket.frames import acknowledge_later
from pairing_server.websocket.takeover import Listener

# A frame's first byte: the opcode, and that it is the only one of its message.
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
# What is gathered for one system call.
GATHERED = 64 * 1024
# From that size on a message is not copied to put its head before it.
LARGE = 2048

_medium_head = struct.Struct("!BBH").pack
_large_head = struct.Struct("!BBQ").pack
# The heads of texts below LARGE, by size: nearly all that is sent.
_TEXT_HEADS = tuple(
    bytes((TEXT, size)) if size < 126 else _medium_head(TEXT, 126, size) for size in range(LARGE)
)


def head_of(first: int, size: int) -> bytes:
    """The head of one final, unmasked frame with that many bytes (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((first, size))
    return _medium_head(first, 126, size) if size < 65536 else _large_head(first, 127, size)


def frame_of(first: int, payload: bytes) -> bytes:
    """One final, unmasked frame."""
    size = len(payload)
    if 126 <= size < 65536:
        # Nearly all of them.
        return _medium_head(first, 126, size) + payload
    return head_of(first, size) + payload


class Gathering:
    """While several frames of one read are served, what is written meanwhile shares a system call."""

    __slots__ = ("connections", "on")

    def __init__(self) -> None:
        self.on = False
        self.connections: list[Sending] = []

    def end(self) -> None:
        """Write what was gathered, and gather no more."""
        self.on = False
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.flush()


gathering = Gathering()


class Sending(Listener, WebSocketProtocol):
    """The half of a connection's protocol that sends (relay.send_queue.Transport)."""

    # They are found faster than in an ordinary instance, and there are many of them.
    __slots__ = (
        "_gathered",
        "_gathered_size",
        "_out",
        "_paused",
        "client_terminated",
        "send_queue",
        "server_terminated",
    )

    def __init__(self, handler: WebSocketHandler) -> None:
        WebSocketProtocol.__init__(self, handler)
        self.send_queue: SendQueue | None = None
        # The event loop's transport, while there is one.
        self._out: Any = None
        self._paused = False
        # Parts of frames, in order.
        self._gathered: list[bytes] = []
        self._gathered_size = 0

    def write(self, message: bytes, binary: bool) -> None:
        """Send one message."""
        if self._out is None or self.server_terminated:
            return
        size = len(message)
        # All in one step: nearly everything that is sent goes this way.
        head = _TEXT_HEADS[size] if size < LARGE and not binary else head_of(BINARY if binary else TEXT, size)
        if gathering.on:
            gathered = self._gathered
            if not gathered:
                gathering.connections.append(self)
            gathered += (head, message)
            self._gathered_size += size
            if self._gathered_size >= GATHERED:
                self._write_gathered()
        elif size < LARGE:
            self._out.write(head + message)
        else:
            self._out.writelines((head, message))

    def write_all(self, entries: Sequence[Entry]) -> None:
        """Send several in one system call."""
        frames = (frame_of(BINARY if entry.binary else TEXT, entry.message) for entry in entries)
        self._write(b"".join(frames))

    def _write(self, *parts: bytes) -> None:
        """Write a frame. Nothing is written behind a close frame."""
        if self._out is None or self.server_terminated:
            return
        if not gathering.on:
            self._out.writelines(parts)
            return
        if not self._gathered:
            gathering.connections.append(self)
        self._gathered.extend(parts)
        self._gathered_size += sum(map(len, parts))
        if self._gathered_size >= GATHERED:
            self._write_gathered()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._gathered:
            self._write_gathered()

    def _write_gathered(self) -> None:
        gathered, size = self._gathered, self._gathered_size
        self._gathered, self._gathered_size = [], 0
        if self._out is None:
            return
        if size < len(gathered) * LARGE // 2:
            self._out.write(b"".join(gathered))
        else:
            self._out.writelines(gathered)

    def pending(self) -> int:
        """Bytes that the kernel has not taken yet."""
        if self._out is None:
            return 0
        return self._gathered_size + int(self._out.get_write_buffer_size())

    def busy(self) -> None:
        """The client sends one message after the other (relay.send_queue.Transport)."""
        if self._out is not None:
            acknowledge_later(self._out.get_extra_info("socket"))

    def write_message(
        self, message: str | bytes | dict[str, Any], binary: bool = False
    ) -> asyncio.Future[None]:
        """Tornado's way to send; the server itself uses `write`."""
        if self.client_terminated or self.server_terminated:
            raise WebSocketClosedError
        data = message.encode() if isinstance(message, str) else bytes(message)  # type: ignore[arg-type]
        self._write(frame_of(BINARY if binary else TEXT, data))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def pause_writing(self) -> None:
        self._paused = True
        if self.send_queue is not None:
            self.send_queue.stalled()

    def resume_writing(self) -> None:
        self._paused = False
        if self.send_queue is not None:
            self.send_queue.drained()
