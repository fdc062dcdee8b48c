"""The WebSocket handler: its messages go to the connection, and what that cannot handle itself to services."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from http import HTTPStatus
from time import perf_counter
from typing import cast
from uuid import uuid4

from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from pairing_server.clock import utcnow
from pairing_server.errors import (
    Forbidden,
    Internal,
    LoginEnded,
    PairingServerError,
    SessionConflict,
    TokenMismatch,
)
from pairing_server.relay import messages
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection import Connection
from pairing_server.relay.identity import Peer
from pairing_server.relay.members import Member
from pairing_server.relay.requests import ClientMessage
from pairing_server.relay.send_queue import Transport
from pairing_server.security.tokens import WsClaims
from pairing_server.text import clean
from pairing_server.tracing import NOTHING
from pairing_server.web.authentication import select_subprotocol
from pairing_server.web.base_handler import BaseHandler
from pairing_server.websocket.commands import COMMANDS, CommandContext
from pairing_server.websocket.engine import PicowsProtocol
from pairing_server.websocket.handshake import Handshake, Refusal, identity_of, known

log = logging.getLogger(__name__)

# One in 64 messages is timed, and may show a busy client: a mask of how many the connection has received.
SAMPLED = 63
_NO_HEADERS = HTTPHeaders()


class PairingSocket(BaseHandler, WebSocketHandler):
    """GET /ws: one device's connection. `handshake` is there until it is open, `connection` while it is."""

    handshake: Handshake | None = None
    connection: Connection | None = None

    @classmethod
    def methods(cls) -> list[str]:
        return ["GET"]

    # Opening

    async def prepare(self) -> None:
        self.trace()
        self.context = replace(self.anonymous(), connection_id=uuid4())
        self.handshake = Handshake(self.app, self.context)
        await self.handshake.verify(self.request)

    def check_origin(self, origin: str) -> bool:
        """The handshake has checked every Origin; Tornado calls this only for some."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return select_subprotocol(subprotocols)

    def get_websocket_protocol(self) -> WebSocketProtocol:
        app = self.app
        engine = PicowsProtocol(self, app.hub.context.limits, app.now, self._close_for_abuse, app.lingering)
        # It has what a handler calls of one.
        return cast(WebSocketProtocol, engine)

    def open(self, *_: str, **__: str) -> None:
        try:
            self._admit()
        except Exception:
            log.exception("connection not opened", extra=self._ids())
            self.close(CloseCode.INTERNAL, "internal error")
        self._release_handshake()
        self._trace_connection()

    def _admit(self) -> None:
        handshake = self.handshake
        if handshake is None:
            return
        if (refusal := handshake.refusal()) is not None:
            self._turn_away(refusal)
        elif handshake.claims is not None:
            self._begin(handshake.claims, handshake.token_via)

    def _turn_away(self, refusal: Refusal) -> None:
        error = refusal.error
        self.app.hub.context.counters.refused[error.code] += 1
        self._transport.write(messages.encode(messages.error_message(error)), False)
        self.close(refusal.close_code, refusal.reason)

    def _begin(self, claims: WsClaims, token_via: str) -> None:
        hub, now = self.app.hub, self.app.now()
        identity = identity_of(claims, utcnow(), now)
        context = self.context = known(self.context, identity)
        peer = Peer(
            str(context.connection_id),
            identity,
            context.address or "",
            context.address_key,
        )
        connection = self.connection = Connection(peer, self._transport, hub.context, COMMANDS, now)
        # The original clients know one way for the token, and no sub-protocol.
        offers = "Sec-WebSocket-Protocol" in self.request.headers
        connection.uses_additions = token_via in ("header", "subprotocol") or offers
        hub.add(connection)
        self.app.rates.charge("connect", claims.subject, now)
        connection.send_message(messages.Connected(client_id=peer.connection_id))
        log.info("connection opened", extra={"device_type": claims.device_type, **self._ids()})
        CommandContext(self.app, connection, context).record(
            "ws.connected",
            "success",
            token_via=token_via,
            jti=claims.token_id,
            device_type=claims.device_type,
            origin=self.request.headers.get("Origin"),
            ua=clean(self.request.headers.get("User-Agent", "")),
        )

    def _release_handshake(self) -> None:
        """Most connections are idle most of the time: what only the upgrade needed is freed."""
        self.handshake = None
        request = self.request
        request.headers = self._headers = _NO_HEADERS
        request.arguments = request.query_arguments = request.body_arguments = {}
        request.files = {}
        # They hold the stream that Tornado read the upgrade from.
        request.connection = request.server_connection = None

    def _trace_connection(self) -> None:
        """The upgrade's span is over; that of the connection begins below it. Messages have none."""
        if self.span is NOTHING:
            return
        upgrade = self.span
        self.end_span(HTTPStatus.SWITCHING_PROTOCOLS)
        self.span = self.app.traces.begin("websocket", parent=upgrade)
        for name, value in self._ids().items():
            self.span.set_attribute(f"pairing.{name}", value)
        # The task may read the frames from now on.
        self.span.leave()

    @property
    def _transport(self) -> Transport:
        """The engine's protocol is one."""
        return cast(Transport, self.ws_connection)

    # Messages

    def on_message(self, message: str | bytes, now: float | None = None) -> Awaitable[None] | None:
        """Nothing further is read until what this returns is done. `now`: given by an engine that has just read it."""
        connection = self.connection
        if connection is None or connection.closing:
            return None
        began = 0.0 if connection.received & SAMPLED else perf_counter()
        try:
            rest = connection.receive(message, self.app.now() if now is None else now)
        except PairingServerError as error:
            self._refuse(connection, error, message)
            return None
        except Exception:
            log.exception("message failed", extra=self._ids())
            connection.refuse(Internal(), message, self.app.now())
            return None
        if rest is None:
            if began:
                self._note_duration(connection, perf_counter() - began)
            return None
        if isinstance(rest, ClientMessage):
            return self._serve(connection, rest, message)
        return self._relieved(rest)

    def _refuse(self, connection: Connection, error: PairingServerError, message: str | bytes) -> None:
        connection.refuse(error, message, self.app.now())
        if error.code == "PAYLOAD_TOO_LARGE":
            limit, size = error.details["limit"], error.details["size"]
            context = CommandContext(self.app, connection, self.context)
            context.record("msg.too_large", "denied", limit=limit, size=size)

    def _note_duration(self, connection: Connection, seconds: float) -> None:
        self.app.relay_time.observe(seconds)
        if connection.received > SAMPLED:
            self._transport.busy()

    @staticmethod
    def _relieved(peer: Member) -> asyncio.Future[None]:
        """Done when no longer too much waits for the peer."""
        relieved = asyncio.get_running_loop().create_future()

        def call() -> None:
            if not relieved.done():
                relieved.set_result(None)

        peer.when_relieved(call)
        return relieved

    async def _serve(self, connection: Connection, request: ClientMessage, message: str | bytes) -> None:
        """Let services handle the request, and send the client what they refuse."""
        command = COMMANDS.by_struct[type(request)]
        if command.serve is None:
            return
        context = CommandContext(self.app, connection, self.context)
        try:
            name = f"websocket {request.__struct_config__.tag}"
            with self.app.traces.span(name, parent=self.span) as span:
                span.set_attribute("pairing.connection_id", connection.connection_id)
                await command.serve(context, request)
        except SessionConflict as error:
            connection.refuse(Forbidden(error.text), message, self.app.now())
        except PairingServerError as error:
            connection.refuse(error, message, self.app.now())
            if isinstance(error, LoginEnded):
                context.record("auth.token_rejected", "denied", reason=error.reason, kind="ws")
                connection.close(CloseCode.INVALID_TOKEN, "login ended")
            elif isinstance(error, TokenMismatch):
                connection.close(CloseCode.FORBIDDEN, "token of another user")
        except Exception:
            log.exception("message failed", extra={"message_type": type(request).__name__, **self._ids()})
            connection.refuse(Internal(), message, self.app.now())

    def _close_for_abuse(self, kind: str) -> None:
        """The engine has counted too many "frames", "pings" or "fragments"."""
        if self.connection is not None:
            self.connection.close_for_abuse(kind)
        else:
            self.close(CloseCode.RATE_LIMITED, f"too many {kind}")

    # The end

    def on_close(self) -> None:
        connection = self.connection
        by_server = None if connection is None else connection.close_code
        code = by_server or self.close_code
        self._end_trace(connection, code)
        if connection is None:
            return
        ids = self._ids()
        self.connection = None
        now = self.app.now()
        channel = self.app.hub.remove(connection, "Connection closed", now)
        context = CommandContext(self.app, connection, self.context)
        context.record(
            "ws.disconnected",
            "success",
            close_code=code,
            by="server" if by_server is not None else "client" if self.close_code else "network",
            duration_s=round(now - connection.opened_at),
            messages_in=connection.received,
        )
        log.info("connection closed", extra={"code": code, "messages": connection.received, **ids})
        if channel is not None:
            context.record("channel.left", "success", channel.pairing_id, slot=connection.device_type)
            context.note_left(channel)

    def _end_trace(self, connection: Connection | None, code: int | None) -> None:
        if code is not None:
            self.span.set_attribute("pairing.close_code", int(code))
        if connection is not None:
            self.span.set_attribute("pairing.messages_received", connection.received)
        self.span.end()

    def _ids(self) -> dict[str, str]:
        """The ids that a line of the log is about."""
        connection = self.connection
        ids = {"request_id": str(self.request_id)}
        if connection is not None:
            ids["connection_id"] = connection.connection_id
            if connection.channel is not None:
                ids["pairing_id"] = str(connection.channel.pairing_id)
        return ids
