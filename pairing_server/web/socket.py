"""The WebSocket: opens with a ws token, hands messages to the session, does for it what needs the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from time import perf_counter
from typing import Any, cast
from uuid import UUID, uuid4

from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from pairing_server.errors import (
    Forbidden,
    Internal,
    InvalidRequest,
    InvalidToken,
    OriginNotAllowed,
    PairingServerError,
    RateLimited,
    SessionConflict,
    Unavailable,
)
from pairing_server.relay import messages, requests
from pairing_server.relay.channel import Channel
from pairing_server.relay.closing import CloseCode
from pairing_server.relay.outbox import Outbox, Transport
from pairing_server.relay.session import Deferred, Device, Identity, Session
from pairing_server.security.tokens import WsClaims
from pairing_server.services import confirmations, logins
from pairing_server.services import membership as pairings
from pairing_server.services.audit import clean
from pairing_server.services.membership import unpair_from_channel
from pairing_server.tracing import NOTHING
from pairing_server.web.base import EdgeHandler
from pairing_server.web.bearer import known, select_subprotocol, take_ws_token
from pairing_server.web.edge import utcnow

log = logging.getLogger(__name__)

_NO_HEADERS = HTTPHeaders()
# One in 64 messages is timed: a mask of how many the connection has received.
SAMPLED = 63


class PairingSocket(EdgeHandler, WebSocketHandler):
    """GET /ws: one device's connection."""

    session: Session | None = None
    refusal: InvalidToken | None = None
    claims: WsClaims | None = None

    @classmethod
    def methods(cls) -> list[str]:
        return ["GET"]

    # Opening

    async def prepare(self) -> None:
        """Raises before the upgrade: Origin, draining, too many handshakes without a valid token."""
        self.trace()
        now = utcnow()
        token, self.token_via = take_ws_token(self.request)
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            raise InvalidRequest("Open this URL as a WebSocket.")
        if self.request.method != "GET":
            # HEAD, too: what stands between would not know of the upgrade, and take frames for requests.
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        self.caller = replace(self.anonymous(), connection_id=uuid4())
        if not self.edge.origin_allowed(self.request):
            self._rejected("origin", now)
            raise OriginNotAllowed()
        if self.edge.draining:
            raise Unavailable("The server is restarting; connect again in a moment.")
        try:
            if not token:
                raise InvalidToken("A ws token is missing; POST /api/auth/ws-token answers with one.")
            claims = self.deps.tokens.verify_ws(token, now)
            await logins.spend(self.deps, claims, self.caller, now)
            self.claims = claims
        except InvalidToken as error:
            self._refuse_token(error, now)

    def _refuse_token(self, error: InvalidToken, now: datetime) -> None:
        """The upgrade completes all the same, since browsers hide the status of a failed one."""
        failures, key = self.edge.handshake_failures, self.caller.address_key
        if wait := failures.wait(key, self.edge.now()):
            raise RateLimited(wait, "Too many connections without a valid token.")
        failures.charge(key, self.edge.now())
        self.refusal = error
        rejected = self.deps.audit.event(
            "auth.token_rejected", "denied", self.caller, now, reason=error.reason, kind="ws"
        )
        self.deps.audit.enqueue(rejected)

    def _rejected(self, reason: str, now: datetime) -> None:
        event = self.deps.audit.event("ws.rejected", "denied", self.caller, now, reason=reason)
        self.deps.audit.enqueue(event)

    def check_origin(self, origin: str) -> bool:
        """Decided in `prepare` already, for every Origin: Tornado asks here only about some."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return select_subprotocol(subprotocols)

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        return self.edge.engine(self, self.deps.hub.limits, self.edge.now, self._abuse)

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
        self.span = self.deps.traces.begin("websocket", parent=upgrade)
        for name, value in self._ids().items():
            self.span.say(f"pairing.{name}", value)
        self.span.enter()

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
        limit = self.deps.hub.room_for(self.claims.subject, self.caller.address_key)
        if limit is not None:
            self._rejected(limit, utcnow())
            full = RateLimited(30, "Too many connections.", limit=limit)
            self._turn_away(full, CloseCode.RATE_LIMITED, "too many connections")
            return
        self._begin(self.claims)

    def _begin(self, claims: WsClaims) -> None:
        now = self.edge.now()
        self.caller = known(self.caller, claims.subject, claims.login_id)
        connection_id = self.caller.connection_id or uuid4()
        self.session = Session(
            connection_id,
            self._identity(claims),
            self.caller.address or "",
            self.caller.address_key,
            self._transport,
            self.deps.hub,
            now,
        )
        self.deps.hub.opened(self.session)
        self.session.greet()
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
        """Either engine's protocol is one."""
        return cast(Transport, self.ws_connection)

    def _identity(self, claims: WsClaims) -> Identity:
        left = (claims.expires_at - utcnow()).total_seconds()
        return Identity(
            subject=claims.subject,
            device_type=claims.device_type,
            token_id=claims.token_id,
            login_id=claims.login_id,
            label=claims.label,
            expires_at=self.edge.now() + left,
            logged_in_at=claims.logged_in_at,
        )

    def _turn_away(self, error: PairingServerError, code: CloseCode, reason: str) -> None:
        self.deps.hub.counts.refused[error.code] += 1
        self._transport.write(messages.encode(messages.error_message(error)), False)
        self.close(code, reason)

    # Messages

    def on_message(self, message: str | bytes, now: float | None = None) -> Awaitable[None] | None:
        """Nothing further is read until what this returns is done. `now`: of an engine that has just asked."""
        session = self.session
        if session is None or session.closing:
            return None
        began = 0.0 if session.received & SAMPLED else perf_counter()
        try:
            rest = session.receive(message, self.edge.now() if now is None else now)
        except PairingServerError as error:
            session.refuse(error, self.edge.now())
            if error.code == "PAYLOAD_TOO_LARGE":
                self._record(
                    "msg.too_large", "denied", limit=error.details["limit"], size=error.details["size"]
                )
            return None
        except Exception:
            log.exception("a message failed", extra=self._ids())
            session.refuse(Internal(), self.edge.now())
            return None
        if rest is None:
            if began:
                self.edge.relay_time.observe(perf_counter() - began)
            return None
        return self._relieved(rest) if isinstance(rest, Outbox) else self._serve(session, rest)

    @staticmethod
    def _relieved(outbox: Outbox) -> asyncio.Future[None]:
        relieved = asyncio.get_running_loop().create_future()

        def call() -> None:
            if not relieved.done():
                relieved.set_result(None)

        outbox.when_relieved(call)
        return relieved

    async def _serve(self, session: Session, request: Deferred) -> None:
        """Do what needs the database, and tell the session."""
        try:
            with self.deps.traces.span(
                f"websocket {request.__struct_config__.tag}", parent=self.span
            ) as span:
                span.say("pairing.connection_id", session.connection_id)
                await self._do(session, request)
        except SessionConflict as error:
            session.refuse(Forbidden(error.text), self.edge.now())
        except InvalidToken as error:
            session.refuse(error, self.edge.now())
            if error.reason == "disabled":
                session.close(CloseCode.INVALID_TOKEN, "account disabled")
        except PairingServerError as error:
            session.refuse(error, self.edge.now())
        except Exception:
            log.exception("%s failed", type(request).__name__, extra=self._ids())
            session.refuse(Internal(), self.edge.now())

    async def _do(self, session: Session, request: Deferred) -> None:
        match request:
            case requests.Identify():
                await self._identify(session, request)
            case requests.JoinChannel():
                await self._join(session, request)
            case requests.LeaveChannel():
                self._left(session.leave(self.edge.now()))
            case requests.Unpair():
                await self._unpair(session)
            case requests.RefreshToken():
                await self._refresh(session, request)
            case requests.PairingConfirm() | requests.PairingReject():
                await self._answer_request(session, request)

    async def _identify(self, session: Session, request: requests.Identify) -> None:
        try:
            await pairings.identify(
                self.deps, request.session_id, request.device_type, self.caller, now=utcnow()
            )
        except Unavailable:
            # The database is away: a device that was seated here a moment ago is known all the same.
            if self._remembered(session, request.session_id) is None:
                raise
        if not session.closing:
            agent = clean(request.user_agent) if request.user_agent else None
            session.identified(Device(request.session_id, agent))
            session.identified_answer(request)

    async def _join(self, session: Session, request: requests.JoinChannel) -> None:
        named = request.channel_named or ""
        session_id = request.session_id or session.session_id
        try:
            admitted = await pairings.admit(
                self.deps, named, session.device_type, session_id, self.caller, now=utcnow()
            )
        except Unavailable:
            known = self._remembered(session, session_id)
            if known is None or known.name != named:
                raise
            self._rejoin(session, request, Device(session_id), known)
            return
        if session.closing:
            return
        now = self.edge.now()
        session.identified(session.device or Device(session_id))
        left = session.channel
        pairing = admitted.pairing
        met = pairing.activated_at is not None
        channel = self.deps.hub.channel(pairing.id, named, now, ever_active=met, kept=admitted.kept)
        first = not channel.ever_active
        joined = session.entered(channel, request, now)
        if left is not None and left is not channel:
            self._note_presence(left.pairing_id, active=False)
        if joined.fresh:
            self._record("channel.joined", "success", pairing=channel.pairing_id, slot=session.device_type)
        if joined.activated and first:
            self.edge.time_to_pair.observe((utcnow() - pairing.created_at).total_seconds())
        if joined.activated and pairing.state != "active":
            self._note_presence(channel.pairing_id, active=True)
        elif joined.activated:
            self.edge.presence.forget(channel.pairing_id)

    def _remembered(self, session: Session, session_id: str) -> Channel | None:
        """The channel that this device was seen in a moment ago."""
        return self.deps.hub.remembered(session.subject, session_id, session.device_type, self.edge.now())

    def _rejoin(
        self, session: Session, request: requests.JoinChannel, device: Device, channel: Channel
    ) -> None:
        """While the database is away, a device comes back to its own seat from memory."""
        if session.closing:
            return
        session.identified(session.device or device)
        if session.entered(channel, request, self.edge.now(), degraded=True).fresh:
            self._record(
                "channel.joined",
                "success",
                pairing=channel.pairing_id,
                slot=session.device_type,
                degraded=True,
            )

    def _left(self, channel: Channel | None) -> None:
        if channel is not None and channel.ever_active:
            self._note_presence(channel.pairing_id, active=False)

    async def _unpair(self, session: Session) -> None:
        channel = session.channel
        if channel is not None:
            await unpair_from_channel(
                self.deps, channel.pairing_id, session.device_type, self.caller, now=utcnow()
            )

    async def _answer_request(
        self, session: Session, request: requests.PairingConfirm | requests.PairingReject
    ) -> None:
        joined = session.channel.name if session.channel else ""
        await confirmations.answer(
            self.deps,
            request.channel_named or joined,
            session.session_id,
            self.caller,
            now=utcnow(),
            confirmed=isinstance(request, requests.PairingConfirm),
        )

    async def _refresh(self, session: Session, request: requests.RefreshToken) -> None:
        """Raises InvalidToken; a token of somebody else's closes."""
        now = utcnow()
        claims = self.deps.tokens.verify_ws(request.token, now)
        if (claims.subject, claims.device_type) != (session.subject, session.device_type):
            self._record("auth.token_rejected", "denied", reason="other_subject", kind="ws")
            session.refuse(Forbidden("The token is another user's or device type's."), self.edge.now())
            session.close(CloseCode.FORBIDDEN, "token of another user")
            return
        old = session.identity.token_id
        if claims.token_id != old:
            await logins.spend(self.deps, claims, self.caller, now)
            self._record("auth.token_refreshed", "success", jti_old=old, jti_new=claims.token_id)
        session.refreshed(self._identity(claims), self.edge.now())

    def _abuse(self, kind: str) -> None:
        if self.session is not None:
            self.session.abuse(kind)
        else:
            self.close(CloseCode.RATE_LIMITED, f"too many {kind}")

    # The end

    def on_close(self) -> None:
        self._end_life()
        session = self.session
        if session is None:
            return
        ids = self._ids()
        self.session = None
        by_server = session.close_code is not None
        channel = self.deps.hub.closed(session, "Connection closed", self.edge.now())
        self._record(
            "ws.disconnected",
            "success",
            close_code=session.close_code or self.close_code,
            by="server" if by_server else "client" if self.close_code else "network",
            duration_s=round(self.edge.now() - session.opened_at),
            messages_in=session.received,
        )
        code = session.close_code or self.close_code
        log.info("connection closed, code %s, after %d messages", code, session.received, extra=ids)
        if channel is not None:
            self._record("channel.left", "success", pairing=channel.pairing_id, slot=session.device_type)
            self._left(channel)

    def _end_life(self) -> None:
        session = self.session
        code = (session.close_code if session is not None else None) or self.close_code
        if code is not None:
            self.span.say("pairing.close_code", int(code))
        if session is not None:
            self.span.say("pairing.messages_received", session.received)
        self.span.end()

    def _ids(self) -> dict[str, str]:
        """What a line of the log is about."""
        session = self.session
        ids = {"request_id": str(self.request_id)}
        if session is not None:
            ids["connection_id"] = session.connection_id
            if session.channel is not None:
                ids["pairing_id"] = str(session.channel.pairing_id)
        return ids

    def _note_presence(self, pairing_id: UUID, *, active: bool) -> None:
        """The timer would note it too, within half a minute."""
        presence = self.edge.presence
        if presence.note(pairing_id, active=active):
            self.edge.spawn(presence.write(self.deps, utcnow))

    def _record(self, event: str, outcome: str, pairing: UUID | None = None, **attrs: Any) -> None:
        audit = self.deps.audit
        audit.enqueue(audit.event(event, outcome, self.caller, utcnow(), pairing_id=pairing, **attrs))
