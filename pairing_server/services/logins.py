"""Logins: listing them, and ending them before their time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.errors import InvalidToken, NotFound
from pairing_server.relay.connection import Connection
from pairing_server.request_context import RequestContext
from pairing_server.security.claims import LEEWAY_S, MAX_ID, is_text
from pairing_server.security.issuers import OWN_ISSUER
from pairing_server.security.tokens import AccessClaims, WsClaims
from pairing_server.services.deps import Deps
from pairing_server.services.revocation_list import RevocationList, issuer_of
from pairing_server.store import logins as store
from pairing_server.store import users
from pairing_server.store.audit_events import Event
from pairing_server.store.logins import LOGIN, TOKEN, USER, Login, Revocation

# A transaction may commit this long after the moment that its row tells.
_LATE = timedelta(seconds=30)


async def note(
    deps: Deps, conn: AsyncConnection, claims: AccessClaims, context: RequestContext
) -> InvalidToken | None:
    """Note that the login is used. The refusal, to be raised, if it is revoked: the database knows it first."""
    if await store.note(conn, _used(claims, context), issuer_of(claims.subject), claims.token_id):
        return None
    denied = deps.audit.event(
        "auth.token_rejected", "denied", context, reason="revoked", kind="access", sid=claims.login_id
    )
    await deps.audit.refuse(conn, denied)
    return InvalidToken(reason="revoked")


async def use(
    deps: Deps, claims: AccessClaims, account: UUID | None, told: Event, context: RequestContext
) -> bool:
    """Note that the login is used, and record for what, in one statement. False if there is something against it."""
    login = _used(claims, context)
    issuer = issuer_of(claims.subject)
    return await store.use(deps.database.once, login, issuer, claims.token_id, account, told)


def _used(claims: AccessClaims, context: RequestContext) -> Login:
    return Login(
        claims.subject, claims.login_id, claims.issued_at, claims.expires_at, context.now, context.address
    )


async def begin(
    conn: AsyncConnection, subject: str, login_id: str, expires_at: datetime, context: RequestContext
) -> None:
    """Keep a login of ours that has just been made."""
    await store.note(
        conn, Login(subject, login_id, context.now, expires_at, context.now, context.address), OWN_ISSUER
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """A login, whether it is the one that asks, and how many of its connections are open on this server."""

    login: Login
    current: bool
    connections: int


async def list_own(deps: Deps, context: RequestContext) -> list[Listed]:
    """The caller's logins, newest first."""
    async with deps.database.transaction() as conn:
        found = await store.of(conn, context.subject or "", context.now, limit=200)
    connections = [s.identity.login_id for s in deps.hub.connections.values() if s.subject == context.subject]
    return [
        Listed(login, login.login_id == context.login_id, connections.count(login.login_id))
        for login in found
    ]


async def logout(deps: Deps, claims: AccessClaims, context: RequestContext, *, everywhere: bool) -> int:
    """End the caller's login, or all of his. How many connections of this server that closes."""
    revoked = (
        _of_user(deps, claims.subject, context.now) if everywhere else _of_login(deps, claims, context.now)
    )
    return await _end(
        deps,
        "auth.logout",
        [revoked],
        context,
        claims.subject,
        sid=claims.login_id,
        everywhere=everywhere,
    )


async def revoke_own(deps: Deps, login_id: str, context: RequestContext) -> int:
    """End one of the caller's logins. How many connections of this server that closes. Raises NotFound."""
    subject = context.subject or ""
    if not is_text(login_id, MAX_ID):
        raise NotFound("You have no login with this id. It may have ended.")
    async with deps.database.transaction() as conn:
        known = [login for login in await store.with_id(conn, login_id) if login.subject == subject]
    if not known:
        raise NotFound("You have no login with this id. It may have ended.")
    revoked = _revocation(deps, LOGIN, issuer_of(subject), login_id, context.now)
    return await _end(deps, "auth.token_revoked", [revoked], context, subject, sid=login_id, by="user")


async def revoke_login(deps: Deps, login_id: str, context: RequestContext) -> list[Login]:
    """End the login of that id. The logins ended. Raises NotFound."""
    async with deps.database.transaction() as conn:
        found = await store.with_id(conn, login_id)
    if not found:
        raise NotFound(f"There is no login {login_id!r}; see: pairing-server login list")
    for login in found:
        revoked = _revocation(deps, LOGIN, issuer_of(login.subject), login_id, context.now)
        await _end(deps, "auth.token_revoked", [revoked], context, login.subject, sid=login_id, by="admin")
    return found


async def list_of(deps: Deps, who: str | None, now: datetime) -> list[Login]:
    """Everybody's logins, or a user's, newest first. Raises NotFound."""
    async with deps.database.transaction() as conn:
        subject = None if who is None else await _subject(conn, who)
        return await store.of(conn, subject, now)


