"""Accounts: register, log in, get tokens, and what an administrator does to them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.clock import utcnow
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
from pairing_server.request_context import RequestContext
from pairing_server.security.limits import LOGIN_ADDRESS, LOGIN_USER, REGISTER_ADDRESS
from pairing_server.security.tokens import AccessClaims, Issued
from pairing_server.services import logins, rate_limits
from pairing_server.services.account_status import account_of, require_enabled
from pairing_server.services.deps import Deps
from pairing_server.services.rate_limits import LimitKey, Lockout
from pairing_server.store import users
from pairing_server.store.audit_events import Event
from pairing_server.store.users import User
from pairing_server.text import clean

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


async def register(deps: Deps, username: str, password: str, context: RequestContext) -> User:
    """Make an account, where registration is open.

    Raises Forbidden, ValidationFailed, RateLimited, UsernameTaken (after the same work as a success).
    """
    if not deps.registration_open:
        raise Forbidden("Registration is closed on this server. Ask its operator for an account.")
    check_new(username, password)
    async with deps.database.transaction() as conn:
        limit = LimitKey("register_address", context.address_key, REGISTER_ADDRESS)
        counting = await rate_limits.hold(conn, [limit], context.now)
        seconds, kind = counting.wait(context.now)
        if not seconds:
            await counting.charge(context.now)
    if seconds:
        raise RateLimited(
            seconds, "Too many accounts were made from this address. Try again later.", limit=kind
        )
    return await add_user(deps, username, password, "user", context)


async def add_user(deps: Deps, username: str, password: str, role: str, context: RequestContext) -> User:
    """Make an account. Raises ValidationFailed, UsernameTaken."""
    check_new(username, password)
    hashed = await deps.passwords.hash(password)
    async with deps.database.transaction() as conn:
        name = unicodedata.normalize("NFC", username)
        user = await users.add(conn, uuid4(), name, hashed, role, context.now)
        if user is not None:
            made = deps.audit.event("account.created", "success", context, target=user.subject, role=role)
            await deps.audit.record(conn, made)
    if user is None:
        raise UsernameTaken()
    return user


async def login(deps: Deps, username: str, password: str, context: RequestContext) -> Issued:
    """An access token. Raises BadCredentials or RateLimited: the same, after the same work, for a name nobody has.

    The attempt is counted before the password is looked at, so that guesses made at the same time are
    all counted; a right password takes its own back.
    """
    limits = [
        LimitKey("login_user", users.username_key(username), LOGIN_USER),
        LimitKey("login_address", context.address_key, LOGIN_ADDRESS),
    ]
    async with (
        deps.turns.of(f"login {limits[0].key}"),
        deps.turns.of(f"login at {limits[1].key}"),
        deps.database.transaction() as conn,
    ):
        counting = await rate_limits.hold(conn, limits, context.now)
        seconds, kind = counting.wait(context.now)
        if not seconds:
            await counting.charge(context.now)
            used_up = counting.used_up(context.now)
        found = await users.with_password(conn, username)
        if seconds:
            denied = deps.audit.event("auth.login", "denied", context, reason="locked", limit=kind)
            await deps.audit.refuse(conn, denied)
    if seconds:
        raise RateLimited(seconds, "Too many failed logins. Wait, then try again.")
    user, stored = found if found else (None, None)
    verdict = await deps.passwords.verify(stored, password)
    if user is None or not verdict.ok or user.disabled_at is not None:
        await _login_failed(deps, user, verdict.ok, used_up, context)
        raise BadCredentials()
    rehashed = await deps.passwords.hash(password) if verdict.rehash else None
    return await _logged_in(deps, user, rehashed, limits, context)


async def _login_failed(
    deps: Deps, user: User | None, matched: bool, used_up: list[Lockout], context: RequestContext
) -> None:
    reason = "unknown_user" if user is None else "disabled" if matched else "password"
    target = user.subject if user else None
    async with deps.database.transaction() as conn:
        failed = deps.audit.event("auth.login", "failure", context, reason=reason, target=target)
        await deps.audit.refuse(conn, failed)
        if used_up:
            await deps.audit.record(conn, *(lockout_event(deps, lockout, context) for lockout in used_up))


def lockout_event(deps: Deps, lockout: Lockout, context: RequestContext) -> Event:
    """That a limit has just locked somebody out."""
    return deps.audit.event(
        "auth.lockout", "denied", context, scope=lockout.limit.kind, until=lockout.until.isoformat()
    )


async def _logged_in(
    deps: Deps, user: User, rehashed: str | None, limits: list[LimitKey], context: RequestContext
) -> Issued:
    issued = deps.tokens.issue_access(user.subject, context.now)
    known = RequestContext(
        utcnow(),
        subject=user.subject,
        login_id=issued.login_id,
        address=context.address,
        address_key=context.address_key,
        request_id=context.request_id,
        kind="user",
    )
    async with deps.database.transaction() as conn:
        await (await rate_limits.hold(conn, limits, context.now)).take_back(context.now)
        if rehashed:
            await users.set_password(conn, user.id, rehashed)
        await _begin_login(conn, user, issued, context)
        await deps.audit.record(
            conn,
            deps.audit.event("auth.login", "success", known.at(context.now), auth_method="password"),
            _token_issued(deps.audit.event, known.at(context.now), issued, "access"),
        )
    return issued


async def _begin_login(conn: AsyncConnection, user: User, issued: Issued, context: RequestContext) -> None:
    until = context.now + timedelta(seconds=issued.expires_in)
    await logins.begin(conn, user.subject, issued.login_id, until, context)


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


async def issue_ws_token(
    deps: Deps, claims: AccessClaims, device_type: str, label: str | None, context: RequestContext
) -> Issued:
    """A ws token for a device of that type. Raises InvalidToken if the account is gone or disabled.

    While the database is away, whoever was seen enabled here in the last minutes gets one all the same, or nobody
    could come back whose connection breaks meanwhile; a foreign subject is its issuer's affair in any case. It opens
    a socket; where that may sit is still decided by the database, or by what this process has seen.
    """
    name = clean(label, 128) if label else None
    issued = deps.tokens.issue_ws(claims, device_type, name or None, context.now)
    event = partial(_token_issued, deps.audit.draft, context, issued, "ws", device_type=device_type)
    made = event()
    try:
        account = account_of(claims.subject)
        if not await logins.use(deps, claims, account, made, context):
            await _use_or_refuse(deps, claims, made, context)
    except Unavailable:
        if account is not None and not deps.enabled.seen_recently(claims.subject, context.now):
            raise
        made = event(degraded=True)
        deps.audit.enqueue(made)
    except InvalidToken as error:
        if error.reason == "disabled":
            deps.enabled.forget(claims.subject)
        raise
    else:
        deps.enabled.note(claims.subject, context.now)
    deps.audit.count(made)
    return issued


async def _use_or_refuse(deps: Deps, claims: AccessClaims, made: Event, context: RequestContext) -> None:
    """Raises InvalidToken for what is against it, which is recorded."""
    async with deps.database.transaction() as conn:
        await require_enabled(conn, claims.subject)
        refusal = await logins.note(deps, conn, claims, context)
        if refusal is None:
            await deps.audit.record(conn, made)
    if refusal is not None:
        raise refusal


async def issue_access_token(deps: Deps, username: str, ttl: int | None, context: RequestContext) -> Issued:
    """An access token for scripts, `ttl` seconds long. Raises NotFound, Forbidden (disabled)."""
    async with deps.database.transaction() as conn:
        user = await _named(conn, username)
        if user.disabled_at is not None:
            raise Forbidden(f"The user {user.username} is disabled.")
        issued = deps.tokens.issue_access(user.subject, context.now, ttl=ttl)
        await _begin_login(conn, user, issued, context)
        await deps.audit.record(
            conn, _token_issued(deps.audit.event, context, issued, "access", target=user.subject)
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


async def set_disabled(deps: Deps, username: str, disabled: bool, context: RequestContext) -> bool:
    """Disable or enable the account. False if it was so already. Raises NotFound."""
    async with deps.database.transaction() as conn:
        user = await _named(conn, username)
        changed = await users.set_disabled(conn, user.id, context.now if disabled else None)
        if changed:
            name = "account.disabled" if disabled else "account.enabled"
            await deps.audit.record(conn, deps.audit.event(name, "success", context, target=user.subject))
    return changed


async def set_password(deps: Deps, username: str, password: str, context: RequestContext) -> None:
    """All logins of the account end. Raises NotFound, ValidationFailed."""
    check_new("any", password)
    hashed = await deps.passwords.hash(password)
    async with deps.database.transaction() as conn:
        user = await _named(conn, username)
        await users.set_password(conn, user.id, hashed)
        revoked = await logins.revoke_all_of(deps, conn, user.subject, context.now)
        event = deps.audit.event("account.password_changed", "success", context, target=user.subject)
        await deps.audit.record(conn, event)
    logins.took_effect(deps, revoked)


async def set_role(deps: Deps, username: str, role: str, context: RequestContext) -> None:
    """Raises NotFound."""
    async with deps.database.transaction() as conn:
        user = await _named(conn, username)
        await users.set_role(conn, user.id, role)
        event = deps.audit.event(
            "account.role_changed", "success", context, target=user.subject, was=user.role, role=role
        )
        await deps.audit.record(conn, event)
