"""The compiled frame engine: picows parses frames, this makes messages of them and keeps RFC 6455.

After Tornado has parsed and checked the upgrade, the socket is handed over: the IOStream lets go of a
duplicate of the descriptor, picows' protocol takes that, and the upgrade is replayed into it. Handlers
stay ordinary WebSocketHandlers. What is leant on of picows beyond its `__all__` is guarded by a test.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from picows import WSAutoPingStrategy, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeResponse
from picows.common import WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol

from pairing_server.relay.closing import CloseCode
from pairing_server.relay.limits import RelayLimits, TokenBucket
from pairing_server.web.frames import CLOSE_TIMEOUT, SEND_BUFFER, valid_close_code

# picows logs each connection; that is the audit log's business.
_picows_log = logging.getLogger("picows")
_picows_log.setLevel(logging.CRITICAL)

READ_BUFFER = 2048
# What the event loop's transport may hold before the outbox keeps the rest.
HIGH_WATER = 64 * 1024
LOW_WATER = 16 * 1024

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
# A control frame's 125 bytes, less the code.
REASON_SIZE = 123


def frame_of(first: int, payload: bytes) -> bytes:
    """One final, unmasked frame (RFC 6455, section 5.2); `first` holds FIN and the opcode."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


class CompiledProtocol(WSListener, WebSocketProtocol):
    """One connection's protocol. `on_abuse` is called once with "frames", "pings" or "fragments" too many."""

    def __init__(
        self,
        handler: WebSocketHandler,
        limits: RelayLimits,
        now: Callable[[], float],
        on_abuse: Callable[[str], None],
    ) -> None:
        WebSocketProtocol.__init__(self, handler)
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
        self._waiting: deque[Callable[[], None]] = deque()
        self._serving = False
        self._paused = False
        self._unwritten: list[Callable[[], None]] = []
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
        sock, early = _take_over(handler.detach())
        parser = partial(self._parser, _replayed(key) + early)
        transport, _ = await self._loop.connect_accepted_socket(parser, sock)
        if self._serving:
            # It was paused before it had begun to read.
            transport.pause_reading()

    def _parser(self, replayed: bytes) -> _Parser:
        return _Parser(
            replayed,
            host_port=None,  # a client's
            ws_path="/",
            is_client_side=False,
            ws_listener_factory=self._listener,
            logger=_picows_log,
            disconnect_on_exception=True,
            websocket_handshake_timeout=None,  # the handshake is done
            enable_auto_ping=False,
            auto_ping_idle_timeout=None,
            auto_ping_reply_timeout=None,
            auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=False,  # pings are ours to count and to answer
            max_frame_size=self._limits.frame_size,
            extra_headers=None,
            read_buffer_init_size=READ_BUFFER,
        )

    def _listener(self, _: object) -> WSUpgradeResponseWithListener:
        extra = {"Sec-WebSocket-Protocol": self._subprotocol} if self._subprotocol else {}
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(extra), self)

    def on_ws_connected(self, transport: WSTransport) -> None:
        guarded: Any = transport.underlying_transport
        self._out = guarded.real
        self._out.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._call(self.handler.open)  # type: ignore[attr-defined]
        self.start_pinging()

    # From the client

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.client_terminated:
            return
        if self._frames.take(self._now()):
            self._abuse("frames")
            return
        if self.server_terminated and frame.msg_type != WSMsgType.CLOSE:
            # We have closed, and wait for the answer only.
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(CloseCode.PROTOCOL_ERROR, "reserved bits")
            return
        kind = frame.msg_type
        if kind == WSMsgType.TEXT and frame.fin and not self._fragments_type:
            # Nearly every frame.
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_TEXT, "not UTF-8")
                return
            self._message(text)
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
        if opcode == WSMsgType.BINARY.value:
            self._message(message)
            return
        try:
            self._message(message.decode("utf-8"))
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_TEXT, "not UTF-8")

    def _message(self, message: str | bytes) -> None:
        if self._serving:
            self._waiting.append(partial(self._message, message))
            return
        serving = self._call(self.handler.on_message, message)
        if serving is not None:
            self._serve(serving)

    def _serve(self, serving: Awaitable[None]) -> None:
        """Read no more until it is done; what is parsed already waits."""
        self._serving = True
        if self._out is not None:
            self._out.pause_reading()
        asyncio.ensure_future(serving).add_done_callback(self._served)

    def _served(self, done: asyncio.Future[None]) -> None:
        self._serving = False
        if not done.cancelled() and (error := done.exception()) is not None:
            self.handler.log_exception(type(error), error, error.__traceback__)
            self.close(CloseCode.INTERNAL, "internal error")
        while self._waiting and not self._serving and not self.server_terminated:
            self._waiting.popleft()()
        if not self._serving and self._out is not None:
            self._out.resume_reading()

    def _call(self, callback: Callable[..., Any], *args: object) -> Awaitable[None] | None:
        try:
            answer: Awaitable[None] | None = callback(*args)
        except Exception as error:
            self.handler.log_exception(type(error), error, error.__traceback__)
            self.close(CloseCode.INTERNAL, "internal error")
            return None
        return answer

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
        """picows has found a frame that breaks the protocol, or the listener has failed."""
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

    def send_text(self, message: bytes, written: Callable[[], None]) -> None:
        """Send one text message; `written` is called once the event loop has room for more."""
        self._send(_TEXT, message, written)

    def send_binary(self, message: bytes, written: Callable[[], None]) -> None:
        """The same for a binary message."""
        self._send(_BINARY, message, written)

    def _send(self, first: int, message: bytes, written: Callable[[], None]) -> None:
        self._write(frame_of(first, message))
        if self._paused:
            self._unwritten.append(written)
        else:
            written()

    def _write(self, frame: bytes) -> None:
        """Nothing is written behind a close frame."""
        if self._out is not None and not self.server_terminated:
            self._out.write(frame)

    def write_message(
        self, message: str | bytes | dict[str, Any], binary: bool = False
    ) -> asyncio.Future[None]:
        """Tornado's way to send; the server itself uses `send_text`."""
        if self.is_closing():
            raise WebSocketClosedError
        data = message.encode() if isinstance(message, str) else bytes(message)  # type: ignore[arg-type]
        self._write(frame_of(_BINARY if binary else _TEXT, data))
        done = self._loop.create_future()
        done.set_result(None)
        return done

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        written, self._unwritten = self._unwritten, []
        for call in written:
            call()

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
        self._unwritten.clear()
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


