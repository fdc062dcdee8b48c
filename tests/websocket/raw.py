"""A WebSocket client by the byte: it sends any bytes, and reads only when a test calls `read` or `rest`."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple

from tests.devices import Site

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Frame(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int | None:
        """None too for a close frame without a code."""
        if self.opcode != CLOSE or not self.payload:
            return None
        code: int = struct.unpack(">H", self.payload[:2])[0]
        return code


class RawSocket:
    """One TCP connection to /ws."""

    _socket: socket.socket

    def __init__(self) -> None:
        self._received = b""

    async def open(
        self, site: Site, query: str = "", headers: Mapping[str, str] | None = None, *, behind: bytes = b""
    ) -> bytes:
        """Ask for the upgrade, and send `behind` with it at once. The head of the answer."""
        loop = asyncio.get_running_loop()
        self._socket = socket.socket()
        # Closed at the latest with the site.
        site.sockets.append(self)
        self._socket.setblocking(False)
        # What the server sends waits in the server, not here.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(self._socket, ("127.0.0.1", site.port))
        fields = {
            "Host": f"127.0.0.1:{site.port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **(headers or {}),
        }
        lines = [f"GET /ws{query} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        await self.send_bytes("\r\n".join(lines).encode() + behind)
        while b"\r\n\r\n" not in self._received:
            await self._fill()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head

    async def send_bytes(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        await self.send_bytes(frame(opcode, payload, final=final))

    async def _fill(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        if not data:
            raise EOFError
        self._received += data

    async def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            await self._fill()
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    async def read(self) -> Frame:
        """The next frame. Raises EOFError or ConnectionError if the server has gone."""
        first, length = await self._take(2)
        if length == 126:
            length = struct.unpack(">H", await self._take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", await self._take(8))[0]
        return Frame(first & 0x0F, await self._take(length))

    async def rest(self) -> list[Frame]:
        """All frames until the server closes the connection; a close frame is answered."""
        frames = []
        try:
            while True:
                frames.append(await self.read())
                if frames[-1].opcode == CLOSE:
                    await self.send(CLOSE, frames[-1].payload[:2])
        except (EOFError, ConnectionError):
            return frames

    @property
    def address(self) -> object:
        """As the server sees it."""
        return self._socket.getsockname()

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Go without a word: the server gets an RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    head = bytes([opcode | (0x80 if final else 0)])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack(">BH", 0x80 | 126, len(payload))
    else:
        head += struct.pack(">BQ", 0x80 | 127, len(payload))
    return head + bytes(4) + payload
