"""Lock-outs over HTTP, for admins."""

from __future__ import annotations

from pairing_server.clock import utcnow
from pairing_server.web import schemas
from pairing_server.web.authentication import AuthenticatedHandler


class LockoutsHandler(AuthenticatedHandler):
    """GET /api/lockouts: the lock-outs in force."""

    async def get(self) -> None:
        found = await self.app.services.lockouts.list_all(self.context.at(utcnow()))
        self.answer(schemas.LockoutsAnswer, {"lockouts": found})


class LockoutHandler(AuthenticatedHandler):
    """DELETE /api/lockouts/{kind}/{key}: lift one of them."""

    async def delete(self, kind: str, key: str) -> None:
        await self.app.services.lockouts.lift(self.context.at(utcnow()), kind, key)
        self.answer(schemas.DoneAnswer, {})
