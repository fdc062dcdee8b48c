"""How pairings end by themselves and names come free, at rest. Each act takes a batch of what is due."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import pairings
from pairing_server.store.pairings import COLUMNS, Pairing, as_pairing, not_elsewhere


async def count_live(conn: AsyncConnection) -> int:
    """How many pairings hold a name and are not ended."""
    return (await conn.execute(select(func.count()).where(pairings.c.ended_at.is_(None)))).scalar_one()


_BATCH = 1000


def _batch(due: ColumnElement[bool]) -> Select[tuple[UUID]]:
    """At most a batch of the pairings that are due, locked; those another server has locked are left to it.

    A table expression, because PostgreSQL may evaluate a plain subquery again for each row, and then
    there is no limit.
    """
    found = select(pairings.c.id).where(due).limit(_BATCH).with_for_update(skip_locked=True).cte("batch")
    return select(found.c.id)


async def _end_where(
    conn: AsyncConnection, due: ColumnElement[bool], state: str, reason: str, now: datetime
) -> list[Pairing]:
    """End at most a batch."""
    statement = (
        update(pairings)
        .where(pairings.c.id.in_(_batch(due)), due)
        .values(state=state, ended_at=now, end_reason=reason)
        .returning(*COLUMNS)
    )
    return [as_pairing(row) for row in await conn.execute(statement)]


async def expire_pending(conn: AsyncConnection, now: datetime) -> list[Pairing]:
    """Expire a batch of codes whose time is over. What was expired."""
    due = and_(pairings.c.state == "pending", pairings.c.expires_at <= now)
    return await _end_where(conn, due, "expired", "expired", now)


async def close_never_active(conn: AsyncConnection, redeemed_until: datetime, now: datetime) -> list[Pairing]:
    """Close a batch of pairings that were redeemed but whose devices never met. What was closed."""
    due = and_(pairings.c.state == "redeemed", pairings.c.redeemed_at <= redeemed_until)
    return await _end_where(conn, due, "closed", "expired", now)


async def close_deserted(
    conn: AsyncConnection, node: UUID, seen_until: datetime, now: datetime
) -> list[Pairing]:
    """Close a batch of pairings that no server has seen a member of since then, and that none but this one has. What was
    closed."""
    due = and_(
        pairings.c.state.in_(("active", "waiting")), pairings.c.seen_at <= seen_until, not_elsewhere(node)
    )
    return await _end_where(conn, due, "closed", "deserted", now)


async def release_names(conn: AsyncConnection, ended_until: datetime) -> int:
    """Let the codes of pairings that ended before then be drawn again. The number released."""
    due = and_(pairings.c.ended_at <= ended_until, pairings.c.code_mac.is_not(None))
    statement = update(pairings).where(pairings.c.id.in_(_batch(due))).values(code_mac=None)
    return (await conn.execute(statement)).rowcount


async def prune(conn: AsyncConnection, ended_until: datetime) -> int:
    """Forget pairings that ended before then. The number forgotten."""
    batch = _batch(pairings.c.ended_at <= ended_until)
    return (await conn.execute(delete(pairings).where(pairings.c.id.in_(batch)))).rowcount
