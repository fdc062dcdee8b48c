"""Databases of the tests, with nothing in their tables: what a test has left there is deleted for the next one.

To make a database costs five times as much. One whose schema a test has changed is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from pairing_server.db import tables

T = TypeVar("T")

# Statements that leave nothing in the tables; the guards of the audit log are triggers.
EMPTY = "; ".join(
    (
        "SET session_replication_role = replica",
        *(f"DELETE FROM {table.name}" for table in tables.metadata.sorted_tables),
    )
)

_CATALOGUES = (
    *("pg_attrdef", "pg_attribute", "pg_class", "pg_constraint", "pg_index", "pg_inherits"),
    *("pg_policy", "pg_proc", "pg_rewrite", "pg_sequence", "pg_trigger", "pg_type", "pg_extension"),
)
# Every change of a schema writes or removes rows of these, also one that grants a right.
_SCHEMA = " UNION ALL ".join(
    (
        *(f"SELECT '{name}', count(*), max(xmin::text::bigint)::text FROM {name}" for name in _CATALOGUES),
        # PostgreSQL keeps those that sessions had for temporary tables.
        "SELECT 'pg_namespace', count(*), max(xmin::text::bigint)::text FROM pg_namespace"
        " WHERE nspname !~ '^pg_(toast_)?temp_'",
        "SELECT 'database', oid::bigint, xmin::text FROM pg_database WHERE datname = current_database()",
        "SELECT 'settings', count(*), '' FROM pg_db_role_setting"
        " WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
        "SELECT 'revision', count(*), max(version_num) FROM public.alembic_version",
    )
)
_SEQUENCES = "SELECT format('%I.%I', schemaname, sequencename), start_value, last_value FROM pg_sequences"
_OTHERS_END = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@dataclass(frozen=True)
class _State:
    """What a database is like besides the rows of its tables."""

    schema: tuple[tuple[object, ...], ...]
    sequences: tuple[tuple[object, ...], ...]


class Databases:
    """The migrated databases of a worker. One at a time is used by each test that asks."""

    def __init__(self, make: Callable[[], Iterator[str]]) -> None:
        """`make`: makes a database, gives its URL, and drops it in the end."""
        self._make = make
        self._free: list[tuple[Iterator[str], str, _State]] = []

    def use(self) -> Iterator[str]:
        """The URL of a database that is as the migrations leave it."""
        if not self._free:
            self._free.append(self._made())
        made, url, state = self._free.pop()
        yield url
        if _run(_emptied(url, state)):
            self._free.append((made, url, state))
        else:
            next(made, None)

    def _made(self) -> tuple[Iterator[str], str, _State]:
        made = self._make()
        url = next(made)
        return made, url, _run(_state(url))


def _run(work: Coroutine[object, object, T]) -> T:
    with asyncio.Runner() as runner:
        return runner.run(work)


async def _read(connection: asyncpg.Connection) -> _State:
    # A test may have made tables and functions that stand in for PostgreSQL's.
    await connection.execute("SET search_path = pg_catalog")
    schema, sequences = [await connection.fetch(query) for query in (_SCHEMA, _SEQUENCES)]
    return _State(tuple(map(tuple, schema)), tuple(map(tuple, sequences)))


async def _state(url: str) -> _State:
    connection = await asyncpg.connect(url)
    try:
        return await _read(connection)
    finally:
        await connection.close()


async def _emptied(url: str, state: _State) -> bool:
    """Whether the database is again as it was made, but for what PostgreSQL remembers of deleted rows."""
    try:
        connection = await asyncpg.connect(url)
    except (OSError, asyncpg.PostgresError):
        return False
    try:
        now = await _read(connection)
        await connection.execute(_OTHERS_END)
        if now.schema != state.schema:
            return False
        await connection.execute("SET search_path = public")
        back = [
            f"SELECT setval('{name}', {last or start}, {last is not None})"
            for (name, start, last) in state.sequences
        ]
        await connection.execute("; ".join((EMPTY, *back)))
        return True
    except asyncpg.PostgresError:
        return False
    finally:
        await connection.close()
