"""Saving the server's tables, as they are at one moment.

It takes no more than the right to read them, and reads no table of another program.
"""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from pairing_server.db import migrations
from pairing_server.db.backup.archive import About, Partition, RowWriter, Table, Tables, Writer
from pairing_server.db.backup.connection import BackupError, backup_errors, endpoint, lift_limits, quoted
from pairing_server.db.tables import audit_events, metadata

_NEEDED = (
    "To save, it must be able to read all tables of the server: run `migrate` as their owner, which grants that, or set"
    " PAIRING_MIGRATE_DATABASE_URL to the owner's URL."
)
# $1: the names of our tables. $2: whether there may be others: those of a newer release are taken by their owner.
_TABLES = f"""
SELECT c.oid, c.relname AS name, c.oid::regclass::text AS written
FROM pg_class AS c JOIN pg_class AS version ON version.oid = {migrations.VERSION_TABLE}
WHERE c.relnamespace = version.relnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.oid <> version.oid
    AND (c.relname = ANY($1) OR $2 AND c.relowner = version.relowner)
"""
_COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
# Those that give the tables' columns their defaults or are identities.
_SEQUENCES = """
SELECT DISTINCT s.relname, pg_sequence_last_value(s.oid) AS last
FROM pg_class AS s JOIN pg_depend AS d ON
    d.objid = s.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY($1)
    OR d.refobjid = s.oid AND d.classid = 'pg_attrdef'::regclass
        AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = ANY($1))
WHERE s.relkind = 'S'
"""
_PARTITIONS = r"""
SELECT c.relname AS name,
    to_char(substring(bound FROM 'FROM \(''([^'']+)''')::timestamptz, 'YYYY-MM-DD"T"HH24:MI:SSOF') AS begins,
    to_char(substring(bound FROM 'TO \(''([^'']+)''')::timestamptz, 'YYYY-MM-DD"T"HH24:MI:SSOF') AS ends
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid CROSS JOIN pg_get_expr(c.relpartbound, c.oid) AS bound
WHERE i.inhparent = $1 ORDER BY ends
"""
_EPOCH = """
SELECT pg_get_expr(d.adbin, d.adrelid)::int
FROM pg_attrdef AS d JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE d.adrelid = $1 AND a.attname = 'epoch'
"""


async def save(
    url: str, archive: Writer, saved: Mapping[str, str], keys: Mapping[str, bytes]
) -> migrations.State:
    """Write a whole archive. `saved`: the release that does so, and when (`made_at`). Raises BackupError."""
    async with backup_errors(_NEEDED):
        driver = await endpoint(url).connect()
        try:
            async with driver.transaction(isolation="repeatable_read", readonly=True):
                await lift_limits(driver)
                state, tables = await _save(driver, archive, saved, keys)
            # Rows are of one moment, but the shape of the tables is that of each statement.
            if (await migrations.state(driver)).revision != state.revision:
                raise BackupError(
                    "The database was migrated meanwhile, so the backup is not whole. Try again."
                )
            archive.finish(tables)
            return state
        finally:
            await driver.close()


async def _save(
    driver: asyncpg.Connection, archive: Writer, saved: Mapping[str, str], keys: Mapping[str, bytes]
) -> tuple[migrations.State, Tables]:
    state = await migrations.state(driver)
    if state.revision is None:
        path = await driver.fetchval("SHOW search_path")
        raise BackupError(f"There is nothing to save: the database has no schema yet (search_path: {path}).")
    archive.about(About(**saved, revision=state.revision))
    for name, data in keys.items():
        archive.add(name, data)
    order = [table.name for table in metadata.sorted_tables]
    found = {row["name"]: row for row in await driver.fetch(_TABLES, order, state.newer)}
    tables = {}
    for name in sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name)):
        tables[name] = await _save_table(driver, archive, found[name])
    log = found[audit_events.name]["oid"] if audit_events.name in found else None
    # The numbers are no part of the moment that the rows are of: those given meanwhile are left out by the next server.
    sequences = await driver.fetch(_SEQUENCES, [row["oid"] for row in found.values()])
    return state, Tables(
        tables,
        {row["relname"]: row["last"] for row in sequences if row["last"] is not None},
        [Partition(**row) for row in await driver.fetch(_PARTITIONS, log)],
        await driver.fetchval(_EPOCH, log),
    )


async def _save_table(driver: asyncpg.Connection, archive: Writer, table: asyncpg.Record) -> Table:
    columns = [row["attname"] for row in await driver.fetch(_COLUMNS, table["oid"])]
    names = ", ".join(map(quoted, columns))
    with RowWriter(archive, table["name"]) as rows:
        done = await driver.copy_from_query(f"SELECT {names} FROM {table['written']}", output=rows)
    return Table(columns, int(done.removeprefix("COPY ")))
