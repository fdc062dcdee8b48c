"""The load's WebSocket and HTTP connections. They do as little as possible, so that the server is the limit.

The client knows no server's protocol: an `Endpoint` says where to connect, what to exchange then, and what a message looks like.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

OPEN_TIMEOUT_SECONDS = 60.0
READ_BUFFER_BYTES = 4096
MAX_RETRIES = 30

# What precedes the time in every message; the time is 16 hexadecimal digits of nanoseconds.
TIME_MARK = b'"t":"'
TIME_DIGITS = 16
# A text with many letters: a server that scans each byte must not be helped by repetition.
_PROSE = "the quick brown fox jumps over the lazy dog "


class HandshakeFailed(Exception):
    """The server did not accept the upgrade."""


class Refused(Exception):
    """The server accepted the upgrade, and then refused the device or its request."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one connection goes. `script`: steps ("wait", text of a frame) and ("send", frame) after the upgrade.

    A message is `before`, the time and `after`. `access` and `token_path`: the access token, and where a WebSocket
    token is made with it, of a server that needs one.
    """

    url: str
    script: list[tuple[str, str]] = field(default_factory=list)
    before: str = ""
    after: str = ""
    binary: bool = False
    access: str = ""
    token_path: str = ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    def with_token(self, token: str) -> str:
        """The URL with that token in place of the one it has."""
        return f"{self.url.partition('?token=')[0]}?token={token}"

    def message(self, nanoseconds: int) -> bytes:
        return f"{self.before}{nanoseconds:016x}{self.after}".encode()


# What the first sends the second receives.
Pair = tuple[Endpoint, Endpoint]


def both(pairs: Sequence[Pair]) -> list[Endpoint]:
    """The endpoints of the pairs, one after the other."""
    return [endpoint for pair in pairs for endpoint in pair]


def frame_template(head: str, tail: str, size_bytes: int) -> tuple[str, str]:
    """`before` and `after` of a message whose frame has that size in all. `head` and `tail`: its envelope."""
    before, end = head + '{"t":"', '"}' + tail
    filling = size_bytes - len(before) - TIME_DIGITS - len('","text":"') - len(end)
    if filling < 0:
        raise ValueError(f"no message of {size_bytes} bytes fits its envelope")
    text = (_PROSE * (filling // len(_PROSE) + 1))[:filling]
    return before, f'","text":"{text}{end}'


def sent_times(data: bytes) -> list[int]:
    """The times in a frame: a server may put several messages into one."""
    times = []
    at = data.find(TIME_MARK)
    while at >= 0:
        at += len(TIME_MARK)
        times.append(int(data[at : at + TIME_DIGITS], 16))
        at = data.find(TIME_MARK, at)
    return times


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of the values do not exceed; not a number for none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


class Connection(WSListener):
    """One connection. `receive` gets each frame once the script is done.

    A request that the server refuses as retryable is sent again a little later: `retries` counts them.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.retries = 0
        self.receive: Callable[[bytes], None] | None = None
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._steps = deque(endpoint.script)
        self._kind = WSMsgType.BINARY if endpoint.binary else WSMsgType.TEXT
        self._transport: WSTransport | None = None
        self._last_sent = b""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._continue_script()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            transport.disconnect()
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
            data = frame.get_payload_as_bytes()
            if not self.joined.done():
                self._receive_scripted(data)
            elif self.receive is not None:
                self.receive(data)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._fail("the server closed the connection")

    def _receive_scripted(self, data: bytes) -> None:
        if data.startswith(b'{"type":"error"'):
            self._retry(data)
        elif self._steps and self._steps[0][1].encode() in data:
            self._steps.popleft()
            self._continue_script()

    def _continue_script(self) -> None:
        while self._steps and self._steps[0][0] == "send":
            self._last_sent = self._steps.popleft()[1].encode()
            self.send(self._last_sent)
        if not self._steps and not self.joined.done():
            self.joined.set_result(None)

    def _retry(self, error: bytes) -> None:
        if b'"retryable":true' not in error or self.retries == MAX_RETRIES:
            self._fail(error.decode())
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


async def connect(endpoint: Endpoint) -> Connection:
    """Connect and go through the endpoint's script. Raises HandshakeFailed, Refused."""
    connection = Connection(endpoint)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            await _upgrade(connection)
            await connection.joined
    except TimeoutError:
        connection.close()
        raise Refused("the server did not answer in time") from None
    except BaseException:
        connection.close()
        raise
    return connection


async def _upgrade(connection: Connection) -> None:
    try:
        await ws_connect(
            lambda: connection,
            connection.endpoint.url,
            websocket_handshake_timeout=OPEN_TIMEOUT_SECONDS / 2,
            read_buffer_init_size=READ_BUFFER_BYTES,
        )
    except (OSError, WSError) as error:
        raise HandshakeFailed(f"{type(error).__name__}: {error}") from None


async def connect_all(endpoints: Sequence[Endpoint], at_once: int = 32) -> list[Connection]:
    """Connect all, `at_once` at a time. Raises as `connect` does."""
    free = asyncio.Semaphore(at_once)

    async def one(endpoint: Endpoint) -> Connection:
        async with free:
            return await connect(endpoint)

    return list(await asyncio.gather(*map(one, endpoints)))


def close_all(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.close()


class HttpConnection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        # The status line and the headers of the last answer.
        self.head = b""

    @classmethod
    async def open(cls, port: int) -> HttpConnection:
        _, protocol = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return protocol

    async def post(self, path: str, body: str, access: str = "", address: str = "") -> tuple[int, bytes]:
        """The status and the body of the answer. `address`: the client's, as a proxy says it. Raises ConnectionError."""
        head = [f"POST {path} HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        if address:
            head.append(f"X-Forwarded-For: {address}")
        return await self._request(head, access, body)

    async def delete(self, path: str, access: str) -> tuple[int, bytes]:
        """As `post`."""
        return await self._request([f"DELETE {path} HTTP/1.1"], access, "")

    async def get(self, path: str, access: str = "") -> tuple[int, bytes]:
        """As `post`."""
        return await self._request([f"GET {path} HTTP/1.1"], access, "")

    async def _request(self, head: list[str], access: str, body: str) -> tuple[int, bytes]:
        if access:
            head.append(f"Authorization: Bearer {access}")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write("\r\n".join([*head, "Host: bench", "", body]).encode())
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
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self._transport.close()


async def read_metrics(port: int) -> dict[str, float]:
    """The server's metrics: name with its labels → value."""
    http = await HttpConnection.open(port)
    _, body = await http.get("/metrics")
    http.close()
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def ws_token(http: HttpConnection, endpoint: Endpoint) -> str | None:
    """A fresh WebSocket token for the endpoint; None if the server made none."""
    status, body = await http.post(endpoint.token_path, "{}", endpoint.access)
    return str(json.loads(body)["token"]) if status == 200 else None


async def pair_new_devices(http: HttpConnection, access: str, address: str = "") -> bool:
    """Make a code and redeem it, for two new devices of one account; whether both succeeded."""
    name = uuid4().hex
    request = json.dumps({"desktop_session_id": f"desktop-{name}"})
    status, body = await http.post("/api/generate-pair-code", request, access, address)
    if status != 200:
        return False
    request = json.dumps({"code": json.loads(body)["code"], "mobile_session_id": f"mobile-{name}"})
    status, _ = await http.post("/api/pair-device", request, access, address)
    return status == 200
