"""What one connection has sent: its messages are served one at a time and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pairing_server.websocket.frame_writer import write_batch

# So many messages of one read are served in one turn of the event loop.
BURST = 20

OnMessage = Callable[[str | bytes, float], Awaitable[None] | None]


class ReceiveQueue:
    """Calls `on_message` with each message and the time, and `on_error` with what it raises.

    While a message that must be awaited is served, and for a turn of the loop after a burst, the transport is not
    read, and what has been read already waits here.
    """

    __slots__ = ("_now", "_on_error", "_on_message", "_then", "_transport", "_waiting", "burst", "held")

    def __init__(
        self,
        transport: asyncio.Transport,
        on_message: OnMessage,
        on_error: Callable[[BaseException], None],
        now: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._on_message = on_message
        self._on_error = on_error
        self._now = now
        self.held = False
        self._waiting: list[str | bytes] = []
        self._then: Callable[[], None] | None = None
        # Messages of this read that have been served.
        self.burst = 0

    def put(self, message: str | bytes, now: float) -> None:
        """Serve the message, or let it wait."""
        if self.held:
            self._waiting.append(message)
            return
        try:
            rest = self._on_message(message, now)
        except Exception as error:
            self._on_error(error)
            return
        if rest is not None:
            self._hold()
            asyncio.ensure_future(rest).add_done_callback(self._served)
        elif write_batch.is_open:
            self.burst += 1
            if self.burst == BURST:
                self._hold()
                asyncio.get_running_loop().call_soon(self._resume)

    def finish(self, then: Callable[[], None]) -> None:
        """The client sends nothing more: call `then` once what waits is served. It closes the transport."""
        if self.held:
            self._then = then
        else:
            then()

    def drop(self) -> None:
        """Serve nothing more; what is read from now on is the caller's to drop."""
        self._waiting.clear()
        self._then = None
        if self.held:
            self._transport.resume_reading()

    def _hold(self) -> None:
        self.held = True
        self._transport.pause_reading()

    def _served(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._on_error(error)
        self._resume()

    def _resume(self) -> None:
        """Serve what waits, and then read again."""
        self.held = False
        self.burst = 0
        write_batch.is_open = True
        try:
            while self._waiting and not self.held:
                self.put(self._waiting.pop(0), self._now())
            if self._then is not None and not self.held:
                then, self._then = self._then, None
                then()
        finally:
            write_batch.end()
        if not self.held:
            self._transport.resume_reading()
