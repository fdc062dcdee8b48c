"""What the server notes all the time costs no index anything: PostgreSQL writes it in place (HOT)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg

from pairing_server.db.database import Database
from pairing_server.store import membership, rate_limits
from pairing_server.store.membership import Present
from tests.conftest import execute_within

NOW = datetime.now(UTC)
COUNT = 200
ROUNDS = 4
_LIVE = """
INSERT INTO pairings (id, code_mac, state, desktop_session, desktop_user, mobile_session, mobile_user, created_at,
    expires_at, redeemed_at, activated_at, seen_at)
SELECT id, decode(md5(id::text), 'hex'), 'active', 'd-' || id, 'u-' || id, 'm-' || id, 'u-' || id, now(), now(), now(),
    now(), now()
FROM unnest($1::uuid[]) AS id
"""


async def in_place(database: Database, table: str) -> float:
    """Which share of the table's updates was done in place. The connection that did them is the one that is asked."""
    await database.once("SELECT pg_stat_force_next_flush()")
    row = await database.once(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1", table
    )
    assert row is not None and row["n_tup_upd"] > 0
    return float(row["n_tup_hot_upd"] / row["n_tup_upd"])


async def test_presence_is_noted_in_place(database: Database, database_url: str) -> None:
    ids = [uuid4() for _ in range(COUNT)]
    node = uuid4()
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(_LIVE, ids)
        await connection.execute("INSERT INTO nodes (id, name) VALUES ($1, 'n')", node)
        for number in range(ROUNDS):
            present = {each: Present(True, True) for each in ids}
            await membership.set_present(database.once, node, present, NOW + timedelta(seconds=number))
            await connection.execute("VACUUM pairings")
    finally:
        await connection.close()
    assert await in_place(database, "pairings") > 0.5


async def test_limits_are_counted_in_place(database: Database, database_url: str) -> None:
    for number in range(ROUNDS):
        async with database.transaction() as conn:
            keys = [("login_user", f"user-{each}") for each in range(COUNT)]
            await rate_limits.lock(conn, keys, NOW + timedelta(seconds=number))
        await execute_within(database_url, "VACUUM attempts")
    assert await in_place(database, "attempts") > 0.5
