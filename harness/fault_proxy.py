"""A TCP proxy that does to connections what networks do: nothing, silence, resets, delay, a narrow line, a cut.

A change holds for open connections and later ones, with one exception: a silenced connection stays silent, as a firewall
that has forgotten a connection never passes it on again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

CHUNK = 65536
# Gets the bytes that the client sends: "before" cuts the connection instead of passing them on, "after" cuts it then, so that
# the answer is lost.
Cut = Callable[[bytes], str | None]


@dataclass(eq=False)
class _Line:
    """One client's connection and the one to the server."""

    up: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    down: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    silent: bool = False
    sent: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        for _, writer in (self.up, self.down):
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class FaultProxy:
    """Listens on a port of its own and passes on to `host` and `port`, or to the Unix socket `path`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, path: str | None = None) -> None:
        self.target = (host, port)
        self.path = path
        self.port = 0
        self.accepted = 0
        self.lines: set[_Line] = set()
        self._server: asyncio.Server | None = None
        self._healed = asyncio.Event()
        self.heal()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    # What it does

    def heal(self) -> None:
        """Pass everything on, at once."""
        self._silent = self._refusing = False
        self._delay = 0.0
        self._rate: float | None = None
        self._limit: int | None = None
        self._cut: Cut | None = None
        self._healed.set()
        self._healed = asyncio.Event()

    def blackhole(self) -> None:
        """Take everything, pass nothing on, and reset no connection."""
        self._silent = True
        for line in self.lines:
            line.silent = True

    def reset(self) -> None:
        """Reset all connections, and those to come."""
        self._refusing = True
        for line in list(self.lines):
            line.reset()

    def forget(self) -> None:
        """Close the silenced connections on the server's side, as a timeout does some day."""
        for line in list(self.lines):
            if line.silent:
                _abort(line.down[1])

    def delay(self, seconds: float) -> None:
        """Pass on what the client sends that much later."""
        self._delay = seconds

    def throttle(self, bytes_per_second: float) -> None:
        """Limit the rate of both directions."""
        self._rate = bytes_per_second

    def cut_after(self, count: int) -> None:
        """Reset each connection once that many more bytes of its client have passed."""
        self._limit = count
        for line in self.lines:
            line.sent = 0

    def cut_when(self, cut: Cut) -> None:
        self._cut = cut

    # How it does it

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            _abort(writer)
            return
        try:
            if self.path is not None:
                down = await asyncio.open_unix_connection(self.path)
            else:
                down = await asyncio.open_connection(*self.target)
        except OSError:
            _abort(writer)
            return
        line = _Line((reader, writer), down, silent=self._silent)
        self.lines.add(line)
        line.tasks = [
            asyncio.ensure_future(self._pump(line, reader, down[1], upwards=True)),
            asyncio.ensure_future(self._pump(line, down[0], writer, upwards=False)),
        ]
        await asyncio.wait(line.tasks)
        self.lines.discard(line)
        if line.silent:
            # Both have closed, and neither has seen the other close.
            line.reset()

    async def _pump(
        self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upwards: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if line.silent:
                    continue
                if upwards and self._delay:
                    await self._pause(self._delay)
                if self._rate:
                    await self._pause(len(data) / self._rate)
                if line.silent:
                    continue
                if upwards and await self._cuts(line, data, writer):
                    return
                writer.write(data)
                await writer.drain()
        if not line.silent:
            writer.close()

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until `heal` is called."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._healed.wait(), seconds)

    async def _cuts(self, line: _Line, data: bytes, writer: asyncio.StreamWriter) -> bool:
        when = self._cut(data) if self._cut is not None else None
        line.sent += len(data)
        if self._limit is not None and line.sent > self._limit:
            when = when or "before"
        if when is None:
            return False
        if when == "after":
            line.silent = True  # the answer is lost
            writer.write(data)
            await writer.drain()
            # The server has received it, and closes properly.
            writer.write_eof()
            await asyncio.wait([line.tasks[1]])
        line.reset()
        return True

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for line in list(self.lines):
            line.silent = False
            line.reset()
            await asyncio.wait(line.tasks)
        await asyncio.sleep(0)
