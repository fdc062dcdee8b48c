"""The compiled frame engine: picows parses frames, this makes messages of them and keeps RFC 6455.

After Tornado has parsed and checked the upgrade, the socket is handed over (web/takeover.py); handlers stay
ordinary WebSocketHandlers.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from picows import WSFrame, WSMsgType, WSTransport
from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol

from pairing_server.relay.closing import CloseCode
from pairing_server.relay.limits import RelayLimits, TokenBucket
from pairing_server.relay.outbox import Entry, Outbox
from pairing_server.web.frames import CLOSE_TIMEOUT, valid_close_code
from pairing_server.web.takeover import Listener, hand_over

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
_TEXT_FRAME = WSMsgType.TEXT
# A control frame's 125 bytes, less the code.
REASON_SIZE = 123
# So many messages of one connection are served at a stretch; then the others have their turn.
STRETCH = 32
# What is gathered for one system call.
GATHERED = 64 * 1024

_medium_head = struct.Struct("!BBH").pack
_large_head = struct.Struct("!BBQ").pack


def frame_of(first: int, payload: bytes) -> bytes:
    """One final, unmasked frame (RFC 6455, section 5.2); `first` holds FIN and the opcode."""
    size = len(payload)
    if 126 <= size < 65536:
        return _medium_head(first, 126, size) + payload
    if size < 126:
        return bytes((first, size)) + payload
    return _large_head(first, 127, size) + payload


class Gathering:
    """While several frames of one read are served, what is written meanwhile shares a system call."""

    __slots__ = ("connections", "on")

    def __init__(self) -> None:
        self.on = False
        self.connections: list[CompiledProtocol] = []

    def end(self) -> None:
        """Write what was gathered, and gather no more."""
        self.on = False
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.flush()


_gathering = Gathering()


class CompiledProtocol(Listener, WebSocketProtocol):
    """One connection's protocol. `on_abuse` is called once with "frames", "pings" or "fragments" too many."""

    # Most are found faster than what an ordinary instance has, and there are many of them.
    __slots__ = (
        "_closing_timer",
        "_fragments",
        "_fragments_size",
        "_fragments_type",
        "_frames",
        "_gathered",
        "_gathered_size",
        "_limits",
        "_loop",
        "_now",
        "_on_abuse",
        "_out",
        "_paused",
        "_pings",
        "_pong_seen",
        "_receive",
        "_serving",
        "_stretch",
        "_subprotocol",
        "_timer",
        "_waiting",
        "client_terminated",
        "close_code",
        "close_reason",
        "outbox",
        "server_terminated",
    )

    def __init__(
        self,
        handler: WebSocketHandler,
        limits: RelayLimits,
        now: Callable[[], float],
        on_abuse: Callable[[str], None],
    ) -> None:
        WebSocketProtocol.__init__(self, handler)
        self._receive = handler.on_message
        self._limits = limits
        self._now = now
        self._on_abuse = on_abuse
        started = now()
        self._frames = TokenBucket(limits.frame_rate, 2 * limits.frame_rate, started)
        self._pings = TokenBucket(limits.ping_count / limits.ping_seconds, limits.ping_count, started)
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        self._fragments_type = 0
        # What was parsed while a message was still being served: messages, and the client's close last.
        self._waiting: list[Callable[[], None]] = []
        self._serving = False
        # Messages served at this stretch.
        self._stretch = 0
        self._paused = False
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self.outbox: Outbox | None = None
        self._pong_seen = True
        self._timer: asyncio.TimerHandle | None = None
        self._closing_timer: asyncio.TimerHandle | None = None
        # The event loop's transport, while there is one.
        self._out: Any = None
        self._loop = asyncio.get_running_loop()
        self._subprotocol: str | None = None
        self.close_code: int | None = None
        self.close_reason: str | None = None

    # Opening

    @property
    def selected_subprotocol(self) -> str | None:
        return self._subprotocol

    async def accept_connection(self, handler: WebSocketHandler) -> None:
        headers = handler.request.headers
        key = headers.get("Sec-WebSocket-Key", "")
        if not (headers.get("Host") and len(key) == 24 and key.isascii() and key.isprintable()):
            handler.set_status(400)
            handler.finish("Missing or invalid WebSocket headers")
            return
        offered = [
            name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()
        ]
        self._subprotocol = handler.select_subprotocol(offered)
        stream = handler.detach()
        transport = await hand_over(stream, key, self._subprotocol, self, self._limits.frame_size)
        if self._serving:
            # It was paused before it had begun to read.
            transport.pause_reading()

    def on_ws_connected(self, transport: WSTransport) -> None:
        guarded: Any = transport.underlying_transport
        self._out = guarded.real
        # Whatever the kernel does not take at once is the outbox's business.
        self._out.set_write_buffer_limits(0)
        try:
            self.handler.open()  # type: ignore[attr-defined]
        except Exception as error:
            self._failed(error)
        self.start_pinging()
        transport.request.headers.clear()
        transport.response.headers.clear()

    # From the client

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        last = frame.last_in_buffer
        if not last:
            _gathering.on = True
        try:
            if self.client_terminated:
                return
            if self._frames.take(self._now()):
                self._abuse("frames")
            elif (
                frame.msg_type is _TEXT_FRAME
                and frame.fin
                and not (
                    frame.rsv1 or frame.rsv2 or frame.rsv3 or self._fragments_type or self.server_terminated
                )
            ):
                # Nearly every frame.
                self._message(frame.get_payload_as_utf8_text())
            else:
                self._other(frame)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_TEXT, "not UTF-8")
        finally:
            if last and _gathering.on:
                _gathering.end()
                self._stretch = 0

    def _other(self, frame: WSFrame) -> None:
        kind = frame.msg_type
        if self.server_terminated and kind is not WSMsgType.CLOSE:
            # We have closed, and wait for the answer only.
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(CloseCode.PROTOCOL_ERROR, "reserved bits")
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._data(int(kind.value), frame)
        elif kind == WSMsgType.PING:
            self._ping_received(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PONG:
            self._pong_seen = True
        else:
            self._close_received(frame)

    def _data(self, opcode: int, frame: WSFrame) -> None:
        """A part of a message, or a whole binary one."""
        if bool(opcode) == bool(self._fragments_type):
            # A new message inside another, or a continuation of nothing.
            self._fail(CloseCode.PROTOCOL_ERROR, "fragments out of order")
            return
        if opcode:
            self._fragments_type = opcode
        self._fragments.append(frame.get_payload_as_bytes())
        self._fragments_size += frame.payload_size
        if self._fragments_size > self._limits.frame_size:
            self._fail(CloseCode.FRAME_TOO_BIG, "message too big")
        elif len(self._fragments) > self._limits.fragments:
            self._abuse("fragments")
        elif frame.fin:
            whole, opcode = b"".join(self._fragments), self._fragments_type
            self._forget_fragments()
            self._whole(opcode, whole)

    def _forget_fragments(self) -> None:
        self._fragments = []
        self._fragments_size = 0
        self._fragments_type = 0

    def _whole(self, opcode: int, message: bytes) -> None:
        """Raises UnicodeDecodeError."""
        self._message(message if opcode == WSMsgType.BINARY.value else message.decode("utf-8"))

    def _message(self, message: str | bytes) -> None:
        if self._serving:
            self._waiting.append(partial(self._message, message))
            return
        try:
            serving: Awaitable[None] | None = self._receive(message)
        except Exception as error:
            self._failed(error)
            return
        if serving is not None:
            self._hold()
            asyncio.ensure_future(serving).add_done_callback(self._served)
        elif _gathering.on:
            self._stretch += 1
            if self._stretch == STRETCH:
                self._hold()
                self._loop.call_soon(self._go_on)

    def _hold(self) -> None:
        """Read no more for now; what is parsed already waits."""
        self._serving = True
        if self._out is not None:
            self._out.pause_reading()

    def _served(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._failed(error)
        self._go_on()

    def _go_on(self) -> None:
        """Serve what waits, and then read again."""
        self._serving = False
        self._stretch = 0
        _gathering.on = True
        try:
            self._serve_waiting()
        finally:
            _gathering.end()
        if not self._serving and not self.client_terminated and self._out is not None:
            self._out.resume_reading()

    def _serve_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for place, act in enumerate(waiting):
            if self._serving or self.server_terminated:
                self._waiting = waiting[place:] + self._waiting
                return
            act()

    def _failed(self, error: BaseException) -> None:
        self.handler.log_exception(type(error), error, error.__traceback__)
        self.close(CloseCode.INTERNAL, "internal error")

    def _ping_received(self, payload: bytes) -> None:
        if self._pings.take(self._now()):
            self._abuse("pings")
        elif not self._paused:
            # With a full buffer the pong waits for the next ping: only the newest must be answered.
            self._write(frame_of(_PONG, payload))

    def _close_received(self, frame: WSFrame) -> None:
        self._last(partial(self._answer_close, frame.get_payload_as_bytes()))

    def _last(self, act: Callable[[], None]) -> None:
        """Nothing that comes behind is looked at, but what came before is served first."""
        self.client_terminated = True
        if self._serving and not self.server_terminated:
            self._waiting.append(act)
        else:
            act()

    def _answer_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
        if code is not None and not valid_close_code(code):
            self.close(CloseCode.PROTOCOL_ERROR, "invalid close code")
            return
        self.close_code = code
        self.close_reason = payload[2:].decode("utf-8") if len(payload) > 2 else None
        self.close(code)

    def refused(self, code: int, reason: str) -> None:
        """picows has found a frame that breaks the protocol, or `on_ws_frame` has failed."""
        if not self.client_terminated:
            self._fail(code, reason)

    def _abuse(self, kind: str) -> None:
        if self.server_terminated:
            # Closed already, and it goes on.
            self._abort()
            return
        self._on_abuse(kind)
        # Whoever floods is not waited for.
        self.client_terminated = True
        self.close()

    def _fail(self, code: int, reason: str) -> None:
        """The client breaks the protocol: say so, and hear no more."""
        self._last(partial(self.close, code, reason))

    # To the client

    def write(self, message: bytes, binary: bool) -> None:
        """Send one message (relay.outbox.Transport)."""
        frame = frame_of(_BINARY if binary else _TEXT, message)
        if _gathering.on or self.server_terminated or self._out is None:
            self._write(frame)
        else:
            self._out.write(frame)

    def write_all(self, entries: Sequence[Entry]) -> None:
        """Send several in one system call (relay.outbox.Transport)."""
        self._write(
            b"".join(frame_of(_BINARY if entry.binary else _TEXT, entry.message) for entry in entries)
        )

    def _write(self, frame: bytes) -> None:
        """Nothing is written behind a close frame."""
        if self._out is None or self.server_terminated:
            return
        if not _gathering.on:
            self._out.write(frame)
            return
        if not self._gathered:
            _gathering.connections.append(self)
        self._gathered.append(frame)
        self._gathered_size += len(frame)
        if self._gathered_size >= GATHERED:
            self._write_gathered()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._gathered:
            self._write_gathered()

    def _write_gathered(self) -> None:
        gathered, self._gathered, self._gathered_size = self._gathered, [], 0
        if self._out is not None:
            self._out.write(b"".join(gathered))

    def pending(self) -> int:
        """Bytes that the kernel has not taken yet (relay.outbox.Transport)."""
        if self._out is None:
            return 0
        return self._gathered_size + int(self._out.get_write_buffer_size())

    def write_message(
        self, message: str | bytes | dict[str, Any], binary: bool = False
    ) -> asyncio.Future[None]:
        """Tornado's way to send; the server itself uses `write`."""
        if self.is_closing():
            raise WebSocketClosedError
        data = message.encode() if isinstance(message, str) else bytes(message)  # type: ignore[arg-type]
        self._write(frame_of(_BINARY if binary else _TEXT, data))
        done = self._loop.create_future()
        done.set_result(None)
        return done

    def pause_writing(self) -> None:
        self._paused = True
        if self.outbox is not None:
            self.outbox.stalled()

    def resume_writing(self) -> None:
        self._paused = False
        if self.outbox is not None:
            self.outbox.drained()

    def write_ping(self, data: bytes) -> None:
        self._write(frame_of(_PING, data))

    def start_pinging(self) -> None:
        if self._limits.ping_interval:
            self._timer = self._loop.call_later(self._limits.ping_interval, self._ping)

    def _ping(self) -> None:
        self._pong_seen = False
        self.write_ping(b"")
        self._timer = self._loop.call_later(self._limits.ping_timeout, self._check_pong)

    def _check_pong(self) -> None:
        if self._pong_seen:
            rest = max(0.0, self._limits.ping_interval - self._limits.ping_timeout)
            self._timer = self._loop.call_later(rest, self._ping)
        else:
            self._abort()

    # The end

    def is_closing(self) -> bool:
        return self.client_terminated or self.server_terminated

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Start the closing handshake, or end it: the first close frame of ours is the only one."""
        if not self.server_terminated:
            if code is None and reason is not None:
                code = CloseCode.NORMAL
            payload = b"" if code is None else struct.pack("!H", code) + (reason or "").encode()[:REASON_SIZE]
            self._write(frame_of(_CLOSE, payload))
            self.flush()
            self.server_terminated = True
            self._cancel("_timer")
        if self.client_terminated:
            self._cancel("_closing_timer")
            self._disconnect()
        elif self._closing_timer is None:
            self._closing_timer = self._loop.call_later(CLOSE_TIMEOUT, self._abort)

    def _disconnect(self) -> None:
        """Close once everything is written, but wait for that no longer than for a close frame."""
        if self._out is not None:
            self._out.close()
            self._closing_timer = self._loop.call_later(CLOSE_TIMEOUT, self._abort)

    def _abort(self) -> None:
        self.client_terminated = self.server_terminated = True
        if self._out is not None:
            self._out.abort()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.client_terminated = self.server_terminated = True
        self._cancel("_timer")
        self._cancel("_closing_timer")
        self._out = None
        self._waiting.clear()
        self._gathered.clear()
        self.handler.on_ws_connection_close(self.close_code, self.close_reason)

    def _cancel(self, timer: str) -> None:
        handle: asyncio.TimerHandle | None = getattr(self, timer)
        if handle is not None:
            handle.cancel()
            setattr(self, timer, None)

    def on_connection_close(self) -> None:
        """The handler lets go of the connection after `on_ws_connection_close`; nothing is left to do."""

    def set_nodelay(self, x: bool) -> None:
        """picows has set it."""

    # What only Tornado's client side calls

    def _process_server_headers(self, key: str | bytes, headers: HTTPHeaders) -> None:
        raise TypeError("this protocol serves")

    async def _receive_frame_loop(self) -> None:
        raise TypeError("picows reads")
