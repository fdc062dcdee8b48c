"""How a socket passes from Tornado to picows: by its descriptor, and with the upgrade once more.

tests/websocket/test_picows_guard.py guards what this leans on of both beyond what they promise.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from picows import WSAutoPingStrategy, WSListener, WSUpgradeResponse
from picows.common import WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from tornado.iostream import IOStream, StreamClosedError

# Linux would let the kernel's buffers grow to megabytes: the one for sending would hide a slow client and age its
# audio, and what is received at once has to be held by this process.
SEND_BUFFER = 128 * 1024
RECEIVE_BUFFER = 64 * 1024

# picows logs each connection; that is the audit log's business. Of a Logger it would make one for each connection.
_picows_log = logging.LoggerAdapter(logging.getLogger("picows"))
_picows_log.setLevel(logging.CRITICAL)

# It doubles while a read fills it, so it grows with what a client sends, up to what the kernel holds at once.
READ_BUFFER = 512
_CLOSE = 0x88


# Called with a close code and its reason if a frame breaks the protocol.
Refuse = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An upgrade that Tornado has checked: the client's Sec-WebSocket-Key, and the sub-protocol selected for it."""

    key: str
    subprotocol: str | None


async def hand_over(
    stream: IOStream, upgrade: Upgrade, listener: WSListener, refuse: Refuse, max_frame_size: int
) -> asyncio.Transport:
    """Let picows serve the socket of the upgrade; the event loop's transport.

    Raises StreamClosedError if the client has gone meanwhile.
    """
    if stream.closed():
        raise StreamClosedError
    early = bytes(stream._read_buffer[: stream._read_buffer_size])
    own = _take_socket(stream)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    parser = _Parser(early, upgrade, listener, refuse, max_frame_size)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: parser, own)
    return transport


def _take_socket(stream: IOStream) -> socket.socket:
    """The stream's socket; the stream is closed without it.

    It keeps the number of its descriptor, by which web/descriptors.py counts those in use.
    """
    stream.io_loop.remove_handler(stream.fileno())
    stream._state = None
    own = socket.socket(fileno=stream.socket.detach())
    own.setblocking(False)
    stream.close()
    return own


def _upgrade(key: str) -> bytes:
    """The upgrade, as far as picows needs it to answer."""
    return (
        "GET / HTTP/1.1\r\nHost: pairing-server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


class TransportProxy:
    """The transport as picows sees it: picows may answer the upgrade, but the listener closes.

    picows looks one frame ahead, and closes for that one before it hands out the one before.
    """

    __slots__ = ("_refuse", "_refused", "real")

    def __init__(self, real: asyncio.Transport, refuse: Refuse) -> None:
        self.real = real
        self._refuse = refuse
        self._refused = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_write_buffer_size(self) -> int:
        """Never 0: with an empty buffer picows would write past us."""
        return 1

    def write(self, data: bytes) -> None:
        if data[0] != _CLOSE:
            self.real.write(data)
        elif not self._refused:
            self._refused = True
            self.real.pause_reading()
            code, reason = int.from_bytes(data[2:4], "big"), bytes(data[4:]).decode()
            asyncio.get_running_loop().call_soon(self._refuse, code, reason)

    def close(self) -> None:
        # After a refusal the listener closes, once it has served what came before.
        if not self._refused:
            self.real.close()


class _Parser(WSProtocol):  # type: ignore[misc]
    """picows' protocol: it first reads the upgrade and what came `early` behind it, then the socket."""

    def __init__(
        self, early: bytes, upgrade: Upgrade, listener: WSListener, refuse: Refuse, max_frame_size: int
    ) -> None:
        extra = {"Sec-WebSocket-Protocol": upgrade.subprotocol} if upgrade.subprotocol else {}
        accepted: Callable[[object], WSUpgradeResponseWithListener] = lambda _: WSUpgradeResponseWithListener(  # noqa: E731
            WSUpgradeResponse.create_101_response(extra), listener
        )
        super().__init__(
            host_port=None,  # a client's
            ws_path="/",
            is_client_side=False,
            ws_listener_factory=accepted,
            logger=_picows_log,
            disconnect_on_exception=True,
            websocket_handshake_timeout=None,  # the handshake is done
            enable_auto_ping=False,
            auto_ping_idle_timeout=None,
            auto_ping_reply_timeout=None,
            auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=False,  # pings are ours to count and to answer
            max_frame_size=max_frame_size,
            extra_headers=None,
            read_buffer_init_size=READ_BUFFER,
        )
        self._received = _upgrade(upgrade.key) + early
        self._refuse = refuse

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(TransportProxy(transport, self._refuse))
        received, self._received = self._received, b""
        while received:
            # As the event loop would.
            buffer = self.get_buffer(-1)
            size = min(len(buffer), len(received))
            buffer[:size] = received[:size]
            self.buffer_updated(size)
            received = received[size:]
