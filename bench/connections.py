"""The load's own WebSocket and HTTP connections: as lean as can be, so that the server is what is measured."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.wire import Seat

OPEN_TIMEOUT = 60.0
READ_BUFFER = 4096
MAX_RETRIES = 30


class HandshakeFailed(Exception):
    """The server did not answer the upgrade as it should."""


class Refused(Exception):
    """The server answered the upgrade, but did not let the seat be taken."""


class Connection(WSListener):
    """One seat's connection. `receive` gets each frame once the script is done.

    What the server refuses for the moment only is sent again a little later: `retries` says how often.
    """

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.retries = 0
        self.receive: Callable[[bytes], None] | None = None
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._steps = deque(seat.script)
        self._kind = WSMsgType.BINARY if seat.binary else WSMsgType.TEXT
        self._transport: WSTransport | None = None
        self._last_sent = b""

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
            self._refused(data)
        elif self._steps and self._steps[0][1].encode() in data:
            self._steps.popleft()
            self._go_on()

    def _go_on(self) -> None:
        while self._steps and self._steps[0][0] == "send":
            self._last_sent = self._steps.popleft()[1].encode()
            self.send(self._last_sent)
        if not self._steps and not self.joined.done():
            self.joined.set_result(None)

    def _refused(self, data: bytes) -> None:
        if b'"retryable":true' not in data or self.retries == MAX_RETRIES:
            self._fail(data.decode())
            return
        self.retries += 1
        later = asyncio.get_running_loop().call_later
        later(random.uniform(0.1, 0.5), lambda: self.send(self._last_sent))

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
    """Take the seat, through the end of its script. Raises HandshakeFailed, Refused."""
    connection = Connection(seat)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            await _shake_hands(connection, seat.url + token)
            await connection.joined
    except TimeoutError:
        connection.close()
        raise Refused("the server did not go on in time") from None
    except BaseException:
        connection.close()
        raise
    return connection


async def _shake_hands(connection: Connection, url: str) -> None:
    try:
        await ws_connect(
            lambda: connection,
            url,
            websocket_handshake_timeout=OPEN_TIMEOUT / 2,
            read_buffer_init_size=READ_BUFFER,
        )
    except (OSError, WSError) as error:
        raise HandshakeFailed(f"{type(error).__name__}: {error}") from None


async def take_all(seats: Sequence[Seat], at_once: int = 32) -> list[Connection]:
    """Take all the seats, so many at once. Raises as `take` does."""
    free = asyncio.Semaphore(at_once)

    async def one(seat: Seat) -> Connection:
        async with free:
            return await take(seat)

    return list(await asyncio.gather(*(one(seat) for seat in seats)))


def close_all(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.close()


class Http(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        # What came before the body of the last answer.
        self.head = b""

    @classmethod
    async def open(cls, port: int) -> Http:
        _, protocol = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return protocol

    async def post(self, path: str, body: str, access: str = "", address: str = "") -> tuple[int, bytes]:
        """The status and the body of the answer. Raises ConnectionError if the server hangs up."""
        head = [f"POST {path} HTTP/1.1", "Host: bench", "Content-Type: application/json"]
        if access:
            head.append(f"Authorization: Bearer {access}")
        if address:
            head.append(f"X-Forwarded-For: {address}")
        head.append(f"Content-Length: {len(body)}")
        return await self._ask(head, body)

    async def get(self, path: str, access: str = "") -> tuple[int, bytes]:
        """As `post`."""
        head = [f"GET {path} HTTP/1.1", "Host: bench"]
        return await self._ask([*head, f"Authorization: Bearer {access}"] if access else head, "")

    async def _ask(self, head: Sequence[str], body: str) -> tuple[int, bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write("\r\n".join([*head, "", body]).encode())
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
            self._received, self.head = body[length:], head
            answer, self._answer = self._answer, None
            answer.set_result((int(head[9:12]), body[:length]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server hung up"))

    def close(self) -> None:
        self._transport.close()


def port_of(url: str) -> int:
    return urlsplit(url).port or 80
