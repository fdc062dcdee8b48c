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


@dataclass(frozen=True, slots=True)
class Current:
    """A pairing as it is now. `node`: the server that has its channel; `joined`: the roles that are connected there."""

    pairing: Pairing
    mac: bytes | None
    node: UUID | None
    joined: frozenset[str]


async def of(conn: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Current]:
    """These pairings as they are now. Those that are deleted are not there."""
    t = pairings.c
    statement = select(*COLUMNS, t.code_mac, t.node, t.desktop_joined, t.mobile_joined).where(
        t.id == func.any(bindparam("ids", list(ids), ARRAY(Uuid)))
    )
    found = {}
    for *columns, mac, node, desktop, mobile in await conn.execute(statement):
        joined = {role for role, there in (("desktop", desktop), ("mobile", mobile)) if there}
        found[columns[0]] = Current(as_pairing(columns), mac, node, frozenset(joined))
    return found


async def prune(conn: AsyncConnection) -> int:
    """Forget what is older than KEPT, by the database's clock. How many."""
    old = pairing_changes.c.recorded_at < func.clock_timestamp() - KEPT
    return (await conn.execute(delete(pairing_changes).where(old))).rowcount
