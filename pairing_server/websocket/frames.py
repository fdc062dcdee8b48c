"""How frames become messages, below the handlers: which engine does it, and Tornado's own as one of the two.

`compiled` (websocket/engine.py) is the fast one; `tornado` serves where picows is not installed. Both keep the
same rules and count what never reaches `on_message`: empty fragments, pings.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence

from tornado.iostream import StreamClosedError
from tornado.util import _websocket_mask
from tornado.websocket import (
    WebSocketHandler,
    WebSocketProtocol,
    WebSocketProtocol13,
    _WebSocketParams,
)

from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.limits import RelayLimits, TokenBucket
from pairing_server.relay.send_queue import Entry, Outbox

# Linux would grow the kernel's buffers to megabytes: that for sending hides a slow client and ages its audio, and what
# comes in at once from the other has to be held by this process, too.
SEND_BUFFER = 128 * 1024
RECEIVE_BUFFER = 64 * 1024
# The closing handshake: how long the client may take to answer our close frame. Tornado's own number.
CLOSE_TIMEOUT = 5.0

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset((_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG))
_FINAL, _RESERVED, _CONTROL, _MASKED = 0x80, 0x70, 0x08, 0x80

Engine = Callable[
    [WebSocketHandler, RelayLimits, Callable[[], float], Callable[[str], None]], WebSocketProtocol
]


def valid_close_code(code: int) -> bool:
    """Whether a client may send that close code (RFC 6455, section 7.4)."""
    return code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code < 5000


def engine_of(choice: str) -> Engine:
    """The engine for PAIRING_FRAME_ENGINE: "auto" is the compiled one where it is installed.

    Raises ImportError if "compiled" is asked for and picows is not installed.
    """
    if choice == "tornado":
        return CountingProtocol
    try:
        from pairing_server.websocket.engine import CompiledProtocol
    except ImportError:
        if choice == "compiled":
            raise
        return CountingProtocol
    return CompiledProtocol


def acknowledge_later(connection: socket.socket | None) -> None:
    """Do not tell a client that sends one message after the other of each at once: that costs a packet each.

    Linux only. The kernel itself goes back to telling at once when the client pauses.
    """
    if connection is not None and hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


class Broken(Exception):
    """The client breaks the protocol: what to close with."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class CountingProtocol(WebSocketProtocol13):
    """Tornado's protocol, strict; `on_abuse` is called once with "frames", "pings" or "fragments" too many.

    Frames are read here and not by Tornado, which takes unmasked frames and any close code, and drops the
    connection without a close frame where RFC 6455 names a code for it.
    """

    def __init__(
        self,
        handler: WebSocketHandler,
        limits: RelayLimits,
        now: Callable[[], float],
        on_abuse: Callable[[str], None],
    ) -> None:
        params = _WebSocketParams(limits.ping_interval, limits.ping_timeout, limits.frame_size, None)
        super().__init__(handler, False, params)
        self._limits = limits
        self._now = now
        self._on_abuse = on_abuse
        started = now()
        # A burst of two seconds: a message burst and its audio together are no flood.
        self._frames = TokenBucket(limits.frame_rate, 2 * limits.frame_rate, started)
        self._pings = TokenBucket(limits.ping_count / limits.ping_seconds, limits.ping_count, started)
        # The message that is being joined.
        self._joined: bytearray | None = None
        self._joined_opcode = 0
        self._fragments = 0
        self.outbox: Outbox | None = None

    async def _accept_connection(self, handler: WebSocketHandler) -> None:
        connection = handler.request.connection
        stream = getattr(connection, "stream", None)
        if stream is not None:
            stream.set_nodelay(True)
            bound_buffers(stream.socket)
        await super()._accept_connection(handler)

    # From the client

    async def _receive_frame(self) -> None:
        """Read one frame and do what it says. Tornado calls it until `client_terminated`."""
        try:
            handled = await self._frame()
        except Broken as broken:
            self.client_terminated = True
            self.close(broken.code, broken.reason)
        else:
            if handled is not None:
                await handled

    async def _frame(self) -> asyncio.Future[None] | None:
        """What is to be awaited before the next frame is read. Raises Broken."""
        first, second = await self._read_bytes(2)
        opcode, final = first & 0x0F, bool(first & _FINAL)
        _check(first, second)
        size, mask = await self._size_and_mask(second & 0x7F)
        data = _websocket_mask(mask, await self._read_bytes(size)) if size else b""
        if self._frames.take(self._now()):
            self._abuse("frames")
        elif opcode == _CLOSE:
            self._close_received(data)
        elif self.server_terminated:
            # We have closed, and wait for the answer only.
            return None
        elif opcode == _PING:
            self._ping_received(data)
        elif opcode == _PONG:
            self._received_pong = True
        else:
            return self._data(opcode, final, data)
        return None

    async def _size_and_mask(self, size: int) -> tuple[int, bytes]:
        """`size`: the length as the second byte has it. Raises Broken."""
        if size < 126:
            return size, await self._read_bytes(4)
        wide = size == 127
        rest = await self._read_bytes(12 if wide else 6)
        size = int.from_bytes(rest[:-4], "big")
        if size >> 63 or size < (65536 if wide else 126):
            raise Broken(CloseCode.PROTOCOL_ERROR, "length not in the shortest form")
        if size + len(self._joined or b"") > self._limits.frame_size:
            raise Broken(CloseCode.FRAME_TOO_BIG, "message too big")
        return size, rest[-4:]

    def _data(self, opcode: int, final: bool, data: bytes) -> asyncio.Future[None] | None:
        """A message or a part of one. Raises Broken."""
        if (opcode == _CONTINUATION) != (self._joined is not None):
            raise Broken(CloseCode.PROTOCOL_ERROR, "fragments out of order")
        if final and self._joined is None:
            return self._message(opcode, data)
        if self._joined is None:
            self._joined, self._joined_opcode, self._fragments = bytearray(), opcode, 0
        self._joined += data
        self._fragments += 1
        if len(self._joined) > self._limits.frame_size:
            raise Broken(CloseCode.FRAME_TOO_BIG, "message too big")
        if self._fragments > self._limits.fragments:
            self._abuse("fragments")
        elif final:
            whole, self._joined = bytes(self._joined), None
            return self._message(self._joined_opcode, whole)
        return None

    def _message(self, opcode: int, data: bytes) -> asyncio.Future[None] | None:
        message: str | bytes = data
        if opcode == _TEXT:
            try:
                message = data.decode("utf-8")
            except UnicodeDecodeError:
                raise Broken(CloseCode.INVALID_TEXT, "not UTF-8") from None
        return self._run_callback(self.handler.on_message, message)

    def _ping_received(self, data: bytes) -> None:
        if self._pings.take(self._now()):
            self._abuse("pings")
        else:
            self._send_pong(data)

    def _close_received(self, data: bytes) -> None:
        """Answer with the same code. Raises Broken."""
        if len(data) == 1:
            raise Broken(CloseCode.PROTOCOL_ERROR, "close code of one byte")
        code = struct.unpack("!H", data[:2])[0] if data else None
        if code is not None and not valid_close_code(code):
            raise Broken(CloseCode.PROTOCOL_ERROR, "invalid close code")
        try:
            reason = data[2:].decode("utf-8") or None
        except UnicodeDecodeError:
            raise Broken(CloseCode.INVALID_TEXT, "not UTF-8") from None
        self.client_terminated = True
        self.close_code, self.close_reason = code, reason
        self.close(code)

    def _abuse(self, kind: str) -> None:
        if not self.server_terminated:
            self._on_abuse(kind)
        # Whoever floods is not waited for.
        self.client_terminated = True
        self.close()

    def busy(self) -> None:
        """The client sends one message after the other (relay.outbox.Transport)."""
        if not self.stream.closed():
            acknowledge_later(self.stream.socket)

    # To the client

    def write(self, message: bytes, binary: bool) -> None:
        """Send one message (relay.outbox.Transport)."""
        if self.is_closing():
            return
        try:
            taken = self._write_frame(True, _BINARY if binary else _TEXT, message)
        except StreamClosedError:
            return
        if self.stream.writing():
            self._stalled(taken)

    def write_all(self, entries: Sequence[Entry]) -> None:
        """Send several (relay.outbox.Transport)."""
        for entry in entries:
            self.write(entry.message, entry.binary)

    def pending(self) -> int:
        """Bytes that the kernel has not taken yet (relay.outbox.Transport)."""
        return 0 if self.stream.closed() else len(self.stream._write_buffer)

    def _stalled(self, taken: asyncio.Future[None]) -> None:
        if self.outbox is not None:
            self.outbox.stalled()
        taken.add_done_callback(self._taken)

    def _taken(self, taken: asyncio.Future[None]) -> None:
        if taken.cancelled() or taken.exception() is not None or self.stream.writing():
            return
        if self.outbox is not None:
            self.outbox.drained()

    async def periodic_ping(self) -> None:
        """A client that does not answer is gone: there is nobody to shake hands with."""
        interval, timeout = self._limits.ping_interval, self._limits.ping_timeout
        await asyncio.sleep(interval)
        while not self.is_closing():
            self._received_pong = False
            self.write_ping(b"")
            await asyncio.sleep(timeout)
            if not self._received_pong:
                self._abort()
                return
            await asyncio.sleep(max(0.0, interval - timeout))


def _check(first: int, second: int) -> None:
    """A frame's first two bytes. Raises Broken."""
    opcode, size = first & 0x0F, second & 0x7F
    if first & _RESERVED:
        wrong = "reserved bits"
    elif opcode not in _OPCODES:
        wrong = "reserved opcode"
    elif not second & _MASKED:
        wrong = "unmasked"
    elif opcode & _CONTROL and (size > 125 or not first & _FINAL):
        wrong = "fragmented or too long for a control frame"
    else:
        return
    raise Broken(CloseCode.PROTOCOL_ERROR, wrong)


def bound_buffers(sock: socket.socket) -> None:
    """Let the kernel keep no more than that of what is sent and received."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