class _Guarded:
    """The transport as picows sees it: it may answer the upgrade, but the closing is the listener's.

    picows looks one frame ahead, and closes for that one before it hands out the one before.
    """

    def __init__(self, real: asyncio.Transport) -> None:
        self.real = real
        # The payload of the close frame that picows would send.
        self.refusal: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_write_buffer_size(self) -> int:
        """Never 0: with an empty buffer picows would write past us."""
        return 1

    def write(self, data: bytes) -> None:
        if data[0] == _CLOSE:
            self.refusal = bytes(data[2:])
        else:
            self.real.write(data)

    def close(self) -> None:
        # With a refusal the listener closes, once it has served what came before.
        if self.refusal is None:
            self.real.close()


class _Parser(WSProtocol):  # type: ignore[misc]
    """picows' protocol: it first reads `replayed`, then the socket, and nothing behind a last frame."""

    def __init__(self, replayed: bytes, **options: Any) -> None:
        super().__init__(**options)
        self._replayed = replayed

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._guarded = _Guarded(transport)
        super().connection_made(self._guarded)
        data, self._replayed = self._replayed, b""
        while data:
            # As the event loop would.
            buffer = self.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.buffer_updated(size)
            data = data[size:]

    def buffer_updated(self, nbytes: int) -> None:
        listener = self.listener
        if listener is not None and listener.client_terminated:
            return
        super().buffer_updated(nbytes)
        refusal = self._guarded.refusal
        if refusal is not None:
            self.listener.refused(int.from_bytes(refusal[:2], "big"), refusal[2:].decode())


def _take_over(stream: IOStream) -> tuple[socket.socket, bytes]:
    """The stream's socket as one of our own, and what the client has sent behind the upgrade already."""
    early = bytes(stream._read_buffer[: stream._read_buffer_size])
    own = socket.socket(fileno=os.dup(stream.socket.fileno()))
    own.setblocking(False)
    # Linux would grow the kernel's buffer to megabytes, which hides a slow client and ages its audio.
    own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    stream.close()
    return own, early


def _replayed(key: str) -> bytes:
    """The upgrade, as far as picows needs it to answer."""
    return (
        "GET / HTTP/1.1\r\nHost: pairing-server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()
