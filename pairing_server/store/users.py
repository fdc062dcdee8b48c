"""Accounts and whose device a session id is, at rest."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import sessions, users


@dataclass(frozen=True, slots=True)
class User:
    id: UUID
    username: str
    role: str
    created_at: datetime
    disabled_at: datetime | None

    @property
    def subject(self) -> str:
        """The `sub` of this user's tokens."""
        return str(self.id)


_USER = (users.c.id, users.c.username, users.c.role, users.c.created_at, users.c.disabled_at)


def username_key(username: str) -> str:
    """The form in which two usernames are compared: what looks the same is the same."""
    return unicodedata.normalize("NFKC", username).casefold()


def _user(row: Row[UUID, str, str, datetime, datetime | None] | None) -> User | None:
    return None if row is None else User(*row)


async def add(conn: AsyncConnection, user: User, password_hash: str) -> bool:
    """Add the user. False if the name is taken."""
    statement = (
        insert(users)
        .values(
            id=user.id,
            username=user.username,
            username_key=username_key(user.username),
            password_hash=password_hash,
            role=user.role,
            created_at=user.created_at,
        )
        .on_conflict_do_nothing(index_elements=[users.c.username_key])
        .returning(users.c.id)
    )
    return (await conn.execute(statement)).one_or_none() is not None


async def with_password(conn: AsyncConnection, username: str) -> tuple[User, str] | None:
    """The user of that name and the stored password hash."""
    row = (
        await conn.execute(
            select(*_USER, users.c.password_hash).where(users.c.username_key == username_key(username))
        )
    ).one_or_none()
    return None if row is None else (User(*row[:-1]), row[-1])


async def by_name(conn: AsyncConnection, username: str) -> User | None:
    found = await with_password(conn, username)
    return found[0] if found else None


async def by_id(conn: AsyncConnection, user_id: UUID) -> User | None:
    return _user((await conn.execute(select(*_USER).where(users.c.id == user_id))).one_or_none())


async def role_of(conn: AsyncConnection, subject: str | None) -> str | None:
    """The role of a built-in, enabled account; None for every other subject."""
    user_id = id_of(subject or "")
    user = await by_id(conn, user_id) if user_id else None
    return user.role if user and user.disabled_at is None else None


async def names(conn: AsyncConnection, subjects: Collection[str]) -> dict[str, str]:
    """The names of those subjects that are accounts here."""
    ids = [found for subject in subjects if (found := id_of(subject)) is not None]
    if not ids:
        return {}
    rows = await conn.execute(select(users.c.id, users.c.username).where(users.c.id.in_(ids)))
    return {str(user_id): username for user_id, username in rows}


def id_of(subject: str) -> UUID | None:
    """The id of the account with that subject; None if it can be no account's."""
    try:
        return UUID(subject)
    except ValueError:
        return None


async def list_all(conn: AsyncConnection) -> list[User]:
    """All users, by name."""
    return [User(*row) for row in await conn.execute(select(*_USER).order_by(users.c.username_key))]


async def enabled_among(conn: AsyncConnection, ids: Sequence[UUID]) -> list[UUID]:
    """Which of these users have an account that is not disabled."""
    statement = select(users.c.id).where(users.c.id.in_(ids), users.c.disabled_at.is_(None))
    return list((await conn.execute(statement)).scalars())


async def set_password(conn: AsyncConnection, user_id: UUID, password_hash: str) -> bool:
    result = await conn.execute(
        update(users).where(users.c.id == user_id).values(password_hash=password_hash)
    )
    return result.rowcount == 1


async def set_role(conn: AsyncConnection, user_id: UUID, role: str) -> bool:
    """False if that was its role already."""
    result = await conn.execute(
        update(users).where(users.c.id == user_id, users.c.role != role).values(role=role)
    )
    return result.rowcount == 1


async def set_disabled(conn: AsyncConnection, user_id: UUID, disabled_at: datetime | None) -> bool:
    """False if it was so already."""
    was = users.c.disabled_at.is_(None) if disabled_at else users.c.disabled_at.is_not(None)
    result = await conn.execute(
        update(users).where(users.c.id == user_id, was).values(disabled_at=disabled_at)
    )
    return result.rowcount == 1


async def bind_session(
    conn: AsyncConnection, session_id: str, subject: str, device_type: str, now: datetime
) -> tuple[str, bool]:
    """Bind the session id to the subject unless it is bound. Answer (its owner, whether it is new)."""
    statement = insert(sessions).values(
        session_id=session_id, subject=subject, device_type=device_type, bound_at=now, seen_at=now
    )
    row = (
        await conn.execute(
            statement.on_conflict_do_update(
                index_elements=[sessions.c.session_id], set_={"seen_at": statement.excluded.seen_at}
            ).returning(sessions.c.subject, sessions.c.bound_at == now)
        )
    ).one()
    return row[0], row[1]


async def forget_sessions(conn: AsyncConnection, unseen_since: datetime) -> int:
    """Release session ids that were not used for long. The number released."""
    result = await conn.execute(sessions.delete().where(sessions.c.seen_at < unseen_since))
    return result.rowcount
