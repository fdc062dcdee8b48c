"""How frames become messages, below the handlers: which engine does it, and Tornado's own as one of the two.

`compiled` (web/compiled.py) is the fast one; `tornado` serves where picows is not installed. Both keep the
same rules and count what never reaches `on_message`: empty fragments, pings.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from tornado.iostream import StreamClosedError
from tornado.websocket import (
    WebSocketHandler,
    WebSocketProtocol,
    WebSocketProtocol13,
    _WebSocketParams,
)

from pairing_server.relay.limits import RelayLimits, TokenBucket

# Linux would grow the kernel's buffer to megabytes, which hides a slow client and ages its audio.
SEND_BUFFER = 128 * 1024

Engine = Callable[
    [WebSocketHandler, RelayLimits, Callable[[], float], Callable[[str], None]], WebSocketProtocol
]


def engine_of(choice: str) -> Engine:
    """The engine for PAIRING_FRAME_ENGINE: "auto" is the compiled one where it is installed.

    Raises ImportError if "compiled" is asked for and picows is not installed.
    """
    if choice == "tornado":
        return CountingProtocol
    try:
        from pairing_server.web.compiled import CompiledProtocol
    except ImportError:
        if choice == "compiled":
            raise
        return CountingProtocol
    return CompiledProtocol


class CountingProtocol(WebSocketProtocol13):
    """Tornado's protocol; `on_abuse` is called once with "frames", "pings" or "fragments" too many."""

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
        self._fragments = 0

    async def _receive_frame(self) -> None:
        await super()._receive_frame()
        self._fragments = 0 if self._fragmented_message_buffer is None else self._fragments + 1
        if self._frames.take(self._now()):
            self._abuse("frames")
        elif self._fragments > self._limits.fragments:
            self._abuse("fragments")

    async def _accept_connection(self, handler: WebSocketHandler) -> None:
        connection = handler.request.connection
        stream = getattr(connection, "stream", None)
        if stream is not None:
            stream.set_nodelay(True)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        await super()._accept_connection(handler)

    def send_text(self, message: bytes, written: Callable[[], None]) -> None:
        """Send one text message; `written` is called when the kernel has taken it."""
        self._send(0x1, message, written)

    def send_binary(self, message: bytes, written: Callable[[], None]) -> None:
        """The same for a binary message."""
        self._send(0x2, message, written)

    def _send(self, opcode: int, message: bytes, written: Callable[[], None]) -> None:
        if self.is_closing():
            return
        try:
            future = self._write_frame(True, opcode, message)
        except StreamClosedError:
            return

        def done(finished: asyncio.Future[None]) -> None:
            if not finished.cancelled() and finished.exception() is None:
                written()

        future.add_done_callback(done)

    def ping_received(self) -> None:
        """The handler has seen a ping."""
        if self._pings.take(self._now()):
            self._abuse("pings")

    def _abuse(self, kind: str) -> None:
        if not self.server_terminated:
            self._on_abuse(kind)
