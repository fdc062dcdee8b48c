"""Lock-outs, as an administrator sees and lifts them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import Forbidden, NotFound
from pairing_server.request_context import RequestContext
from pairing_server.security.addresses import limit_key
from pairing_server.security.limits import Count, Policy, wait
from pairing_server.services import brute_force_guard
from pairing_server.services.account_status import require_login
from pairing_server.services.rules import AttemptPolicies
from pairing_server.store import rate_limits as store
from pairing_server.store import users

# Its rate is a setting, but what has locks is locked by these alone.
_ALARM = Policy((), lock_seconds=(brute_force_guard.DURATION_S,))
KINDS = (*(field.name for field in fields(AttemptPolicies)), brute_force_guard.KIND)


@dataclass(frozen=True, slots=True)
class Lockout:
    """`key` is a subject, a username as compared, or an address, as the kind says. `level`: locks in a row."""

    kind: str
    key: str
    until: datetime
    level: int


@dataclass(frozen=True, slots=True)
class LockoutService:
    database: Database
    audit: AuditLog
    policies: AttemptPolicies

    async def list_all(self, context: RequestContext) -> list[Lockout]:
        """The lock-outs in force, the longest first. Raises Forbidden for all but admins."""
        async with self.database.transaction() as conn:
            allowed = await self._is_admin(conn, context)
            buckets = await store.full(conn, KINDS, context.now) if allowed else []
        if not allowed:
            raise _not_admin()
        found = []
        for bucket in buckets:
            count = Count(bucket.times, bucket.level, bucket.locked_until)
            if seconds := wait(count, getattr(self.policies, bucket.kind, _ALARM), context.now):
                until = context.now + timedelta(seconds=seconds)
                found.append(Lockout(bucket.kind, bucket.key, until, bucket.level))
        return sorted(found, key=lambda lockout: lockout.until, reverse=True)

    async def lift(self, context: RequestContext, kind: str, key: str) -> None:
        """Forget what was counted against the key, so that it may try again at once. Raises Forbidden, NotFound.

        A username and an address may be written in any way that counts as the same.
        """
        if kind == "login_user":
            key = users.username_key(key)
        elif kind.endswith("_address"):
            key = limit_key(key)
        async with self.database.transaction() as conn:
            allowed = await self._is_admin(conn, context)
            known = allowed and kind in KINDS and "\x00" not in key
            lifted = known and await store.forget(conn, kind, key)
            if lifted:
                via = "http" if context.subject else "cli"
                event = self.audit.event
                await self.audit.record(
                    conn,
                    event("admin.action", "success", context, command="lockouts lift", target=key, via=via),
                    event("auth.lockout", "success", context, reason="lifted", scope=kind, target=key),
                )
        if not allowed:
            raise _not_admin()
        if not lifted:
            raise NotFound(f"There is no lock-out {kind} of {key[:100]!r}. It may have ended.")

    async def _is_admin(self, conn: AsyncConnection, context: RequestContext) -> bool:
        """Commands on this machine run as an admin. A refusal is recorded."""
        await require_login(conn, context)
        if context.kind == "admin" or await users.role_of(conn, context.subject) == "admin":
            return True
        denied = self.audit.event("access.denied", "denied", context, route="/api/lockouts", needed="admin")
        await self.audit.refuse(conn, denied)
        return False


def _not_admin() -> Forbidden:
    return Forbidden("Only an admin may see and lift lock-outs. Ask an admin.")
