"""Loading what was saved in the place of the server's own tables, in one transaction, or changing nothing.

The schema comes from the migrations, so it is the same whatever version of PostgreSQL the backup is from. What is taken away
is what they take away: a table of another program stays as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby
from typing import Any, BinaryIO

import asyncpg
from sqlalchemy import pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from pairing_server.db import migrations, roles, servers
from pairing_server.db.backup.archive import Contents, Partition, members, rows_of, table_of
from pairing_server.db.backup.connection import BackupError, backup_errors, endpoint, lift_limits, quoted
from pairing_server.db.tables import audit_events, audit_seals, metadata, pairing_changes

_NEEDED = (
    "To restore, it must own the tables of the server and be able to make them: set PAIRING_MIGRATE_DATABASE_URL to the"
    " owner's URL."
)
_PARTITIONS = """SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass($1)"""
_LOG = audit_events.name
# Changes of pairings are for servers that run, and name transactions of the database that was saved.
_LOADED = frozenset(metadata.tables) - {pairing_changes.name}


async def load(url: str, file: BinaryIO, contents: Contents, *, running: str, replacing: bool) -> str:
    """Load the archive `file`, whose `contents` have been checked. The revision that the database is at then.

    `running`: the role that is given the rights of a server, if it is not the one that owns the tables. Unless
    `replacing`, a database that holds data is refused. Raises BackupError, MigrationError and DamagedError.
    """
    # The engine gives alembic the connection that everything else goes through.
    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=pool.NullPool, async_creator=endpoint(url).connect
    )
    try:
        async with backup_errors(_NEEDED), engine.begin() as conn:
            await conn.execute(text("SET LOCAL lock_timeout = '10s'"))
            driver: Any = (await conn.get_raw_connection()).driver_connection
            await lift_limits(driver)
            if connected := await servers.connected(driver, running):
                raise BackupError(f"A server is using the database ({connected} connections). Stop it first.")
            if await _has_data(driver, replacing):
                await _empty(driver)
                await conn.run_sync(migrations.move, migrations.NOTHING)
            await conn.run_sync(migrations.move, contents.about.revision)
            await _load(driver, file, contents)
            await conn.run_sync(migrations.move, "head")
            # Without it, queries of the first minutes would be planned for empty tables.
            await driver.execute(f"ANALYZE {', '.join(metadata.tables)}")
            if running != roles.role_of(url):
                for statement in roles.grants(running):
                    await driver.execute(statement)
            return migrations.head()
    finally:
        await engine.dispose()


async def _has_data(driver: asyncpg.Connection, replacing: bool) -> bool:
    """Whether there is something to replace. Raises BackupError if it must stay."""
    state = await migrations.state(driver)
    if state.revision is None:
        return False
    if not replacing:
        raise BackupError(
            "The database holds data. Give --replace to replace them, or set PAIRING_DATABASE_URL to an empty database."
        )
    if state.newer:
        raise BackupError(
            f"The database is at revision {state.revision}, which this release does not know (its own is"
            f" {migrations.head()}), so it cannot tell which tables to replace. Restore with the release that made them."
        )
    return True


async def _empty(driver: asyncpg.Connection) -> None:
    """Take all rows away, so that no step back copies or refuses them. Rows of the audit log go with their partitions:
    its triggers refuse everything else."""
    for partition in await _partitions(driver):
        await driver.execute(f"DROP TABLE {quoted(partition)}")
    names = metadata.tables.keys() - {audit_events.name, audit_seals.name}
    there = [name for name in names if await driver.fetchval("SELECT to_regclass($1)", name)]
    # Without CASCADE: it would reach tables of others.
    await driver.execute(f"TRUNCATE {', '.join(there)}")


async def _load(driver: asyncpg.Connection, file: BinaryIO, contents: Contents) -> None:
    saved = contents.tables
    if saved.partitions:
        await _make_partitions(driver, saved.partitions)
    loaded = dict.fromkeys(saved.tables, 0)
    blocks = ((table_of(name), data) for name, data in members(file))
    for table, parts in groupby(blocks, key=lambda block: block[0]):
        # A backup by a release that did not know all its tables may have some of another program.
        if table is None or table not in _LOADED:
            continue
        done = await driver.copy_to_table(
            table, source=_rows(data for _, data in parts), columns=saved.tables[table].columns
        )
        loaded[table] += int(done.removeprefix("COPY "))
    for table, count in loaded.items():
        if table in _LOADED and count != saved.tables[table].rows:
            raise BackupError(f"Of {saved.tables[table].rows} rows of {table} {count} have arrived.")
    for name, last in saved.sequences.items():
        if await driver.fetchval("SELECT to_regclass($1)", name):
            await driver.execute("SELECT setval($1::regclass, $2)", name, last)
    if saved.epoch is not None:
        await driver.execute(f"ALTER TABLE {_LOG} ALTER COLUMN epoch SET DEFAULT {int(saved.epoch)}")


async def _rows(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield rows_of(block)


async def _partitions(driver: asyncpg.Connection) -> list[str]:
    return [row["relname"] for row in await driver.fetch(_PARTITIONS, _LOG)]


async def _make_partitions(driver: asyncpg.Connection, wanted: Sequence[Partition]) -> None:
    """Give the audit log these partitions in place of those that the migrations have made for today."""
    there = set(await _partitions(driver))
    kept = there & {partition.name for partition in wanted}
    for name in there - kept:
        await driver.execute(f"DROP TABLE {quoted(name)}")
    for name in kept:
        await driver.execute(f"ALTER TABLE {_LOG} DETACH PARTITION {quoted(name)}")
    for partition in wanted:
        name = quoted(partition.name)
        if partition.name not in kept:
            await driver.execute(
                f"CREATE TABLE {name} (LIKE {_LOG} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);"
                f" CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON {name}"
                " FOR EACH STATEMENT EXECUTE FUNCTION audit_events_append_only()"
            )
        begins = f"'{partition.begins}'" if partition.begins else "MINVALUE"
        await driver.execute(
            f"ALTER TABLE {_LOG} ATTACH PARTITION {name} FOR VALUES FROM ({begins}) TO ('{partition.ends}')"
        )
