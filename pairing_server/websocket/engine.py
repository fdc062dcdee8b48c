"""The frame engine: picows parses frames, this makes messages of them and keeps RFC 6455.

After Tornado has parsed and checked the upgrade, the socket is handed over (websocket/takeover.py); handlers stay
ordinary WebSocketHandlers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from picows import WSFrame, WSMsgType, WSTransport
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler

from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.token_bucket import TokenBucket
from pairing_server.websocket.closing import Closing
from pairing_server.websocket.frames import valid_close_code
from pairing_server.websocket.sending import PONG, frame_of, gathering
from pairing_server.websocket.takeover import hand_over

_TEXT_FRAME = WSMsgType.TEXT
# So many messages of one connection are served at a stretch; then the others have their turn.
STRETCH = 20


class PicowsProtocol(Closing):
    """One connection's protocol. `on_abuse` is called once with "frames", "pings" or "fragments" too many."""

    # Most are found faster than what an ordinary instance has, and there are many of them.
    __slots__ = (
        "_at",
        "_fragments",
        "_fragments_size",
        "_fragments_type",
        "_frames",
        "_now",
        "_on_abuse",
        "_pings",
        "_receive",
        "_serving",
        "_stretch",
        "_subprotocol",
        "_waiting",
    )

    def __init__(
        self,
        handler: WebSocketHandler,
        limits: ConnectionLimits,
        now: Callable[[], float],
        on_abuse: Callable[[str], None],
    ) -> None:
        super().__init__(handler, limits)
        # With the time, which it need not ask for then.
        self._receive: Callable[[str | bytes, float], Awaitable[None] | None] = handler.on_message  # type: ignore[assignment]
        self._now = now
        self._on_abuse = on_abuse
        # When the last read was.
        self._at = started = now()
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
        self._subprotocol: str | None = None

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
        try:
            transport = await hand_over(stream, key, self._subprotocol, self, self._limits.frame_size)
        except StreamClosedError:
            return
        if self._serving:
            # It was paused before it had begun to read.
            transport.pause_reading()

    def on_ws_connected(self, transport: WSTransport) -> None:
        guarded: Any = transport.underlying_transport
        self._out = guarded.real
        # Whatever the kernel does not take at once is the send queue's business.
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
        if not gathering.on:
            # The first of this read.
            self._at = self._now()
            gathering.on = not last
        try:
            if self.client_terminated:
                return
            if self._frames.take(self._at):
                self._abuse("frames")
            elif (
                frame.msg_type is _TEXT_FRAME
                and frame.fin
                and not (
                    frame.rsv1 or frame.rsv2 or frame.rsv3 or self._fragments_type or self.server_terminated
                )
            ):
                # Nearly every frame.
                self._message(frame.get_payload_as_utf8_text(), self._at)
            else:
                self._other(frame)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_TEXT, "not UTF-8")
        finally:
            if last and gathering.on:
                gathering.end()
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

    def _message(self, message: str | bytes, now: float | None = None) -> None:
        if self._serving:
            self._waiting.append(partial(self._message, message))
            return
        try:
            serving = self._receive(message, self._now() if now is None else now)
        except Exception as error:
            self._failed(error)
            return
        if serving is not None:
            self._hold()
            asyncio.ensure_future(serving).add_done_callback(self._served)
        elif gathering.on:
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
        gathering.on = True
        try:
            self._serve_waiting()
        finally:
            gathering.end()
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
            self._write(frame_of(PONG, payload))

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

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._waiting.clear()
        super().on_ws_disconnected(transport)
