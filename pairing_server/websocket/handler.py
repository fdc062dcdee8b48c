"""The WebSocket: hands messages to the session, and what the session cannot do itself to the services."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from time import perf_counter

from pairing_server.errors import Internal, PairingServerError
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection import Connection
from pairing_server.relay.send_queue import SendQueue
from pairing_server.websocket.commands import Asking

log = logging.getLogger(__name__)

# One in 64 messages is timed, and may show a busy client: a mask of how many the connection has received.
SAMPLED = 63


class PairingSocket(Asking):
    """GET /ws: one device's connection."""

    # Messages

    def on_message(self, message: str | bytes, now: float | None = None) -> Awaitable[None] | None:
        """Nothing further is read until what this returns is done. `now`: of an engine that has just asked."""
        connection = self.connection
        if connection is None or connection.closing:
            return None
        began = 0.0 if connection.received & SAMPLED else perf_counter()
        try:
            rest = connection.receive(message, self.app.now() if now is None else now)
        except PairingServerError as error:
            connection.refuse(error, self.app.now())
            if error.code == "PAYLOAD_TOO_LARGE":
                self._record(
                    "msg.too_large", "denied", limit=error.details["limit"], size=error.details["size"]
                )
            return None
        except Exception:
            log.exception("a message failed", extra=self._ids())
            connection.refuse(Internal(), self.app.now())
            return None
        if rest is None:
            if began:
                self._sampled(connection, perf_counter() - began)
            return None
        return self._relieved(rest) if isinstance(rest, SendQueue) else self._serve(connection, rest)

    def _sampled(self, connection: Connection, seconds: float) -> None:
        self.app.relay_time.observe(seconds)
        if connection.received > SAMPLED:
            self._transport.busy()

    @staticmethod
    def _relieved(send_queue: SendQueue) -> asyncio.Future[None]:
        relieved = asyncio.get_running_loop().create_future()

        def call() -> None:
            if not relieved.done():
                relieved.set_result(None)

        send_queue.when_relieved(call)
        return relieved

    def _abuse(self, kind: str) -> None:
        if self.connection is not None:
            self.connection.abuse(kind)
        else:
            self.close(CloseCode.RATE_LIMITED, f"too many {kind}")

    # The end

    def on_close(self) -> None:
        self._end_life()
        connection = self.connection
        if connection is None:
            return
        ids = self._ids()
        self.connection = None
        by_server = connection.close_code is not None
        channel = self.app.hub.closed(connection, "Connection closed", self.app.now())
        self._record(
            "ws.disconnected",
            "success",
            close_code=connection.close_code or self.close_code,
            by="server" if by_server else "client" if self.close_code else "network",
            duration_s=round(self.app.now() - connection.opened_at),
            messages_in=connection.received,
        )
        code = connection.close_code or self.close_code
        log.info("connection closed, code %s, after %d messages", code, connection.received, extra=ids)
        if channel is not None:
            self._record("channel.left", "success", pairing=channel.pairing_id, slot=connection.device_type)
            self._left(channel)

    def _end_life(self) -> None:
        connection = self.connection
        code = (connection.close_code if connection is not None else None) or self.close_code
        if code is not None:
            self.span.set_attribute("pairing.close_code", int(code))
        if connection is not None:
            self.span.set_attribute("pairing.messages_received", connection.received)
        self.span.end()
