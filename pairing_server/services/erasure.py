"""Erasing a user: the account and everything that belongs to it, apart from what the audit log has recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import Forbidden, NotFound
from pairing_server.request_context import RequestContext
from pairing_server.services.account_status import AccountStatus, require_login
from pairing_server.services.logins import LoginService, subject_of
from pairing_server.store import erasure as store
from pairing_server.store.logins import Revocation

# How old the login may be with which users erase their own accounts: a stolen token alone does not suffice.
RECENT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Erased:
    """`account`: there was one here; a user of a foreign issuer has none. `pairings`: live ones that have ended."""

    subject: str
    account: bool
    logins: int
    pairings: int


@dataclass(frozen=True, slots=True)
class ErasureService:
    database: Database
    audit: AuditLog
    logins: LoginService
    status: AccountStatus

    async def erase(self, context: RequestContext, user: str) -> Erased:
        """For an administrator. `user`: a username, a user's id, or "issuer|sub".

        Raises NotFound, also if nothing is kept of the user, and ValidationFailed.
        """
        async with self.database.transaction() as conn:
            subject = await subject_of(conn, user, context.now)
            revoked, erased = await self._erase(conn, context, subject)
        return self._apply(revoked, erased)

    async def erase_own(self, context: RequestContext) -> Erased:
        """The caller's own account. Raises LoginEnded, NotFound, Forbidden if the login is older than RECENT."""
        since = context.logged_in_at
        if since is None or context.now - since > RECENT:
            raise Forbidden("Log in again, then delete the account within five minutes.")
        async with self.database.transaction() as conn:
            await require_login(conn, context)
            revoked, erased = await self._erase(conn, context, context.subject or "")
        return self._apply(revoked, erased)

    async def _erase(
        self, conn: AsyncConnection, context: RequestContext, subject: str
    ) -> tuple[Revocation, Erased]:
        revoked, logins = await self.logins.revoke_all_of(conn, subject, context.now)
        deleted = await store.delete_user(conn, subject)
        if not deleted.rows and not logins:
            raise NotFound(f"Nothing is kept of the user {subject!r}.")
        made = self.audit.event(
            "account.deleted", "success", context, target=subject, logins=logins, pairings=deleted.pairings
        )
        await self.audit.record(conn, made)
        return revoked, Erased(subject, deleted.account, logins, deleted.pairings)

    def _apply(self, revoked: Revocation, erased: Erased) -> Erased:
        self.status.forget(erased.subject)
        self.logins.apply(revoked)
        return erased
