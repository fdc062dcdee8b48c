"""A database of its own for a large audit log, and filling it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import asyncpg

from bench.audit.generator import COLUMNS, EventGenerator
from pairing_server.db import migrations
from pairing_server.db.embedded.postgres import EmbeddedPostgres

BATCH = 100_000
_PIECE = 1 << 20


@contextmanager
def database(folder: Path, url: str | None) -> Iterator[str]:
    """The URL of a migrated database: at `url`, or an embedded one in `folder`."""
    if url is not None:
        migrations.migrate(url)
        yield url
        return
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddedPostgres(folder) as embedded:
        migrations.migrate(embedded.url)
        yield embedded.url


async def fill(url: str, generator: EventGenerator, say: Callable[[str], None]) -> None:
    """Write the events of the generator; nothing else may be in the log yet. Raises SystemExit."""
    conn = await asyncpg.connect(url)
    try:
        if await conn.fetchval("SELECT EXISTS (SELECT FROM audit_events)"):
            raise SystemExit("This log has events already, which cannot be removed. Give another database.")
        await _make_months(conn, generator.begin)
        await conn.execute("SET synchronous_commit = off")
        lines = generator.lines()
        written = 0
        while batch := list(islice(lines, BATCH)):
            await conn.copy_to_table("audit_events", source=_pieces(batch), columns=COLUMNS)
            written += len(batch)
            say(f"{written:,} of {generator.rows:,} rows")
        say("VACUUM ANALYZE")
        await conn.execute("VACUUM (ANALYZE) audit_events")
    finally:
        await conn.close()


async def _pieces(lines: list[str]) -> AsyncIterator[bytes]:
    data = "".join(lines).encode()
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]


async def _make_months(conn: asyncpg.Connection, begin: datetime) -> None:
    """A partition for each month from then on, in place of the first one, which has all that is older."""
    month = begin.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    async with conn.transaction():
        found = await conn.fetchrow("SELECT name, ends FROM audit_partitions() WHERE begins IS NULL")
        if found is None:
            return
        first, ends = found
        await conn.execute(f'ALTER TABLE audit_events DETACH PARTITION "{first}"')
        await conn.execute(f'DROP TABLE "{first}"')
        while month < ends:
            following = (month + timedelta(days=32)).replace(day=1)
            name = f"audit_events_{month:%Y%m}"
            await conn.execute(
                f"CREATE TABLE {name} PARTITION OF audit_events"
                f" FOR VALUES FROM ('{month.isoformat()}') TO ('{following.isoformat()}')"
            )
            await conn.execute(
                f"CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON {name}"
                " FOR EACH STATEMENT EXECUTE FUNCTION audit_events_append_only()"
            )
            month = following


async def size(url: str) -> tuple[int, int]:
    """How many rows the log has, and its bytes with the indexes."""
    conn = await asyncpg.connect(url)
    try:
        rows = await conn.fetchval("SELECT count(*) FROM audit_events")
        used = await conn.fetchval(
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'audit_events'::regclass"
        )
        return int(rows), int(used)
    finally:
        await conn.close()
