"""Logins over HTTP: log out, list one's logins, end one of them."""

from __future__ import annotations

from pairing_server.clock import utcnow
from pairing_server.web import schemas
from pairing_server.web.authentication import AuthenticatedHandler


class LogoutHandler(AuthenticatedHandler):
    """POST /api/auth/logout: end this login, or all of the user's."""

    async def post(self) -> None:
        body = self.read(schemas.LogoutBody)
        closed = await self.app.services.logins.log_out(
            self.context.at(utcnow()), self.known_claims, everywhere=body["everywhere"]
        )
        self.answer(schemas.LoggedOutAnswer, {"connections_closed": closed})


class LoginsHandler(AuthenticatedHandler):
    """GET /api/logins: the caller's own logins."""

    async def get(self) -> None:
        self.answer(
            schemas.OwnLoginsAnswer,
            {"logins": await self.app.services.logins.list_own(self.context.at(utcnow()))},
        )


class OwnLoginHandler(AuthenticatedHandler):
    """DELETE /api/logins/{login}: end one of the caller's logins."""

    async def delete(self, login_id: str) -> None:
        closed = await self.app.services.logins.revoke_own(self.context.at(utcnow()), login_id)
        self.answer(schemas.LoggedOutAnswer, {"connections_closed": closed})