async def _subject(conn: AsyncConnection, who: str) -> str:
    """Of a username, a user's id, or "issuer|sub". Raises NotFound."""
    if "|" in who:
        return who
    user = await users.by_name(conn, who) or await _by_id(conn, who)
    if user is None:
        raise NotFound(f"There is no user {who!r}; see: pairing-server user list")
    return user.subject


async def revoke_user(deps: Deps, who: str, context: RequestContext) -> str:
    """End all logins of a user: a username, a user's id, or "issuer|sub". The subject. Raises NotFound."""
    async with deps.database.transaction() as conn:
        subject = await _subject(conn, who)
    await _end(
        deps, "auth.token_revoked", [_of_user(deps, subject, context.now)], context, subject, by="admin"
    )
    return subject


async def _by_id(conn: AsyncConnection, who: str) -> users.User | None:
    try:
        return await users.by_id(conn, UUID(who))
    except ValueError:
        return None


async def revoke_token(deps: Deps, token_id: str, issuer: str | None, context: RequestContext) -> None:
    """Refuse one token, by its `jti`, and close what was opened with it. `issuer` None: one of ours."""
    revoked = _revocation(deps, TOKEN, issuer or OWN_ISSUER, token_id, context.now)
    await _end(deps, "auth.token_revoked", [revoked], context, None, jti=token_id, by="admin")


async def revoke_all_of(deps: Deps, conn: AsyncConnection, subject: str, now: datetime) -> Revocation:
    """End all logins of the user, in the transaction of what makes it necessary; `took_effect` when that is done."""
    revoked = _of_user(deps, subject, now)
    await store.revoke(conn, revoked)
    await store.forget(conn, subject, None, now)
    return revoked


def took_effect(deps: Deps, *revoked: Revocation) -> int:
    """The transaction is done: refuse and close at once in this process. How many connections were closed."""
    deps.revoked.add(revoked)
    return close_revoked(deps)


async def _end(
    deps: Deps, event: str, revoked: list[Revocation], context: RequestContext, subject: str | None, **attrs: Any,
) -> int:  # fmt: skip
    """Revoke, tell of it, and close what is open here."""
    ahead = RevocationList()
    ahead.add(revoked)
    closing = sum(1 for connection in deps.hub.connections.values() if _covered(ahead, connection))
    async with deps.database.transaction() as conn:
        for one in revoked:
            await store.revoke(conn, one)
            if subject is not None:
                await store.forget(conn, subject, one.name if one.kind == LOGIN else None, context.now)
        told = deps.audit.event(event, "success", context, target=subject, sockets_closed=closing, **attrs)
        await deps.audit.record(conn, told)
    return took_effect(deps, *revoked)


def _of_login(deps: Deps, claims: AccessClaims, now: datetime) -> Revocation:
    return _revocation(deps, LOGIN, issuer_of(claims.subject), claims.login_id, now)


def _of_user(deps: Deps, subject: str, now: datetime) -> Revocation:
    return _revocation(deps, USER, issuer_of(subject), subject, now)


def _revocation(deps: Deps, kind: str, issuer: str, name: str, now: datetime) -> Revocation:
    return Revocation(kind, issuer, name, now, now + timedelta(seconds=deps.tokens.longest_life))


async def spend(deps: Deps, claims: WsClaims, context: RequestContext) -> None:
    """Use up a ws token, where each works once. Raises InvalidToken if it was used before, on whichever server."""
    if not deps.single_use:
        return
    # For as long as it would be taken, leeway included.
    until = claims.expires_at + timedelta(seconds=2 * LEEWAY_S)
    async with deps.database.transaction() as conn:
        first = await store.spend(conn, claims.token_id, until, context.now)
        if first is not None:
            reused = deps.audit.event(
                "auth.token_reuse",
                "denied",
                context,
                jti=claims.token_id,
                target=claims.subject,
                first_seen=first.isoformat(),
            )
            await deps.audit.refuse(conn, reused)
    if first is not None:
        raise InvalidToken(
            "This ws token has been used. Get a new one for each connection.", reason="replayed"
        )


async def learn(deps: Deps, now: datetime) -> int:
    """Learn what was revoked meanwhile, on whichever server, and close what it concerns. How many."""
    revoked = deps.revoked
    since = None if revoked.read_until is None else revoked.read_until - _LATE
    async with deps.database.transaction() as conn:
        found, until = await store.revoked_since(conn, since, now)
    revoked.read_until = until or revoked.read_until
    revoked.forget(now)
    return close_revoked(deps) if revoked.add(found) else 0


def close_revoked(deps: Deps) -> int:
    """Close the connections of this process whose tokens are revoked. How many."""
    closing = [
        connection for connection in deps.hub.connections.values() if _covered(deps.revoked, connection)
    ]
    for connection in closing:
        connection.log_out()
    return len(closing)


def _covered(revoked: RevocationList, connection: Connection) -> bool:
    identity = connection.identity
    return not connection.closing and revoked.covers(
        identity.subject, identity.login_id, identity.token_id, identity.logged_in_at
    )
