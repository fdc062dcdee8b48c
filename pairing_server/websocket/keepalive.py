"""Whether a client is still there: it is pinged, and must answer in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pairing_server.relay.connection_limits import ConnectionLimits
from pairing_server.websocket.frame_writer import PING, FrameWriter


class Keepalive:
    """Pings a client, and calls `on_timeout` when no pong has come in time."""

    __slots__ = ("_limits", "_on_timeout", "_timer", "_writer", "pong_received")

    def __init__(self, writer: FrameWriter, limits: ConnectionLimits, on_timeout: Callable[[], None]) -> None:
        self._writer = writer
        self._limits = limits
        self._on_timeout = on_timeout
        self._timer: asyncio.TimerHandle | None = None
        self.pong_received = False

    def start(self) -> None:
        """An interval of 0 means no pings."""
        if self._limits.ping_interval:
            self._after(self._limits.ping_interval, self._ping)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, act)

    def _ping(self) -> None:
        self.pong_received = False
        self._writer.write_control(PING, b"")
        self._after(self._limits.ping_timeout, self._check)

    def _check(self) -> None:
        if self.pong_received:
            self._after(max(0.0, self._limits.ping_interval - self._limits.ping_timeout), self._ping)
        else:
            self._on_timeout()
