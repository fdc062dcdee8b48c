"""The upgrade of a WebSocket: its token, its Origin, and whether there is room, before there is a connection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, cast

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import HTTPError

from pairing_server.clock import utcnow
from pairing_server.errors import (
    InvalidRequest,
    InvalidToken,
    LoginEnded,
    PairingServerError,
    RateLimited,
    Unavailable,
    UpgradeRequired,
)
from pairing_server.relay.close_codes import CloseCode
from pairing_server.relay.identity import Identity
from pairing_server.request_context import RequestContext
from pairing_server.security.tokens import WsClaims
from pairing_server.web.app_context import AppContext
from pairing_server.web.authentication import take_ws_token


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is closed as soon as it is open, and with what."""

    error: PairingServerError
    close_code: CloseCode
    reason: str


class Handshake:
    """The checks of one upgrade. `claims`: of a token that is valid; `token_via`: where the token was."""

    __slots__ = ("_app", "_context", "_error", "claims", "token_via")

    def __init__(self, app: AppContext, context: RequestContext) -> None:
        self._app = app
        self._context = context
        self._error: InvalidToken | None = None
        self.claims: WsClaims | None = None
        self.token_via = ""

    async def verify(self, request: HTTPServerRequest) -> None:
        """Raises before the upgrade: Origin, draining, too many handshakes without a valid token.

        With a token that is not valid the upgrade completes all the same, since browsers hide the status of a failed
        one; see `refusal`.
        """
        token, self.token_via = take_ws_token(request)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise InvalidRequest("This is no WebSocket request. Open this URL as a WebSocket.")
        if request.method != "GET":
            # HEAD, too: a proxy would not know of the upgrade, and take frames for requests.
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        self._check_upgrade(request.headers)
        if not self._app.origin_allowed(request):
            self._record("ws.rejected", reason="origin")
            raise self._app.refuse_origin(request)
        if self._app.draining:
            raise Unavailable("The server restarts. Connect again in a moment.")
        if _descriptor(request) >= self._app.descriptors.websockets:
            self._record("ws.rejected", reason="descriptors")
            raise Unavailable("The server has too many connections. Connect again later.", retry_after_s=30)
        now = utcnow()
        try:
            if not token:
                raise InvalidToken("There is no ws token. Get one with POST /api/auth/ws-token.")
            claims = self._app.tokens.verify_ws(token, now)
            await self._app.services.logins.spend(self._context.at(now), claims)
            self.claims = claims
        except InvalidToken as error:
            self._note_failure(error)

    @staticmethod
    def _check_upgrade(headers: HTTPHeaders) -> None:
        """Raises UpgradeRequired for another version than RFC 6455's, InvalidRequest."""
        connection = {option.strip().lower() for option in headers.get("Connection", "").split(",")}
        if "upgrade" not in connection:
            raise InvalidRequest(
                "This is no WebSocket request. Send Connection: Upgrade; a proxy may have dropped it."
            )
        if headers.get("Sec-WebSocket-Version") != "13":
            raise UpgradeRequired()
        key = headers.get("Sec-WebSocket-Key", "")
        if not (headers.get("Host") and len(key) == 24 and key.isascii() and key.isprintable()):
            raise InvalidRequest(
                "The upgrade cannot be read. Send Host, and a Sec-WebSocket-Key of 24 characters."
            )

    def _note_failure(self, error: InvalidToken) -> None:
        """Raises RateLimited for too many from this address."""
        failures, key, now = self._app.handshake_failures, self._context.address_key, self._app.now()
        if wait := failures.wait(key, now):
            raise RateLimited(wait, "Too many connections without a valid token. Wait, then connect again.")
        failures.charge(key, now)
        self._error = error
        self._record("auth.token_rejected", reason=error.reason, kind="ws")

    def refusal(self) -> Refusal | None:
        """Why the connection that is open now must be closed, if it must.

        Between this and its place in the hub nothing may wait: an end of the login closes what is there.
        """
        if self.claims is None:
            error = self._error or InvalidToken()
            return Refusal(error, CloseCode.INVALID_TOKEN, "invalid token")
        if self._app.services.logins.is_ended(self.claims):
            # While the token was used up, or the socket handed over.
            self._record("auth.token_rejected", reason="revoked", kind="ws")
            return Refusal(LoginEnded("revoked"), CloseCode.INVALID_TOKEN, "login ended")
        limit = self._app.hub.reached_limit(self.claims.subject, self._context.address_key)
        try:
            if limit is not None:
                raise RateLimited(
                    30, "Too many connections are open. Close one, or try again later.", limit=limit
                )
            text = "Too many connections were opened. Keep one open, or try again later."
            self._app.rates.check("connect", self.claims.subject, self._app.now(), text)
        except RateLimited as full:
            self._record("ws.rejected", reason=full.details["limit"])
            return Refusal(full, CloseCode.RATE_LIMITED, "too many connections")
        return None

    def _record(self, event: str, **attributes: Any) -> None:
        audit = self._app.audit
        audit.enqueue(audit.event(event, "denied", self._context.at(utcnow()), **attributes))


def known(context: RequestContext, identity: Identity) -> RequestContext:
    """The caller, now that its token is checked."""
    return replace(
        context,
        subject=identity.subject,
        login_id=identity.login_id,
        token_id=identity.token_id,
        logged_in_at=identity.logged_in_at,
        kind="device",
    )


def _descriptor(request: HTTPServerRequest) -> int:
    """The number of the connection's descriptor."""
    number: int = cast(HTTP1Connection, request.connection).stream.socket.fileno()
    return number


def identity_of(claims: WsClaims, now: datetime, monotonic: float) -> Identity:
    """The identity that a ws token gives to a connection, at both clocks' time."""
    return Identity(
        subject=claims.subject,
        device_type=claims.device_type,
        token_id=claims.token_id,
        login_id=claims.login_id,
        label=claims.label,
        expires_at=monotonic + (claims.expires_at - now).total_seconds(),
        logged_in_at=claims.logged_in_at,
    )
