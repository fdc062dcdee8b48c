"""Logins and what is revoked of them, at rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, delete, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.raw_connection import Fetch
from pairing_server.db.tables import logins, revocations, spent_tokens
from pairing_server.request_context import RequestContext
from pairing_server.security.issuers import issuer_of
from pairing_server.store import audit_events, users
from pairing_server.store.audit_events import Event

LOGIN, TOKEN, USER = "login", "token", "user"
# In the place of a subject that can be no account's.
NO_ACCOUNT = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Login:
    """One login of a user, until its access token is over. `address`: where it came from last."""

    subject: str
    login_id: str
    created_at: datetime
    expires_at: datetime
    seen_at: datetime
    address: str | None


@dataclass(frozen=True, slots=True)
class Revocation:
    """`name`: a login's id, a token's id (`jti`), or a subject; of a user, the logins until `revoked_at`.

    After `expires_at` no token that it concerns would be taken anyway.
    """

    kind: str
    issuer: str
    name: str
    revoked_at: datetime
    expires_at: datetime


_LOGIN = tuple(logins.c[name] for name in Login.__slots__)


async def note(conn: AsyncConnection, login: Login) -> None:
    """Keep the login, or note when and from where it was last used."""
    statement = insert(logins).values({name: getattr(login, name) for name in Login.__slots__})
    newer = {name: statement.excluded[name] for name in ("expires_at", "seen_at", "address")}
    await conn.execute(
        statement.on_conflict_do_update(index_elements=[logins.c.subject, logins.c.login_id], set_=newer)
    )


def caller(context: RequestContext) -> str | None:
    """The login that an act is done with, for `refusal`; None for guests and for what the server does by itself."""
    if context.subject is None:
        return None
    foreign = "|" in context.subject
    since = context.logged_in_at
    return json.dumps(
        {
            "account": None if foreign else str(users.id_of(context.subject) or NO_ACCOUNT),
            "subject": context.subject,
            "issuer": issuer_of(context.subject),
            "login_id": context.login_id,
            "token_id": context.token_id,
            "logged_in_at": None if since is None else since.isoformat(),
        }
    )


def refusal(parameter: str) -> str:
    """SQL: why the `caller` in this parameter may do nothing any more, "disabled" or "revoked"; NULL if it may.

    Every statement of an act has it, or the transaction of the act asks `refusal_of`: what was checked when the request
    began may have changed while its body came in.
    """
    given = f"(CAST({parameter} AS jsonb) ->> '%s')"
    account, subject, issuer, login, token, since = (
        given % name for name in ("account", "subject", "issuer", "login_id", "token_id", "logged_in_at")
    )
    return f"""(CASE
        WHEN {account} IS NOT NULL
            AND NOT EXISTS (SELECT FROM users WHERE id = CAST({account} AS uuid) AND disabled_at IS NULL)
        THEN 'disabled'
        WHEN EXISTS (SELECT FROM revocations WHERE issuer = {issuer} AND (
            kind = 'login' AND name = {login} OR kind = 'token' AND name = {token}
            OR kind = 'user' AND name = {subject} AND revoked_at >= CAST({since} AS timestamptz)))
        THEN 'revoked' END)"""


_REFUSAL = text(f"SELECT {refusal(':caller')}")


async def refusal_of(conn: AsyncConnection, context: RequestContext) -> str | None:
    """Why the caller may do nothing any more: "disabled" (or the account is gone), "revoked"; None if it may."""
    given = caller(context)
    if given is None:
        return None
    found: str | None = (await conn.execute(_REFUSAL, {"caller": given})).scalar_one()
    return found


_USED_FOR = f"""
WITH asked AS (
    SELECT {refusal("$1")} AS refusal
), kept AS (
    INSERT INTO logins (subject, login_id, created_at, expires_at, seen_at, address)
    SELECT $2, $3, $4, $5, $6, $7 FROM asked WHERE refusal IS NULL
    ON CONFLICT (subject, login_id) DO UPDATE
    SET expires_at = excluded.expires_at, seen_at = excluded.seen_at, address = excluded.address
    RETURNING login_id
), recorded AS (
    {audit_events.adding("CASE WHEN EXISTS (SELECT FROM kept) /**/ THEN $8::jsonb ELSE '[]' END")}
)
SELECT refusal FROM asked
"""
# Sent again: the event may have been recorded already, whichever clock is ahead.
_USED_FOR_AGAIN = _USED_FOR.replace(
    "/**/",
    """AND NOT EXISTS (
        SELECT FROM audit_events WHERE actor_subject = $2 AND recorded_at > $6 - interval '10 minutes'
          AND event_id = ($8::jsonb -> 0 ->> 'event_id')::uuid)""",
)


async def use(once: Fetch, login: Login, given: str | None, event: Event) -> str | None:
    """As `note`, and record what the login is used for. `given`: its `caller`. Why it may not be used, as `refusal_of`:
    then nothing is kept or recorded."""
    row = await once(
        _USED_FOR,
        given,
        *(login.subject, login.login_id, login.created_at, login.expires_at, login.seen_at, login.address),
        audit_events.as_json([event]),
        again=_USED_FOR_AGAIN,
    )
    found: str | None = None if row is None else row[0]
    return found


async def of(conn: AsyncConnection, subject: str | None, now: datetime, limit: int = 1000) -> list[Login]:
    """The user's logins, or those of all users, newest first."""
    statement = select(*_LOGIN).where(logins.c.expires_at > now)
    if subject is not None:
        statement = statement.where(logins.c.subject == subject)
    statement = statement.order_by(logins.c.created_at.desc()).limit(limit)
    return [Login(*row) for row in await conn.execute(statement)]


