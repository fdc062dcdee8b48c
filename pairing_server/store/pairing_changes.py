"""What has happened to pairings, by whichever server or person: redeemed, ended, deleted. Triggers note it.

A change is found by the snapshot in which it became visible, not by a time: no clock is compared, and a transaction
that commits late is not missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.raw_connection import Fetch
from pairing_server.db.tables import pairing_changes, pairings
from pairing_server.store.pairings import COLUMNS, Pairing, as_pairing

# A server that has not polled for longer compares all of its channels.
KEPT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Changes:
    """The pairings that have changed between two snapshots. `snapshot`: the later one.

    `backwards`: this database has not done what the earlier snapshot has seen, as after a failover to a standby that
    lacks the last transactions; then the changes are not complete.
    """

    snapshot: str
    backwards: bool
    pairing_ids: list[UUID]


_SINCE = """
SELECT pg_current_snapshot()::text,
    coalesce(pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax($1::text::pg_snapshot), false),
    ARRAY(
        SELECT pairing_id FROM pairing_changes
        WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot)
          AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot))
"""


async def since(fetch: Fetch, snapshot: str | None) -> Changes:
    """What has changed since that snapshot; with None nothing, but the snapshot to begin with."""
    row = await fetch(_SINCE, snapshot)
    if row is None:
        raise RuntimeError("the statement always gives a row")
    return Changes(*row)


async def of(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, tuple[Pairing, bytes | None]]:
    """These pairings as they are now, each with its code's MAC. Those that are deleted are not there."""
    wanted = pairings.c.id == func.any(bindparam("ids", list(ids), ARRAY(Uuid)))
    found = await conn.execute(select(*COLUMNS, pairings.c.code_mac).where(wanted))
    return {row.id: (as_pairing(row[:-1]), row.code_mac) for row in found}


async def prune(conn: AsyncConnection) -> int:
    """Forget what is older than KEPT, by the database's clock. How many."""
    old = pairing_changes.c.recorded_at < func.clock_timestamp() - KEPT
    return (await conn.execute(delete(pairing_changes).where(old))).rowcount
