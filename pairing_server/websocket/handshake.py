"""How a WebSocket opens: who asks for it, from where, and whether there is room. Then a session begins."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, cast
from uuid import UUID, uuid4

from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from pairing_server.clock import utcnow
from pairing_server.errors import (
    InvalidRequest,
    InvalidToken,
    OriginNotAllowed,
    PairingServerError,
    RateLimited,
    Unavailable,
)
from pairing_server.relay import messages
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.connection import Connection
from pairing_server.relay.identity import Identity
from pairing_server.relay.send_queue import Transport
from pairing_server.security.tokens import WsClaims
from pairing_server.text import clean
from pairing_server.tracing import NOTHING
from pairing_server.web.authentication import known, select_subprotocol, take_ws_token
from pairing_server.web.base_handler import BaseHandler
from pairing_server.websocket.engine import PicowsProtocol

log = logging.getLogger(__name__)

_NO_HEADERS = HTTPHeaders()


class Opening(BaseHandler, WebSocketHandler):
    """A connection until its session has begun, and what the log and the audit log say of it."""

    connection: Connection | None = None
    refusal: InvalidToken | None = None
    claims: WsClaims | None = None

    @classmethod
    def methods(cls) -> list[str]:
        return ["GET"]

    async def prepare(self) -> None:
        """Raises before the upgrade: Origin, draining, too many handshakes without a valid token."""
        self.trace()
        now = utcnow()
        token, self.token_via = take_ws_token(self.request)
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            raise InvalidRequest("This is no WebSocket request. Open this URL as a WebSocket.")
        if self.request.method != "GET":
            # HEAD, too: what stands between would not know of the upgrade, and take frames for requests.
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        self.context = replace(self.anonymous(), connection_id=uuid4())
        if not self.app.origin_allowed(self.request):
            self._rejected("origin", now)
            raise OriginNotAllowed()
        if self.app.draining:
            raise Unavailable("The server restarts. Connect again in a moment.")
        try:
            if not token:
                raise InvalidToken("There is no ws token. Get one with POST /api/auth/ws-token.")
            claims = self.app.tokens.verify_ws(token, now)
            await self.app.services.logins.spend(self.context.at(now), claims)
            self.claims = claims
        except InvalidToken as error:
            self._refuse_token(error, now)

    def _refuse_token(self, error: InvalidToken, now: datetime) -> None:
        """The upgrade completes all the same, since browsers hide the status of a failed one."""
        failures, key = self.app.handshake_failures, self.context.address_key
        if wait := failures.wait(key, self.app.now()):
            raise RateLimited(wait, "Too many connections without a valid token. Wait, then connect again.")
        failures.charge(key, self.app.now())
        self.refusal = error
        rejected = self.app.audit.event(
            "auth.token_rejected", "denied", self.context.at(now), reason=error.reason, kind="ws"
        )
        self.app.audit.enqueue(rejected)

    def _rejected(self, reason: str, now: datetime) -> None:
        event = self.app.audit.event("ws.rejected", "denied", self.context.at(now), reason=reason)
        self.app.audit.enqueue(event)

    def check_origin(self, origin: str) -> bool:
        """Decided in `prepare` already, for every Origin: Tornado asks here only about some."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return select_subprotocol(subprotocols)

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        return PicowsProtocol(self, self.app.hub.limits, self.app.now, self._abuse)

    def open(self, *_: str, **__: str) -> None:
        try:
            self._admit()
        except Exception:
            log.exception("a connection could not be opened", extra=self._ids())
            self.close(CloseCode.INTERNAL, "internal error")
        self._forget_handshake()
        self._trace_life()

    def _trace_life(self) -> None:
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

    def _forget_handshake(self) -> None:
        """Most connections are idle most of the time: what only the upgrade needed is let go."""
        self.claims = self.refusal = None
        request = self.request
        request.headers = self._headers = _NO_HEADERS
        request.arguments = request.query_arguments = request.body_arguments = {}
        request.files = {}
        # They hold the stream that Tornado read the upgrade from.
        request.connection = request.server_connection = None

    def _admit(self) -> None:
        if self.claims is None:
            self._turn_away(self.refusal or InvalidToken(), CloseCode.INVALID_TOKEN, "invalid token")
            return
        limit = self.app.hub.room_for(self.claims.subject, self.context.address_key)
        if limit is not None:
            self._rejected(limit, utcnow())
            full = RateLimited(
                30, "Too many connections are open. Close one, or try again later.", limit=limit
            )
            self._turn_away(full, CloseCode.RATE_LIMITED, "too many connections")
            return
        self._begin(self.claims)

    def _begin(self, claims: WsClaims) -> None:
        now = self.app.now()
        self.context = known(self.context, claims.subject, claims.login_id)
        connection_id = self.context.connection_id or uuid4()
        self.connection = Connection(
            connection_id,
            self._identity(claims),
            self.context.address or "",
            self.context.address_key,
            self._transport,
            self.app.hub,
            now,
        )
        self.app.hub.opened(self.connection)
        self.connection.greet()
        log.info("connection opened by a %s", claims.device_type, extra=self._ids())
        self._record(
            "ws.connected",
            "success",
            token_via=self.token_via,
            jti=claims.token_id,
            device_type=claims.device_type,
            origin=self.request.headers.get("Origin"),
            ua=clean(self.request.headers.get("User-Agent", "")),
        )

    @property
    def _transport(self) -> Transport:
        """The engine's protocol is one."""
        return cast(Transport, self.ws_connection)

    def _identity(self, claims: WsClaims) -> Identity:
        left = (claims.expires_at - utcnow()).total_seconds()
        return Identity(
            subject=claims.subject,
            device_type=claims.device_type,
            token_id=claims.token_id,
            login_id=claims.login_id,
            label=claims.label,
            expires_at=self.app.now() + left,
            logged_in_at=claims.logged_in_at,
        )

    def _turn_away(self, error: PairingServerError, code: CloseCode, reason: str) -> None:
        self.app.hub.counters.refused[error.code] += 1
        self._transport.write(messages.encode(messages.error_message(error)), False)
        self.close(code, reason)

    def _abuse(self, kind: str) -> None:
        """The engine counts too many "frames", "pings" or "fragments"."""
        raise NotImplementedError

    # What is said of it

    def _ids(self) -> dict[str, str]:
        """What a line of the log is about."""
        connection = self.connection
        ids = {"request_id": str(self.request_id)}
        if connection is not None:
            ids["connection_id"] = connection.connection_id
            if connection.channel is not None:
                ids["pairing_id"] = str(connection.channel.pairing_id)
        return ids

    def _record(self, event: str, outcome: str, pairing: UUID | None = None, **attrs: Any) -> None:
        audit = self.app.audit
        audit.enqueue(audit.event(event, outcome, self.context.at(utcnow()), pairing_id=pairing, **attrs))
