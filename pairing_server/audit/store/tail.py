"""New events of the audit log: every event once, however long its transaction took.

Events are final when their transaction lies below PostgreSQL's horizon. A read goes as far as the horizon, and the next
one begins there. No event can appear behind it later, as one could if reads went by time.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.store import seals
from pairing_server.audit.store.catalogue import isolated
from pairing_server.audit.store.filters import Filter, matching
from pairing_server.audit.store.search import COLUMNS, Recorded, recorded


class Position(NamedTuple):
    """Everything before this transaction and number has been seen."""

    xid: int
    seq: int


async def here(conn: AsyncConnection) -> Position:
    """The position after everything that is final."""
    return Position(await seals.horizon(conn), -1)


async def newer(
    conn: AsyncConnection, which: Filter, position: Position, limit: int
) -> tuple[list[Recorded], Position]:
    """At most `limit` events that match and are newer, in the order of their transactions; and where to go on."""
    async with isolated(conn) as tables:
        epoch = await seals.epoch(tables)
    conditions = matching(which)
    conditions.add(
        "a.epoch = :epoch AND a.xid >= CAST(CAST(:xid AS text) AS xid8) AND a.xid < CAST(CAST(:end AS text) AS xid8)"
        " AND (a.xid, a.seq) > (CAST(CAST(:xid AS text) AS xid8), :seq)",
        epoch=epoch,
        xid=str(position.xid),
        seq=position.seq,
    )
    horizon = await seals.horizon(conn)
    rows = await conn.execute(
        text(
            f"SELECT {COLUMNS}, a.xid::text FROM audit_events AS a WHERE {conditions} ORDER BY a.xid, a.seq LIMIT :limit"
        ),
        {**conditions.values, "end": str(horizon), "limit": limit},
    )
    found, last = [], ""
    for *row, xid in rows:
        found.append(recorded(row))
        last = xid
    if len(found) < limit:
        return found, Position(max(horizon, position.xid), -1 if horizon > position.xid else position.seq)
    return found, Position(int(last), found[-1].seq)
