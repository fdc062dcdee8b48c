"""Accounts: register, log in, get tokens, and what an administrator does to them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.recorder import clean
from pairing_server.errors import (
    BadCredentials,
    Forbidden,
    InvalidToken,
    NotFound,
    RateLimited,
    Unavailable,
    UsernameTaken,
    ValidationFailed,
)
from pairing_server.security.limits import LOGIN_ADDRESS, LOGIN_USER, REGISTER_ADDRESS
from pairing_server.security.tokens import AccessClaims, Issued
from pairing_server.services import logins, rate_limits
from pairing_server.services.account_status import account_of, require_enabled
from pairing_server.services.deps import Caller, Deps
from pairing_server.services.rate_limits import Counted, Lockout
from pairing_server.store import users
from pairing_server.store.audit_events import Event
from pairing_server.store.users import User

ROLES = ("user", "auditor", "admin")


def check_new(username: str, password: str) -> None:
    """Raises ValidationFailed with `fields` if a new account must not have this name or password."""
    fields = {}
    plain = unicodedata.normalize("NFC", username)
    if not 3 <= len(plain) <= 64:
        fields["username"] = ["Must be 3 to 64 characters."]
    elif clean(plain, 64) != plain or plain != plain.strip():
        fields["username"] = ["Must not have control characters, nor spaces at its ends."]
    if not 12 <= len(unicodedata.normalize("NFC", password)) <= 128:
        fields["password"] = ["Must be 12 to 128 characters."]
    if fields:
        raise ValidationFailed(fields=fields)


async def register(deps: Deps, username: str, password: str, caller: Caller, now: datetime) -> User:
    """Make an account, where registration is open.

    Raises Forbidden, ValidationFailed, RateLimited, UsernameTaken (after the same work as a success).
    """
    if not deps.registration_open:
        raise Forbidden("Registration is closed here; ask the operator for an account.")
    check_new(username, password)
    async with deps.database.transaction() as conn:
        limit = Counted("register_address", caller.address_key, REGISTER_ADDRESS)
        counting = await rate_limits.hold(conn, [limit], now)
        seconds, kind = counting.wait(now)
        if not seconds:
            await counting.charge(now)
    if seconds:
        raise RateLimited(seconds, "Too many accounts were made from there; try later.", limit=kind)
    return await add_user(deps, username, password, "user", caller, now)


async def add_user(
    deps: Deps, username: str, password: str, role: str, caller: Caller, now: datetime
) -> User:
    """Make an account. Raises ValidationFailed, UsernameTaken."""
    check_new(username, password)
    hashed = await deps.passwords.hash(password)
    async with deps.database.transaction() as conn:
        name = unicodedata.normalize("NFC", username)
        user = await users.add(conn, uuid4(), name, hashed, role, now)
        if user is not None:
            made = deps.audit.event("account.created", "success", caller, now, target=user.subject, role=role)
            await deps.audit.record(conn, made)
    if user is None:
        raise UsernameTaken()
    return user


async def login(deps: Deps, username: str, password: str, caller: Caller, now: datetime) -> Issued:
    """An access token. Raises BadCredentials or RateLimited: the same, after the same work, for a name nobody has.

    The attempt is counted before the password is looked at, so that guesses made at the same time are
    all counted; a right password takes its own back.
    """
    limits = [
        Counted("login_user", users.username_key(username), LOGIN_USER),
        Counted("login_address", caller.address_key, LOGIN_ADDRESS),
    ]
    async with (
        deps.turns.of(f"login {limits[0].key}"),
        deps.turns.of(f"login at {limits[1].key}"),
        deps.database.transaction() as conn,
    ):
        counting = await rate_limits.hold(conn, limits, now)
        seconds, kind = counting.wait(now)
        if not seconds:
            await counting.charge(now)
            used_up = counting.used_up(now)
        found = await users.with_password(conn, username)
        if seconds:
            denied = deps.audit.event("auth.login", "denied", caller, now, reason="locked", limit=kind)
            await deps.audit.refuse(conn, denied)
    if seconds:
        raise RateLimited(seconds, "Too many failed logins; wait, then try again.")
    user, stored = found if found else (None, None)
    verdict = await deps.passwords.verify(stored, password)
    if user is None or not verdict.ok or user.disabled_at is not None:
        await _login_failed(deps, user, verdict.ok, used_up, caller, now)
        raise BadCredentials()
    rehashed = await deps.passwords.hash(password) if verdict.rehash else None
    return await _logged_in(deps, user, rehashed, limits, caller, now)


async def _login_failed(
    deps: Deps, user: User | None, matched: bool, used_up: list[Lockout], caller: Caller, now: datetime
) -> None:
    reason = "unknown_user" if user is None else "disabled" if matched else "password"
    target = user.subject if user else None
    async with deps.database.transaction() as conn:
        failed = deps.audit.event("auth.login", "failure", caller, now, reason=reason, target=target)
        await deps.audit.refuse(conn, failed)
        if used_up:
            await deps.audit.record(conn, *(lockout_event(deps, lockout, caller, now) for lockout in used_up))


def lockout_event(deps: Deps, lockout: Lockout, caller: Caller, now: datetime) -> Event:
    """That a limit has just locked somebody out."""
    return deps.audit.event(
        "auth.lockout", "denied", caller, now, scope=lockout.limit.kind, until=lockout.until.isoformat()
    )


async def _logged_in(
    deps: Deps, user: User, rehashed: str | None, limits: list[Counted], caller: Caller, now: datetime
) -> Issued:
    issued = deps.tokens.issue_access(user.subject, now)
    known = Caller(
        user.subject, issued.login_id, caller.address, caller.address_key, caller.request_id, kind="user"
    )
    async with deps.database.transaction() as conn:
        await (await rate_limits.hold(conn, limits, now)).take_back(now)
        if rehashed:
            await users.set_password(conn, user.id, rehashed)
        await _begin_login(conn, user, issued, caller, now)
        await deps.audit.record(
            conn,
            deps.audit.event("auth.login", "success", known, now, auth_method="password"),
            _token_issued(deps.audit.event, known, issued, "access", now),
        )
    return issued


async def _begin_login(
    conn: AsyncConnection, user: User, issued: Issued, caller: Caller, now: datetime
) -> None:
    until = now + timedelta(seconds=issued.expires_in)
    await logins.begin(conn, user.subject, issued.login_id, until, caller, now)


def _token_issued(
    make: Callable[..., Event], caller: Caller, issued: Issued, kind: str, now: datetime, **attrs: Any
) -> Event:
    return make(
        "auth.token_issued",
        "success",
        caller,
        now,
        kind=kind,
        jti=issued.token_id,
        sid=issued.login_id,
        kid=issued.kid,
        expires_in=issued.expires_in,
        **attrs,
    )


async def issue_ws_token(
    deps: Deps, claims: AccessClaims, device_type: str, label: str | None, caller: Caller, now: datetime
) -> Issued:
    """A ws token for a device of that type. Raises InvalidToken if the account is gone or disabled.

    While the database is away, whoever was seen enabled here in the last minutes gets one all the same, or nobody
    could come back whose connection breaks meanwhile; a foreign subject is its issuer's affair in any case. It opens
    a socket; where that may sit is still decided by the database, or by what this process has seen.
    """
    name = clean(label, 128) if label else None
    issued = deps.tokens.issue_ws(claims, device_type, name or None, now)
    event = partial(_token_issued, deps.audit.draft, caller, issued, "ws", now, device_type=device_type)
    made = event()
    try:
        account = account_of(claims.subject)
        if not await logins.use(deps, claims, account, made, caller, now):
            await _use_or_refuse(deps, claims, made, caller, now)
    except Unavailable:
        if account is not None and not deps.enabled.lately(claims.subject, now):
            raise
        made = event(degraded=True)
        deps.audit.enqueue(made)
    except InvalidToken as error:
        if error.reason == "disabled":
            deps.enabled.forget(claims.subject)
        raise
    else:
        deps.enabled.note(claims.subject, now)
    deps.audit.count(made)
    return issued


async def _use_or_refuse(
    deps: Deps, claims: AccessClaims, made: Event, caller: Caller, now: datetime
) -> None:
    """Raises InvalidToken for what is against it, which is recorded."""
    async with deps.database.transaction() as conn:
        await require_enabled(conn, claims.subject)
        refusal = await logins.note(deps, conn, claims, caller, now)
        if refusal is None:
            await deps.audit.record(conn, made)
    if refusal is not None:
        raise refusal


async def issue_access_token(
    deps: Deps, username: str, ttl: int | None, caller: Caller, now: datetime
) -> Issued:
    """An access token for scripts, `ttl` seconds long. Raises NotFound, Forbidden (disabled)."""
    async with deps.database.transaction() as conn:
        user = await _named(conn, username)
        if user.disabled_at is not None:
            raise Forbidden(f"The user {user.username} is disabled.")
        issued = deps.tokens.issue_access(user.subject, now, ttl=ttl)
        await _begin_login(conn, user, issued, caller, now)
        await deps.audit.record(
            conn, _token_issued(deps.audit.event, caller, issued, "access", now, target=user.subject)
        )
    return issued


async def _named(conn: AsyncConnection, username: str) -> User:
    user = await users.by_name(conn, username)
    if user is None:
        raise NotFound(f"There is no user {username!r}; see: pairing-server user list")
    return user


async def list_users(deps: Deps) -> list[User]:
    """All accounts, by name."""
    async with deps.database.transaction() as conn:
        return await users.everybody(conn)


async def set_disabled(deps: Deps, username: str, disabled: bool, caller: Caller, now: datetime) -> bool:
    """Disable or enable the account. False if it was so already. Raises NotFound."""
    async with deps.database.transaction() as conn:
        user = await _named(conn, username)
        changed = await users.set_disabled(conn, user.id, now if disabled else None)
        if changed:
            name = "account.disabled" if disabled else "account.enabled"
            await deps.audit.record(conn, deps.audit.event(name, "success", caller, now, target=user.subject))
    return changed


async def set_password(deps: Deps, username: str, password: str, caller: Caller, now: datetime) -> None:
    """All logins of the account end. Raises NotFound, ValidationFailed."""
    check_new("any", password)
    hashed = await deps.passwords.hash(password)
    async with deps.database.transaction() as conn:
        user = await _named(conn, username)
        await users.set_password(conn, user.id, hashed)
        revoked = await logins.revoke_all_of(deps, conn, user.subject, now)
        event = deps.audit.event("account.password_changed", "success", caller, now, target=user.subject)
        await deps.audit.record(conn, event)
    logins.took_effect(deps, revoked)


async def set_role(deps: Deps, username: str, role: str, caller: Caller, now: datetime) -> None:
    """Raises NotFound."""
    async with deps.database.transaction() as conn:
        user = await _named(conn, username)
        await users.set_role(conn, user.id, role)
        event = deps.audit.event(
            "account.role_changed", "success", caller, now, target=user.subject, was=user.role, role=role
        )
        await deps.audit.record(conn, event)
