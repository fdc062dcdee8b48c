"""The servers of this database at rest: which of them run. Only the database's clock is read."""

from __future__ import annotations

from uuid import UUID

from pairing_server.db.raw_connection import Fetch

# A server whose last beat is so much older than the newest one has crashed, or is cut off from the database.
ALIVE_SECONDS = 6
_ALIVE = f"interval '{ALIVE_SECONDS} seconds'"

# Of a row `pairings`: whether the server that has its channel runs. The newest beat, and not the present moment, is what
# counts: while the database was away, no server could beat.
RUNS = f"""EXISTS (
    SELECT FROM nodes WHERE nodes.id = pairings.node
      AND nodes.beat_at > (SELECT max(beat_at) FROM nodes) - {_ALIVE})"""

_BEGIN = """
WITH earlier AS (
    DELETE FROM nodes WHERE name = $2 AND id <> $1 OR beat_at < clock_timestamp() - interval '1 day'
)
INSERT INTO nodes (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET beat_at = clock_timestamp()
RETURNING id
"""
# A server whose beats failed for a while was cut off from the database, and the other servers may have been, too. So those
# that ran at its last beat get time for another one. A beat does not wait for the disk: the next one replaces a lost one.
_BEAT = f"""
WITH late AS (
    SELECT beat_at FROM nodes WHERE id = $1 AND beat_at < clock_timestamp() - {_ALIVE}
), silent AS (
    SELECT id FROM nodes WHERE id <> $1 AND beat_at > (SELECT beat_at FROM late) - {_ALIVE}
    FOR UPDATE SKIP LOCKED -- that one beats just now
), others AS (
    UPDATE nodes SET beat_at = clock_timestamp() WHERE id IN (SELECT id FROM silent)
)
INSERT INTO nodes (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET beat_at = clock_timestamp()
RETURNING set_config('synchronous_commit', 'off', true)
"""


async def begin(fetch: Fetch, node: UUID, name: str) -> None:
    """The server runs from now on. Earlier starts under its name do not any more."""
    await fetch(_BEGIN, node, name)


async def beat(fetch: Fetch, node: UUID, name: str) -> None:
    """The server still runs."""
    await fetch(_BEAT, node, name)


async def end(fetch: Fetch, node: UUID) -> None:
    """The server stops: what it has, others may take over at once."""
    await fetch("DELETE FROM nodes WHERE id = $1", node)
