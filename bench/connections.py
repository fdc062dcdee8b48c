"""The load's own WebSocket and HTTP connections: as lean as can be, so that the server is what is measured."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.wire import Seat

OPEN_TIMEOUT = 60.0
READ_BUFFER = 4096


class Refused(Exception):
    """The server did not let the seat be taken."""


class Connection(WSListener):
    """One seat's connection. `receive` gets each frame once the script is done."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.receive: Callable[[bytes], None] | None = None
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._steps = deque(seat.script)
        self._kind = WSMsgType.BINARY if seat.binary else WSMsgType.TEXT
        self._transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._go_on()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            transport.disconnect()
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
            data = frame.get_payload_as_bytes()
            if not self.joined.done():
                self._greeted(data)
            elif self.receive is not None:
                self.receive(data)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._fail("the server hung up")

    def _greeted(self, data: bytes) -> None:
        if data.startswith(b'{"type":"error"'):
            self._fail(data.decode())
        elif self._steps and self._steps[0][1].encode() in data:
            self._steps.popleft()
            self._go_on()

    def _go_on(self) -> None:
        while self._steps and self._steps[0][0] == "send":
            self.send(self._steps.popleft()[1].encode())
        if not self._steps and not self.joined.done():
            self.joined.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.joined.done():
            self.joined.set_exception(Refused(why))

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.send(self._kind, data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.disconnect()


async def take(seat: Seat, token: str = "") -> Connection:
    """Take the seat, through the end of its script. Raises Refused, OSError, TimeoutError or picows' own."""
    connection = Connection(seat)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            await ws_connect(
                lambda: connection,
                seat.url + token,
                websocket_handshake_timeout=OPEN_TIMEOUT,
                read_buffer_init_size=READ_BUFFER,
            )
            await connection.joined
    except BaseException:
        connection.close()
        raise
    return connection


async def take_all(seats: Sequence[Seat], at_once: int = 32) -> list[Connection]:
    """Take all the seats, so many at once. Raises as `take` does."""
    free = asyncio.Semaphore(at_once)

    async def one(seat: Seat) -> Connection:
        async with free:
            return await take(seat)

    return list(await asyncio.gather(*(one(seat) for seat in seats)))


class Http(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, port: int) -> Http:
        _, protocol = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return protocol

    async def post(self, path: str, body: str, access: str = "") -> tuple[int, bytes]:
        """The status and the body of the answer. Raises ConnectionError if the server hangs up."""
        self._answer = asyncio.get_running_loop().create_future()
        authorization = f"Authorization: Bearer {access}\r\n" if access else ""
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\n{authorization}Content-Type: application/json\r\n"
        self._transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or self._answer is None:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._received = body[length:]
            answer, self._answer = self._answer, None
            answer.set_result((int(head[9:12]), body[:length]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server hung up"))

    def close(self) -> None:
        self._transport.close()


def port_of(url: str) -> int:
    return urlsplit(url).port or 80
