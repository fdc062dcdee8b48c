"""Accounts: register, and what an administrator does to them. Logging in: services/authentication.py."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import Forbidden, NotFound, RateLimited, UsernameTaken, ValidationFailed
from pairing_server.request_context import RequestContext
from pairing_server.security import usernames
from pairing_server.security.passwords import Passwords
from pairing_server.services import rate_limits
from pairing_server.services.logins import LoginService
from pairing_server.services.rate_limits import KeyedLock, LimitKey, uncounted_if_unavailable
from pairing_server.services.rules import AttemptPolicies, PairingRules
from pairing_server.store import users
from pairing_server.store.users import User

ROLES = ("user", "auditor", "admin")


def check_new(username: str, password: str) -> str:
    """The name as a new account keeps it. Raises ValidationFailed with `fields` for a name or a password that it must
    not have."""
    fields, kept = {}, username
    try:
        kept = usernames.usable(username)
    except ValueError as error:
        fields["username"] = [str(error)]
    if not 12 <= len(unicodedata.normalize("NFC", password)) <= 128:
        fields["password"] = ["Must be 12 to 128 characters."]
    if fields:
        raise ValidationFailed(fields=fields)
    return kept


@dataclass(frozen=True, slots=True)
class AccountService:
    """`checks`: as of AuthenticationService."""

    database: Database
    audit: AuditLog
    passwords: Passwords
    logins: LoginService
    checks: KeyedLock
    rules: PairingRules
    policies: AttemptPolicies

    async def register(self, context: RequestContext, username: str, password: str) -> User:
        """Make an account, where registration is open.

        Raises Forbidden, ValidationFailed, RateLimited, UsernameTaken (after the same work as a success).
        """
        if not self.rules.registration_open:
            raise Forbidden("Registration is closed on this server. Ask its operator for an account.")
        check_new(username, password)
        limit = LimitKey("register_address", context.address_key, self.policies.register_address)
        async with self.checks.of(context.address_key):
            self.passwords.check()
            async with self.database.transaction() as conn:
                counting = await rate_limits.hold(conn, [limit], context.now)
                seconds, kind = counting.wait(context.now)
                if not seconds:
                    await counting.charge(context.now)
            if seconds:
                raise RateLimited(
                    seconds, "Too many accounts were made from this address. Try again later.", limit=kind
                )
            async with uncounted_if_unavailable(self.database, [limit], context.now):
                return await self.add_user(context, username, password, "user")

    async def add_user(self, context: RequestContext, username: str, password: str, role: str) -> User:
        """Make an account. Raises ValidationFailed, UsernameTaken."""
        kept = check_new(username, password)
        hashed = await self.passwords.hash(password)
        new = User(uuid4(), kept, role, context.now, None)
        async with self.database.transaction() as conn:
            added = await users.add(conn, new, hashed)
            if added:
                made = self.audit.event("account.created", "success", context, target=new.subject, role=role)
                await self.audit.record(conn, made)
        if not added:
            raise UsernameTaken()
        return new

    async def list_users(self) -> list[User]:
        """All accounts, by name."""
        async with self.database.transaction() as conn:
            return await users.list_all(conn)

    async def set_disabled(self, context: RequestContext, username: str, disabled: bool) -> bool:
        """Disable or enable the account. False if it was so already. Raises NotFound."""
        async with self.database.transaction() as conn:
            user = await existing_user(conn, username)
            changed = await users.set_disabled(conn, user.id, context.now if disabled else None)
            if changed:
                name = "account.disabled" if disabled else "account.enabled"
                event = self.audit.event(name, "success", context, target=user.subject)
                await self.audit.record(conn, event)
        return changed

    async def set_password(self, context: RequestContext, username: str, password: str) -> int:
        """All logins of the account end; how many. Raises NotFound, ValidationFailed."""
        check_new("any", password)
        hashed = await self.passwords.hash(password)
        async with self.database.transaction() as conn:
            user = await existing_user(conn, username)
            await users.set_password(conn, user.id, hashed)
            revoked, ended = await self.logins.revoke_all_of(conn, user.subject, context.now)
            event = self.audit.event("account.password_changed", "success", context, target=user.subject)
            await self.audit.record(conn, event)
        self.logins.apply(revoked)
        return ended

    async def set_role(self, context: RequestContext, username: str, role: str) -> bool:
        """False if that was its role already. Raises NotFound."""
        async with self.database.transaction() as conn:
            user = await existing_user(conn, username)
            changed = await users.set_role(conn, user.id, role)
            if changed:
                event = self.audit.event(
                    "account.role_changed", "success", context, target=user.subject, was=user.role, role=role
                )
                await self.audit.record(conn, event)
        return changed


async def existing_user(conn: AsyncConnection, username: str) -> User:
    """Raises NotFound."""
    user = await users.by_name(conn, username)
    if user is None:
        raise NotFound(f"There is no user {username!r}; see: pairing-server user list")
    return user
