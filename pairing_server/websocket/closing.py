"""How long a connection lives: pings that must be answered, the closing handshake, its end."""

from __future__ import annotations

import asyncio
import struct

from picows import WSTransport
from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketHandler

from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.websocket.frames import CLOSE_TIMEOUT
from pairing_server.websocket.sending import CLOSE, PING, Sending, frame_of

# A control frame's 125 bytes, less the code.
REASON_SIZE = 123


class Closing(Sending):
    """The part of a connection's protocol that ends it."""

    __slots__ = ("_closing_timer", "_limits", "_loop", "_pong_seen", "_timer", "close_code", "close_reason")

    def __init__(self, handler: WebSocketHandler, limits: ConnectionLimits) -> None:
        super().__init__(handler)
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._pong_seen = True
        self._timer: asyncio.TimerHandle | None = None
        self._closing_timer: asyncio.TimerHandle | None = None
        self.close_code: int | None = None
        self.close_reason: str | None = None

    # Is it still there

    def write_ping(self, data: bytes) -> None:
        self._write(frame_of(PING, data))

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
            self._write(frame_of(CLOSE, payload))
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
