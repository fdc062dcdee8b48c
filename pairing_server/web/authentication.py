"""Authentication: the access token of an HTTP request, the ws token of a WebSocket."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from tornado.httputil import HTTPServerRequest

from pairing_server.clock import utcnow
from pairing_server.errors import InvalidToken, LoginEnded, Unauthorized
from pairing_server.security.tokens import AccessClaims
from pairing_server.web.base_handler import JSONHandler

PROTOCOL = "pairing.v1"
_SUBPROTOCOL = "bearer."


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header; None if there is none. Raises InvalidToken for other schemes."""
    if not header:
        return None
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidToken("The Authorization header cannot be read. Send: Bearer <token>.")
    return token.strip()


class AuthenticatedHandler(JSONHandler):
    """An endpoint that needs an access token; with `guests` none is needed where the configuration allows that."""

    guests = False
    claims: AccessClaims | None

    @property
    def known_claims(self) -> AccessClaims:
        """The claims, where there are no guests."""
        if self.claims is None:
            raise Unauthorized()
        return self.claims

    async def prepare(self) -> None:
        await super().prepare()
        if self.request.method != "OPTIONS":
            self.claims = await self._authenticate(utcnow())

    async def _authenticate(self, now: datetime) -> AccessClaims | None:
        token = None
        try:
            token = bearer(self.request.headers.get("Authorization"))
            if token is None:
                if self.guests and self.app.rules.guests:
                    return None
                raise Unauthorized()
            claims = await self.app.tokens.verify_access(token, now)
        except InvalidToken as error:
            self.app.audit.enqueue_event(
                "auth.token_rejected", "denied", self.context.at(now), reason=error.reason, kind="access"
            )
            raise
        self.context = replace(
            self.context,
            subject=claims.subject,
            login_id=claims.login_id,
            token_id=claims.token_id,
            logged_in_at=claims.issued_at,
            kind="user",
        )
        return claims

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A login that has ended since its token was checked is recorded here, for all services."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, LoginEnded):
            self.app.audit.enqueue_event(
                "auth.token_rejected",
                "denied",
                self.context.at(utcnow()),
                reason=error.reason,
                kind="access",
                sid=self.context.login_id,
            )
        super().write_error(status_code, **kwargs)


def take_ws_token(request: HTTPServerRequest) -> tuple[str | None, str]:
    """The ws token of an upgrade and where it was: "header", "subprotocol", "query".

    It is taken out of the request, since Tornado prints the URI in several places.
    """
    query = parse_qs(request.query, keep_blank_values=True)
    request.uri = request.path
    request.query = ""
    request.arguments = {}
    request.query_arguments = {}
    if header := request.headers.get("Authorization"):
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() == "bearer":  # a proxy's own scheme is none of our business
            return token.strip(), "header"
    for offered in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if offered.strip().lower().startswith(_SUBPROTOCOL):
            return offered.strip()[len(_SUBPROTOCOL) :], "subprotocol"
    return next(iter(query.get("token", [])), None), "query"


def select_subprotocol(offered: list[str]) -> str | None:
    """`pairing.v1` if it is there, else the Bearer one: a browser that gets none back hangs up."""
    if PROTOCOL in offered:
        return PROTOCOL
    return next((name for name in offered if name.lower().startswith(_SUBPROTOCOL)), None)
