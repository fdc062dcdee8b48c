"""The audit log as PostgreSQL's own catalogue describes it, and a way to its tables that no other object can stand in for.

The role that owns the tables can make functions, operators and views with any name, and can put a schema before
`pg_catalog`. So what is evidence is read in a transaction that finds the names of `pg_catalog` only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, text
from sqlalchemy.ext.asyncio import AsyncConnection


class NotATable(Exception):
    """The audit log is not where it ought to be, or is not a table."""


@dataclass(frozen=True, slots=True)
class AuditTables:
    """The tables of the audit log, named in full, within a transaction that finds the names of `pg_catalog` only."""

    conn: AsyncConnection
    schema: str

    async def execute(
        self, statement: str, values: Mapping[str, Any] | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """`statement` names the tables `@events` and `@seals`."""
        for place, table in (("@events", "audit_events"), ("@seals", "audit_seals")):
            statement = statement.replace(place, self.named(table).replace(":", r"\:"))
        return await self.conn.execute(text(statement), values or {})

    def named(self, table: str) -> str:
        """The table's name in full."""
        return '"' + self.schema.replace('"', '""') + f'".{table}'


# One round trip. The names are looked up by the caller's search path; after this statement, only in pg_catalog.
# Row-level security makes a statement fail instead of leaving rows out.
_ISOLATE = text(
    """SELECT n.nspname, pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
        pg_catalog.set_config('datestyle', 'ISO', true), pg_catalog.set_config('timezone', 'UTC', true),
        pg_catalog.set_config('row_security', 'off', true)
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.oid OPERATOR(pg_catalog.=) CAST(pg_catalog.to_regclass('audit_events') AS pg_catalog.oid)"""
)
_RELEASE = text("SET LOCAL search_path TO DEFAULT")


@asynccontextmanager
async def isolated(conn: AsyncConnection) -> AsyncIterator[AuditTables]:
    """The tables, until the end of the block. Raises NotATable."""
    found = (await conn.execute(_ISOLATE)).one_or_none()
    if found is None:
        raise NotATable(
            "there is no table audit_events: is this the database of a server, and is it migrated?"
        )
    yield AuditTables(conn, found[0])
    await conn.execute(_RELEASE)


@dataclass(frozen=True, slots=True)
class Partition:
    """From `begins` (None: from the beginning) to before `ends`."""

    name: str
    begins: datetime | None
    ends: datetime


async def partitions(tables: AuditTables) -> list[Partition]:
    """The partitions, oldest first."""
    statement = r"""SELECT relname, CAST(substring(bound FROM 'FROM \(''([^'']+)''\)') AS timestamptz),
            CAST(substring(bound FROM 'TO \(''([^'']+)''\)') AS timestamptz)
        FROM (SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound
            FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = CAST(CAST(:parent AS text) AS regclass)) AS found
        ORDER BY 3"""
    return [
        Partition(*row) for row in await tables.execute(statement, {"parent": tables.named("audit_events")})
    ]


# What the migrations made. The body is that of migration 0003.
_GUARD = "audit_events_append_only"
_GUARD_BODY = """
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % of % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END """
# pg_trigger.tgtype: before each row that is updated or deleted, and before a table is truncated.
_NO_REWRITE, _NO_TRUNCATE = 1 + 2 + 8 + 16, 2 + 32
_GUARDS = {
    ("audit_events", "audit_events_no_rewrite"): _NO_REWRITE,
    ("audit_events", "audit_events_no_truncate"): _NO_TRUNCATE,
    ("audit_seals", "audit_seals_no_rewrite"): _NO_REWRITE,
    ("audit_seals", "audit_seals_no_truncate"): _NO_TRUNCATE,
}
_KEYS = {("audit_events", "pk_audit_events"), ("audit_seals", "pk_audit_seals")}
_CHECKS = {f"ck_audit_events_{name}" for name in ("severity", "outcome", "actor_kind", "attrs_size")}
_DEFAULTS = {
    "recorded_at": "clock_timestamp()",
    "seq": "nextval('{schema}audit_events_number'::regclass)",
    "xid": "pg_current_xact_id()",
}

# Both tables and all that is a part of them, however deep. `kind`: as in pg_class; nothing is to be a part of the seals.
_RELATIONS = """WITH RECURSIVE log AS (
    SELECT CAST(CAST(:events AS text) AS regclass) AS id, CAST('p' AS text) AS kind, CAST('r' AS text) AS of_parts
    UNION ALL SELECT CAST(CAST(:seals AS text) AS regclass), 'r', 'none'
    UNION ALL SELECT CAST(i.inhrelid AS regclass), of_parts, 'none' FROM pg_inherits AS i JOIN log ON i.inhparent = log.id)
"""


async def irregularities(tables: AuditTables) -> list[str]:
    """What of the tables is not as the migrations have made it, and could hide, change or refuse rows."""
    values = {"events": tables.named("audit_events"), "seals": tables.named("audit_seals")}
    found = [
        *await _relations(tables, values),
        *await _columns(tables, values),
        *await _constraints(tables, values),
        *await _triggers(tables, values),
        *await _guard(tables),
        *await _search_path(tables),
    ]
    return sorted(found)