async def with_id(conn: AsyncConnection, login_id: str) -> list[Login]:
    """The logins of that id: one, unless two issuers happen to have chosen the same."""
    return [Login(*row) for row in await conn.execute(select(*_LOGIN).where(logins.c.login_id == login_id))]


async def revoke(conn: AsyncConnection, revoked: Revocation, subject: str | None = None) -> bool:
    """Revoke from now on. False if the same was revoked before. `forget` takes the logins that it ends from the list.

    `subject`: whose login or logins that ends, if it is known.
    """
    values = {name: getattr(revoked, name) for name in Revocation.__slots__}
    statement = insert(revocations).values(**values, subject=subject)
    row = await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[revocations.c.kind, revocations.c.issuer, revocations.c.name],
            set_={
                "revoked_at": func.greatest(revocations.c.revoked_at, statement.excluded.revoked_at),
                "expires_at": func.greatest(revocations.c.expires_at, statement.excluded.expires_at),
                "recorded_at": func.clock_timestamp(),
            },
        ).returning(literal_column("xmax = 0", Boolean))  # a row that was inserted has no xmax
    )
    return bool(row.scalar_one())


async def has_ended(conn: AsyncConnection, subject: str, issuer: str, login_id: str) -> bool:
    """Whether a login of that user and id has been revoked."""
    t = revocations.c
    known = select(t.name).where(
        t.kind == LOGIN, t.issuer == issuer, t.name == login_id, t.subject == subject
    )
    return (await conn.execute(known)).one_or_none() is not None


async def forget(conn: AsyncConnection, subject: str, login_id: str | None, until: datetime) -> int:
    """Take the user's login, or all that began until then, from the list. How many."""
    statement = delete(logins).where(logins.c.subject == subject, logins.c.created_at <= until)
    if login_id is not None:
        statement = statement.where(logins.c.login_id == login_id)
    return (await conn.execute(statement)).rowcount


async def revoked_since(
    conn: AsyncConnection, recorded_after: datetime | None, now: datetime
) -> tuple[Sequence[Revocation], datetime | None]:
    """What was revoked after that moment of the database's clock and still matters; and the last such moment."""
    statement = select(
        *(revocations.c[name] for name in Revocation.__slots__), revocations.c.recorded_at
    ).where(revocations.c.expires_at > now)
    if recorded_after is not None:
        statement = statement.where(revocations.c.recorded_at > recorded_after)
    rows = (await conn.execute(statement)).all()
    return [Revocation(*row[:-1]) for row in rows], max((row[-1] for row in rows), default=None)


async def spend(conn: AsyncConnection, token_id: str, expires_at: datetime, now: datetime) -> datetime | None:
    """Note that a token that works once is used. None if this is the first time, else when that was."""
    statement = insert(spent_tokens).values(token_id=token_id, spent_at=now, expires_at=expires_at)
    first = await conn.execute(statement.on_conflict_do_nothing().returning(spent_tokens.c.token_id))
    if first.one_or_none() is not None:
        return None
    known = select(spent_tokens.c.spent_at).where(spent_tokens.c.token_id == token_id)
    before: datetime = (await conn.execute(known)).scalar_one()
    return before


async def prune(conn: AsyncConnection, now: datetime) -> int:
    """Forget logins that are over, revocations and used tokens that do not matter any more. How many."""
    over = await conn.execute(delete(logins).where(logins.c.expires_at <= now))
    moot = await conn.execute(delete(revocations).where(revocations.c.expires_at <= now))
    spent = await conn.execute(delete(spent_tokens).where(spent_tokens.c.expires_at <= now))
    return over.rowcount + moot.rowcount + spent.rowcount
