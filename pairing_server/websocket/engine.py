"""The frame engine: picows parses frames, this makes messages of them and keeps RFC 6455.

After Tornado has parsed and checked the upgrade, the socket is handed over (websocket/handover.py); handlers stay
ordinary WebSocketHandlers.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

from picows import WSFrame, WSListener, WSMsgType, WSTransport
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler

from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.relay.send_queue import Entry, SendQueue
from pairing_server.relay.token_bucket import TokenBucket
from pairing_server.web.lingering import LingeringSockets
from pairing_server.websocket.frame_writer import PONG, FrameWriter, write_batch
from pairing_server.websocket.handover import TransportProxy, Upgrade, hand_over
from pairing_server.websocket.keepalive import Keepalive
from pairing_server.websocket.receive_queue import OnMessage, ReceiveQueue

_TEXT = WSMsgType.TEXT
# Seconds: how long the client may take to answer our close frame.
CLOSE_TIMEOUT = 5.0
# A control frame's 125 bytes, less the code.
REASON_SIZE = 123


def valid_close_code(code: int) -> bool:
    """Whether a client may send that close code (RFC 6455, section 7.4)."""
    return code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code < 5000


class FragmentedMessage:
    """A message of which more frames are to come."""

    __slots__ = ("_binary", "fragments", "size")

    def __init__(self, binary: bool) -> None:
        self._binary = binary
        self.fragments: list[bytes] = []
        self.size = 0

    def add(self, payload: bytes) -> None:
        self.fragments.append(payload)
        self.size += len(payload)

    def joined(self) -> str | bytes:
        """Raises UnicodeDecodeError."""
        message = b"".join(self.fragments)
        return message if self._binary else message.decode("utf-8")


class PicowsProtocol(WSListener):
    """One connection's protocol: for Tornado's handler a WebSocketProtocol, for the relay a Transport.

    It has no more of Tornado's WebSocketProtocol than a handler of a server calls. `on_abuse` is called once with
    "frames", "pings" or "fragments" too many.
    """

    # There is one for each connection.
    __slots__ = (
        "_close_received",
        "_close_sent",
        "_closing_timer",
        "_frames",
        "_handler",
        "_keepalive",
        "_last_socket",
        "_limits",
        "_lingering",
        "_now",
        "_on_abuse",
        "_partial",
        "_pings",
        "_queue",
        "_read_at",
        "_transport",
        "_writer",
        "_writing_paused",
        "close_code",
        "close_reason",
        "send_queue",
        "write",
    )

    def __init__(
        self,
        handler: WebSocketHandler,
        limits: ConnectionLimits,
        now: Callable[[], float],
        on_abuse: Callable[[str], None],
        lingering: LingeringSockets,
    ) -> None:
        self._handler = handler
        self._lingering = lingering
        # Ours until the transport has written all, where the client may still be sending.
        self._last_socket: socket.socket | None = None
        self._limits = limits
        self._now = now
        self._on_abuse = on_abuse
        self._read_at = started = now()
        # A burst of two seconds: a burst of messages and its audio together are no flood.
        self._frames = TokenBucket(limits.frame_rate, 2 * limits.frame_rate, started)
        self._pings = TokenBucket(limits.ping_count / limits.ping_seconds, limits.ping_count, started)
        self._partial: FragmentedMessage | None = None
        self._transport: asyncio.Transport | None = None
        self._close_sent = self._close_received = False
        self._closing_timer: asyncio.TimerHandle | None = None
        self._writing_paused = False
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.send_queue: SendQueue | None = None

    # The beginning

    async def accept_connection(self, handler: WebSocketHandler) -> None:
        """The upgrade has been checked: answer it."""
        headers = handler.request.headers
        offered = [
            name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()
        ]
        upgrade = Upgrade(headers["Sec-WebSocket-Key"], handler.select_subprotocol(offered))
        try:
            transport = await hand_over(
                handler.detach(), upgrade, self, self._refuse, self._limits.frame_size
            )
        except StreamClosedError:
            return
        if self._queue.held:
            # By what came with the upgrade, before the transport had begun to read.
            transport.pause_reading()

    def on_ws_connected(self, transport: WSTransport) -> None:
        real = self._transport = cast(TransportProxy, transport.underlying_transport).real
        # The send queue keeps whatever the kernel does not take at once.
        real.set_write_buffer_limits(0)
        self._writer = FrameWriter(real)
        # An attribute: a method would be one more call for each message.
        self.write = self._writer.write
        self._queue = ReceiveQueue(real, cast(OnMessage, self._handler.on_message), self._failed, self._now)
        self._keepalive = Keepalive(self._writer, self._limits, self._abort)
        try:
            self._handler.open()
        except Exception as error:
            self._failed(error)
        self._keepalive.start()
        transport.request.headers.clear()
        transport.response.headers.clear()

    # From the client

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        last = frame.last_in_buffer
        if not write_batch.is_open:
            # The first frame of this read.
            self._read_at = self._now()
            write_batch.is_open = not last
        try:
            if self._close_received:
                return
            if self._frames.take(self._read_at):
                self._abuse("frames")
            elif (
                frame.msg_type is _TEXT
                and frame.fin
                and not (frame.rsv1 or frame.rsv2 or frame.rsv3 or self._partial or self._close_sent)
            ):
                # Nearly every frame.
                self._queue.put(frame.get_payload_as_utf8_text(), self._read_at)
            else:
                self._other_frame(frame)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_TEXT, "not UTF-8")
        finally:
            if last and write_batch.is_open:
                write_batch.end()
                self._queue.burst = 0

    def _other_frame(self, frame: WSFrame) -> None:
        """Raises UnicodeDecodeError."""
        kind = frame.msg_type
        if self._close_sent and kind is not WSMsgType.CLOSE:
            # Only the answer is waited for.
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(CloseCode.PROTOCOL_ERROR, "reserved bits")
        elif kind is WSMsgType.PING:
            self._ping_received(frame.get_payload_as_bytes())
        elif kind is WSMsgType.PONG:
            self._keepalive.pong_received = True
        elif kind is WSMsgType.CLOSE:
            self._finish(partial(self._answer_close, frame.get_payload_as_bytes()))
        else:
            self._data(frame)

    def _data(self, frame: WSFrame) -> None:
        """A binary message, or a part of a message. Raises UnicodeDecodeError."""
        message, payload = self._partial, frame.get_payload_as_bytes()
        if (frame.msg_type is WSMsgType.CONTINUATION) == (message is None):
            self._fail(CloseCode.PROTOCOL_ERROR, "fragments out of order")
            return
        if message is None:
            if frame.fin:
                self._queue.put(payload, self._read_at)
                return
            message = self._partial = FragmentedMessage(frame.msg_type is WSMsgType.BINARY)
        message.add(payload)
        if message.size > self._limits.frame_size:
            self._fail(CloseCode.FRAME_TOO_BIG, "message too big")
        elif len(message.fragments) > self._limits.fragments:
            self._abuse("fragments")
        elif frame.fin:
            self._partial = None
            self._queue.put(message.joined(), self._read_at)

    def _ping_received(self, payload: bytes) -> None:
        if self._pings.take(self._now()):
            self._abuse("pings")
        elif not self._writing_paused:
            # With a full buffer the pong waits for the next ping: only the newest must be answered.
            self._writer.write_control(PONG, payload)

    def _refuse(self, code: int, reason: str) -> None:
        if not self._close_received:
            self._fail(code, reason)

    def _fail(self, code: int, reason: str) -> None:
        """The client breaks the protocol: say so, and look at nothing more."""
        self._finish(partial(self._close_at_once, code, reason))

    def _finish(self, act: Callable[[], None]) -> None:
        """Nothing that comes behind is looked at; what came before is served first."""
        self._close_received = True
        if self._close_sent:
            act()
        else:
            self._queue.finish(act)

    def _failed(self, error: BaseException) -> None:
        self._handler.log_exception(type(error), error, error.__traceback__)
        self.close(CloseCode.INTERNAL, "internal error")

    def _abuse(self, kind: str) -> None:
        if not self._close_sent:
            self._on_abuse(kind)
        # A client that floods is not waited for.
        self._close_at_once()

    # To the client (relay.send_queue.Transport)

    def write_all(self, entries: Sequence[Entry]) -> None:
        self._writer.write_all(entries)

    def pending(self) -> int:
        return self._writer.pending()

    def busy(self) -> None:
        self._writer.acknowledge_later()

    def pause_writing(self) -> None:
        self._writing_paused = True
        if self.send_queue is not None:
            self.send_queue.stalled()

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self.send_queue is not None:
            self.send_queue.drained()

    # The end

    def _answer_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if payload else None
        if code is not None and not valid_close_code(code):
            self.close(CloseCode.PROTOCOL_ERROR, "invalid close code")
            return
        self.close_code = code
        self.close_reason = payload[2:].decode("utf-8") or None
        self.close(code)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Start the closing handshake, or end it: the first close frame of ours is the only one."""
        if self._transport is None:
            return
        if not self._close_sent:
            if code is None and reason is not None:
                code = CloseCode.NORMAL
            self._writer.close(
                b"" if code is None else struct.pack("!H", code) + (reason or "").encode()[:REASON_SIZE]
            )
            self._close_sent = True
            # From now on all is read, and dropped until the client's answer.
            self._queue.drop()
            self._keepalive.stop()
        if self._close_received:
            # Everything is written first, but no longer than for so long.
            self._transport.close()
            self._abort_after_timeout()
        elif self._closing_timer is None:
            self._abort_after_timeout()

    def drop(self) -> None:
        """End the connection without a close frame: the client sees an unclean close."""
        if self._transport is None or self._close_sent:
            return
        self._writer.end()
        self._close_sent = True
        self._queue.drop()
        self._keepalive.stop()
        self._close_at_once()

    def _close_at_once(self, code: int | None = None, reason: str | None = None) -> None:
        """Close without an answer of the client, which may be sending, and must get our last messages all the same."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            with suppress(OSError):  # no descriptor is left: without lingering, then
                self._last_socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._close_received = True
        self.close(code, reason)

    def _abort_after_timeout(self) -> None:
        if self._closing_timer is not None:
            self._closing_timer.cancel()
        self._closing_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._abort)

    def _abort(self) -> None:
        self._close_received = self._close_sent = True
        if self._transport is not None:
            self._transport.abort()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._close_received = self._close_sent = True
        self._transport = None
        if self._closing_timer is not None:
            self._closing_timer.cancel()
        self._keepalive.stop()
        self._queue.drop()
        self._writer.is_open = False
        if self._last_socket is not None:
            self._lingering.close(self._last_socket)
            self._last_socket = None
        self._handler.on_ws_connection_close(self.close_code, self.close_reason)

    def on_connection_close(self) -> None:
        """The handler lets go of the connection after `on_ws_connection_close`; nothing is left to do."""