async def _relations(tables: AuditTables, values: Mapping[str, str]) -> Sequence[str]:
    statement = f"""{_RELATIONS} SELECT c.relname, log.kind = CAST(c.relkind AS text) AND c.relpersistence = 'p',
            c.relrowsecurity, EXISTS (SELECT FROM pg_rewrite AS r WHERE r.ev_class = c.oid)
        FROM log JOIN pg_class AS c ON c.oid = log.id"""
    found = []
    for name, is_table, secured, has_rules in await tables.execute(statement, values):
        if not is_table:
            found.append(f"{name} is not an ordinary table of the log")
        if secured:
            found.append(f"{name} has row-level security, which can hide rows")
        if has_rules:
            found.append(f"{name} has a rule, which can drop or change rows")
    return found


async def _columns(tables: AuditTables, values: Mapping[str, str]) -> Sequence[str]:
    statement = f"""{_RELATIONS} SELECT c.relname, a.attname, t.typnamespace = CAST('pg_catalog' AS regnamespace),
            CASE WHEN c.relname = 'audit_events' THEN pg_get_expr(d.adbin, d.adrelid) END
        FROM log JOIN pg_class AS c ON c.oid = log.id JOIN pg_attribute AS a ON a.attrelid = c.oid
        JOIN pg_type AS t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE a.attnum > 0 AND NOT a.attisdropped"""
    found = []
    for table, column, known_type, default in await tables.execute(statement, values):
        if not known_type:
            found.append(f"{table}.{column} has a type that is not PostgreSQL's")
        if table == "audit_events" and column in _DEFAULTS:
            expected = _DEFAULTS[column]
            names = {expected.format(schema=""), expected.format(schema=f"{tables.schema}.")}
            if default not in names:
                found.append(
                    f"audit_events.{column} is filled with {default}, not with {expected.format(schema='')}"
                )
    return found


async def _constraints(tables: AuditTables, values: Mapping[str, str]) -> Sequence[str]:
    statement = f"""{_RELATIONS} SELECT c.relname, n.conname, CAST(n.contype AS text)
        FROM log JOIN pg_class AS c ON c.oid = log.id JOIN pg_constraint AS n ON n.conrelid = c.oid
        WHERE n.contype NOT IN ('n', 't')"""
    found, missing = [], set(_KEYS)
    for table, name, kind in await tables.execute(statement, values):
        missing.discard((table, name))
        if kind != "p" and (kind != "c" or name not in _CHECKS):
            found.append(f"{table} has the constraint {name}, which can refuse rows")
    return found + [f"{table} has no primary key" for table, _ in missing]


async def _triggers(tables: AuditTables, values: Mapping[str, str]) -> Sequence[str]:
    """That of a foreign key is internal: see `_constraints`."""
    statement = f"""{_RELATIONS} SELECT c.relname, g.tgname, g.tgenabled IN ('O', 'A'),
            CASE WHEN g.tgqual IS NULL AND CAST(g.tgattr AS text) = '' THEN CAST(g.tgtype AS integer) END,
            p.proname = :guard AND n.nspname = :schema AS ours
        FROM log JOIN pg_class AS c ON c.oid = log.id
        JOIN pg_trigger AS g ON g.tgrelid = c.oid AND NOT g.tgisinternal
        JOIN pg_proc AS p ON p.oid = g.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace"""
    found, missing = [], set(_GUARDS)
    rows = await tables.execute(statement, {**values, "guard": _GUARD, "schema": tables.schema})
    for table, trigger, enabled, kind, ours in rows:
        if not ours:
            found.append(f"{table} has the trigger {trigger}, which can drop or change rows")
        elif not enabled:
            found.append(f"{table}: the trigger {trigger}, which refuses changes, is switched off")
        elif kind not in (_NO_REWRITE, _NO_TRUNCATE) or kind != _GUARDS.get((table, trigger), kind):
            found.append(f"{table}: the trigger {trigger}, which refuses changes, does so in some cases only")
        missing.discard((table, trigger))
    found += [f"{table}: the trigger {name}, which refuses changes, is missing" for table, name in missing]
    return found


async def _search_path(tables: AuditTables) -> Sequence[str]:
    """The session's own: what is recorded is written by it."""
    statement = "SELECT reset_val FROM pg_settings WHERE name = 'search_path'"
    path = str((await tables.execute(statement)).scalar_one())
    names = [name.strip().strip('"') for name in path.split(",")]
    return (
        [f"search_path is {path}: functions can stand in for PostgreSQL's"]
        if "pg_catalog" in names[1:]
        else []
    )


async def _guard(tables: AuditTables) -> Sequence[str]:
    statement = """SELECT p.prosrc FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE p.proname = :guard AND n.nspname = :schema AND p.pronargs = 0"""
    bodies = (await tables.execute(statement, {"guard": _GUARD, "schema": tables.schema})).scalars().all()
    if [body.split() for body in bodies] == [_GUARD_BODY.split()]:
        return []
    return [f"the function {_GUARD}, which refuses changes, is not that of the migrations"]
