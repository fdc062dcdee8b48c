"""How frames become messages, below the handlers. Tornado's own protocol, with floods counted.

Frames without a message (empty fragments, pings) never reach `on_message`, so they are counted here.
"""

from __future__ import annotations

from collections.abc import Callable

from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from pairing_server.relay.limits import RelayLimits, TokenBucket


class CountingProtocol(WebSocketProtocol13):
    """Tornado's protocol; `on_abuse` is called once with "frames", "pings" or "fragments" too many."""

    def __init__(
        self,
        handler: WebSocketHandler,
        stock: WebSocketProtocol13,
        limits: RelayLimits,
        now: Callable[[], float],
        on_abuse: Callable[[str], None],
    ) -> None:
        super().__init__(handler, False, stock.params)
        self._limits = limits
        self._now = now
        self._on_abuse = on_abuse
        started = now()
        # A burst of two seconds: a message burst and its audio together are no flood.
        self._frames = TokenBucket(limits.frame_rate, 2 * limits.frame_rate, started)
        self._pings = TokenBucket(limits.ping_count / limits.ping_seconds, limits.ping_count, started)
        self._fragments = 0

    async def _receive_frame(self) -> None:
        await super()._receive_frame()
        self._fragments = 0 if self._fragmented_message_buffer is None else self._fragments + 1
        if self._frames.take(self._now()):
            self._abuse("frames")
        elif self._fragments > self._limits.fragments:
            self._abuse("fragments")

    def ping_received(self) -> None:
        """The handler has seen a ping."""
        if self._pings.take(self._now()):
            self._abuse("pings")

    def _abuse(self, kind: str) -> None:
        if not self.server_terminated:
            self._on_abuse(kind)
