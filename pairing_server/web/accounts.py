"""Accounts over HTTP: register, log in, ws tokens."""

from __future__ import annotations

from typing import ClassVar

from pairing_server.clock import utcnow
from pairing_server.web import schemas
from pairing_server.web.authentication import AuthenticatedHandler
from pairing_server.web.base_handler import JSONHandler


class RegisterHandler(JSONHandler):
    """POST /api/auth/register: make an account, where registration is open."""

    async def post(self) -> None:
        body = self.read(schemas.RegisterBody)
        user = await self.app.services.accounts.register(
            self.context.at(utcnow()), body["username"], body["password"]
        )
        self.answer(
            schemas.RegisteredAnswer, {"user_id": user.subject, "username": user.username}, status=201
        )


class LoginHandler(JSONHandler):
    """POST /api/auth/login: a name and a password for an access token."""

    async def post(self) -> None:
        body = self.read(schemas.LoginBody)
        issued = await self.app.services.authentication.log_in(
            self.context.at(utcnow()), body["username"], body["password"]
        )
        self.answer(schemas.LoginAnswer, issued)


class AccountHandler(AuthenticatedHandler):
    """DELETE /api/account: erase the caller's own account."""

    async def delete(self) -> None:
        self.answer(
            schemas.AccountDeletedAnswer,
            await self.app.services.erasure.erase_own(self.context.at(utcnow())),
        )


class WsTokenHandler(AuthenticatedHandler):
    """POST /api/auth/ws-token: a token for opening the WebSocket as the desktop."""

    device_type: ClassVar[str] = "desktop"

    async def post(self) -> None:
        body = self.read(schemas.WsTokenBody)
        issued = await self.app.services.authentication.issue_ws_token(
            self.context.at(utcnow()), self.known_claims, self.device_type, body.get("username")
        )
        self.answer(schemas.WsTokenAnswer, issued)


class WsTokenMobileHandler(WsTokenHandler):
    """POST /api/auth/ws-token-mobile: the same for the mobile."""

    device_type = "mobile"
