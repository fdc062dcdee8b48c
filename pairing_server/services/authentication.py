"""Authentication: a password for an access token, an access token for a ws token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import AuditLog
from pairing_server.db.database import Database
from pairing_server.errors import BadCredentials, Forbidden, LoginEnded, RateLimited, Unavailable
from pairing_server.request_context import RequestContext
from pairing_server.security.passwords import Passwords
from pairing_server.security.tokens import AccessClaims, Issued, Tokens
from pairing_server.services import rate_limits
from pairing_server.services.account_status import AccountStatus
from pairing_server.services.accounts import existing_user
from pairing_server.services.local_rates import LocalRates
from pairing_server.services.rate_limits import (
    KeyedLock,
    LimitKey,
    Lockout,
    lockout_event,
    uncounted_if_unavailable,
)
from pairing_server.services.rules import AttemptPolicies
from pairing_server.store import logins, users
from pairing_server.store.audit_events import Event
from pairing_server.store.logins import Login
from pairing_server.store.users import User
from pairing_server.text import clean


@dataclass(frozen=True, slots=True)
class AuthenticationService:
    """`checks`: how many passwords of one address are checked at once, so that it leaves room in the queue for others."""

    database: Database
    audit: AuditLog
    tokens: Tokens
    passwords: Passwords
    status: AccountStatus
    locks: KeyedLock
    checks: KeyedLock
    policies: AttemptPolicies
    rates: LocalRates

    async def log_in(self, context: RequestContext, username: str, password: str) -> Issued:
        """An access token. Raises BadCredentials or RateLimited: the same, after the same work, for an unknown name.

        The attempt is counted before the password is checked, so that guesses made at the same time are
        all counted; a right password takes its own back, and so does a server that cannot check it.
        """
        name = users.username_key(username)
        limits = [
            LimitKey("login_user", name, self.policies.login_user),
            LimitKey("login_address", context.address_key, self.policies.login_address),
        ]
        async with self.locks.of(f"login {name}"), self.checks.of(context.address_key):
            self.passwords.check()
            self._check_rates(name, context)
            found, used_up = await self._count(limits, username, context)
            user, stored = found if found else (None, None)
            async with uncounted_if_unavailable(self.database, limits, context.now):
                verdict = await self.passwords.verify(stored, password)
                if user is not None and verdict.ok and user.disabled_at is None:
                    rehashed = await self.passwords.hash(password) if verdict.rehash else None
                    issued = await self._logged_in(user, rehashed, limits, context)
                    self._charge_rates(name, context)
                    return issued
            reason = "unknown_user" if user is None else "disabled" if verdict.ok else "password"
            await self._login_failed(user, reason, used_up, context)
            raise BadCredentials()

    def _check_rates(self, name: str, context: RequestContext) -> None:
        """Raises RateLimited for too many logins with the right password: each costs as much as a wrong one."""
        text, now = (
            "Too many logins. Use the token that you have, or try again later.",
            context.now.timestamp(),
        )
        self.rates.check("login_user", name, now, text)
        self.rates.check("login_address", context.address_key, now, text)

    def _charge_rates(self, name: str, context: RequestContext) -> None:
        now = context.now.timestamp()
        self.rates.charge("login_user", name, now)
        self.rates.charge("login_address", context.address_key, now)

    async def _count(
        self, limits: list[LimitKey], username: str, context: RequestContext
    ) -> tuple[tuple[User, str] | None, list[Lockout]]:
        """Count the attempt: the account and its hash, if there is one, and the limits used up. Raises RateLimited."""
        used_up: list[Lockout] = []
        # A request that waits for the address's row would hold a connection to the database.
        async with self.locks.of(f"login at {limits[1].key}"), self.database.transaction() as conn:
            counting = await rate_limits.hold(conn, limits, context.now)
            seconds, kind = counting.wait(context.now)
            if not seconds:
                await counting.charge(context.now)
                used_up = counting.used_up(context.now)
            found = await users.with_password(conn, username)
            if seconds:
                denied = self.audit.event("auth.login", "denied", context, reason="locked", limit=kind)
                await self.audit.refuse(conn, denied)
        if seconds:
            raise RateLimited(seconds, "Too many failed logins. Wait, then try again.")
        return found, used_up

    async def _login_failed(
        self, user: User | None, reason: str, used_up: list[Lockout], context: RequestContext
    ) -> None:
        target = user.subject if user else None
        async with self.database.transaction() as conn:
            failed = self.audit.event("auth.login", "failure", context, reason=reason, target=target)
            await self.audit.refuse(conn, failed)
            if used_up:
                await self.audit.record(conn, *(lockout_event(self.audit, each, context) for each in used_up))

    async def _logged_in(
        self, user: User, rehashed: str | None, limits: list[LimitKey], context: RequestContext
    ) -> Issued:
        issued = self.tokens.issue_access(user.subject, context.now)
        known = replace(context, subject=user.subject, login_id=issued.login_id, kind="user")
        async with self.database.transaction() as conn:
            if await logins.refusal_of(conn, known) is not None:
                # The account was disabled while the password was checked.
                raise BadCredentials()
            await (await rate_limits.hold(conn, limits, context.now)).take_back(context.now)
            if rehashed:
                await users.set_password(conn, user.id, rehashed)
            await _begin_login(conn, user, issued, context)
            await self.audit.record(
                conn,
                self.audit.event("auth.login", "success", known, auth_method="password"),
                _token_issued(self.audit.event, known, issued, "access"),
            )
        return issued

    async def issue_ws_token(
        self, context: RequestContext, claims: AccessClaims, device_type: str, label: str | None
    ) -> Issued:
        """A ws token for a device of that type. Raises LoginEnded, RateLimited.

        While the database is away, an account that was seen enabled here in the last minutes gets one all the same, or no
        device could come back whose connection breaks meanwhile; a foreign subject is the affair of its issuer in any case.
        The token opens a socket; whether the device may join is still decided by the database, or by what this process has
        seen.
        """
        now = context.now.timestamp()
        self.rates.check(
            "ws_token", claims.subject, now, "Too many ws tokens. Use the one that you have, or wait."
        )
        name = clean(label, 128) if label else None
        issued = self.tokens.issue_ws(claims, device_type, name or None, context.now)
        event = partial(_token_issued, self.audit.draft, context, issued, "ws", device_type=device_type)
        made = event()
        try:
            refusal = await logins.use(
                self.database.once, _login(claims, context), logins.caller(context), made
            )
        except Unavailable:
            if not claims.foreign and not self.status.seen_recently(claims.subject, context.now):
                raise
            made = event(degraded=True)
            self.audit.enqueue(made)
        else:
            if refusal == "disabled":
                self.status.forget(claims.subject)
            if refusal is not None:
                raise LoginEnded(refusal)
            self.status.note(claims.subject, context.now)
        self.audit.count(made)
        self.rates.charge("ws_token", claims.subject, now)
        return issued

    async def issue_access_token(self, context: RequestContext, username: str, ttl: int | None) -> Issued:
        """An access token for scripts, `ttl` seconds long. Raises NotFound, Forbidden (disabled)."""
        async with self.database.transaction() as conn:
            user = await existing_user(conn, username)
            if user.disabled_at is not None:
                raise Forbidden(f"The user {user.username} is disabled.")
            issued = self.tokens.issue_access(user.subject, context.now, ttl=ttl)
            await _begin_login(conn, user, issued, context)
            event = _token_issued(self.audit.event, context, issued, "access", target=user.subject)
            await self.audit.record(conn, event)
        return issued


def _login(claims: AccessClaims, context: RequestContext) -> Login:
    return Login(
        claims.subject, claims.login_id, claims.issued_at, claims.expires_at, context.now, context.address
    )


async def _begin_login(conn: AsyncConnection, user: User, issued: Issued, context: RequestContext) -> None:
    """Keep a login of ours that has just been made."""
    until = context.now + timedelta(seconds=issued.expires_in)
    login = Login(user.subject, issued.login_id, context.now, until, context.now, context.address)
    await logins.note(conn, login)


def _token_issued(
    make: Callable[..., Event], context: RequestContext, issued: Issued, kind: str, **attrs: Any
) -> Event:
    return make(
        "auth.token_issued",
        "success",
        context,
        kind=kind,
        jti=issued.token_id,
        sid=issued.login_id,
        kid=issued.kid,
        expires_in=issued.expires_in,
        **attrs,
    )
