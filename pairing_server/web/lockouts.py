"""Lock-outs over HTTP, for admins."""

from __future__ import annotations

from pairing_server.clock import utcnow
from pairing_server.services import lockouts
from pairing_server.web import schemas
from pairing_server.web.authentication import AuthenticatedHandler

LOCKOUTS = schemas.LockoutsAnswer()
LIFTED = schemas.DoneAnswer()


class LockoutsHandler(AuthenticatedHandler):
    """GET /api/lockouts: who is locked out now."""

    async def get(self) -> None:
        found = await lockouts.list_lockouts(self.deps, self.context.at(utcnow()))
        self.answer(LOCKOUTS, {"lockouts": found})


class LockoutHandler(AuthenticatedHandler):
    """DELETE /api/lockouts/{kind}/{key}: let somebody try again at once."""

    async def delete(self, kind: str, key: str) -> None:
        await lockouts.lift(self.deps, kind, key, self.context.at(utcnow()))
        self.answer(LIFTED, {})
