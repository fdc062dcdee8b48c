"""Logins and what is revoked of them, at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    and_,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.raw_connection import Fetch
from pairing_server.db.tables import logins, revocations, spent_tokens
from pairing_server.store import audit_events
from pairing_server.store.audit_events import Event

LOGIN, TOKEN, USER = "login", "token", "user"


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


async def note(conn: AsyncConnection, login: Login, issuer: str, token_id: str | None = None) -> bool:
    """Keep the login, or note when and from where it was last used. False if it is revoked: nothing is kept then.

    `token_id`: the token that is used, which may be revoked by itself.
    """
    values = (literal(getattr(login, column.name), column.type) for column in _LOGIN)
    unless = ~exists().where(revocations.c.issuer == issuer, _concerning(login, token_id))
    statement = insert(logins).from_select([column.name for column in _LOGIN], select(*values).where(unless))
    newer = {name: statement.excluded[name] for name in ("expires_at", "seen_at", "address")}
    kept = await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[logins.c.subject, logins.c.login_id], set_=newer
        ).returning(logins.c.login_id)
    )
    return kept.one_or_none() is not None


_USED_FOR = f"""
WITH kept AS (
    INSERT INTO logins (subject, login_id, created_at, expires_at, seen_at, address)
    SELECT $2, $3, $4, $5, $6, $7
    WHERE ($1::uuid IS NULL OR EXISTS (SELECT FROM users WHERE id = $1 AND disabled_at IS NULL))
      AND NOT EXISTS (
        SELECT FROM revocations WHERE issuer = $8 AND (
            kind = 'login' AND name = $3 OR kind = 'token' AND name = $9
            OR kind = 'user' AND name = $2 AND revoked_at >= $4))
    ON CONFLICT (subject, login_id) DO UPDATE
    SET expires_at = excluded.expires_at, seen_at = excluded.seen_at, address = excluded.address
    RETURNING login_id
), recorded AS (
    {audit_events.adding("CASE WHEN EXISTS (SELECT FROM kept) /**/ THEN $10::jsonb ELSE '[]' END")}
)
SELECT EXISTS (SELECT FROM kept)
"""
# Sent again: the event may have been recorded already, whichever clock is ahead.
_USED_FOR_AGAIN = _USED_FOR.replace(
    "/**/",
    """AND NOT EXISTS (
        SELECT FROM audit_events WHERE actor_subject = $2 AND recorded_at > $6 - interval '10 minutes'
          AND event_id = ($10::jsonb -> 0 ->> 'event_id')::uuid)""",
)


@dataclass(frozen=True, slots=True)
class LoginUse:
    """A login is used, with this token of its issuer. `account`: the built-in user's; None for all others."""

    login: Login
    issuer: str
    token_id: str
    account: UUID | None


async def use(once: Fetch, used: LoginUse, event: Event) -> bool:
    """As `note`, and record what the login is used for. False if it is revoked or the account is gone or disabled:
    then there is neither."""
    login = used.login
    row = await once(
        _USED_FOR,
        used.account,
        *(login.subject, login.login_id, login.created_at, login.expires_at, login.seen_at, login.address),
        used.issuer,
        used.token_id,
        audit_events.as_json([event]),
        again=_USED_FOR_AGAIN,
    )
    return row is not None and bool(row[0])


def _concerning(login: Login, token_id: str | None) -> ColumnElement[bool]:
    """Revocations, of the login's issuer, that end it. As RevocationList.covers, by what the database knows now."""
    t = revocations.c
    return or_(
        and_(t.kind == LOGIN, t.name == login.login_id),
        and_(t.kind == TOKEN, t.name == token_id),
        and_(t.kind == USER, t.name == login.subject, t.revoked_at >= login.created_at),
    )


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


async def revoke(conn: AsyncConnection, revoked: Revocation) -> bool:
    """Revoke from now on. False if the same was revoked before. `forget` takes the logins that it ends from the list."""
    statement = insert(revocations).values({name: getattr(revoked, name) for name in Revocation.__slots__})
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
