"""Two roles in the database: one owns the tables and migrates, the other runs the server and may do no more than that.

The role that runs reads and writes the ordinary tables. To the audit log it only adds, and only the columns that are
its own: what the database gives a row (its time, number, transaction, epoch) it cannot choose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
from sqlalchemy.engine import make_url

from pairing_server.db import endpoints
from pairing_server.db.connection_parameters import read
from pairing_server.db.migrations import VERSION_TABLE, MigrationError
from pairing_server.db.tables import EVENT_COLUMNS, audit_events, audit_events_number, audit_seals, metadata

# The embedded database's role that runs the server.
RUNNING = "pairing"
_LOCK = 7421003


def role_of(url: str) -> str:
    """The role that a database's URL is for."""
    return read(url).user


def owner_of(running_url: str) -> str:
    """The URL of the embedded database's owner."""
    return make_url(running_url).set(username="postgres").render_as_string(hide_password=False)


def grant(owner_url: str, role: str) -> None:
    """Give `role` what the server needs at the newest revision, and take from it whatever else it had.

    Not for use in a running event loop. Raises MigrationError.
    """
    _run(owner_url, grants(role))


def make_running(owner_url: str, *, rights: bool = True) -> str:
    """Make the embedded database's role and give it its rights; the URL to run the server with.

    Without `rights` it keeps those it has: a newer release has given them, whose tables this one does not know.

    Not for use in a running event loop. Raises MigrationError.
    """
    role = f"""DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{RUNNING}') THEN CREATE ROLE {RUNNING} LOGIN; END IF;
    END $$"""
    _run(owner_url, [role, *(grants(RUNNING) if rights else [])])
    return make_url(owner_url).set(username=RUNNING).render_as_string(hide_password=False)


def grants(role: str) -> list[str]:
    """The statements that give `role` its rights. They name our own tables only: the schema may have others."""
    name, text = '"' + role.replace('"', '""') + '"', "'" + role.replace("'", "''") + "'"
    log = (audit_events.name, audit_seals.name)
    tables = ", ".join(table.name for table in metadata.sorted_tables if table.name not in log)
    own = ", ".join(f'"{column}"' for column in EVENT_COLUMNS)
    return [
        f"REVOKE ALL ON {tables}, audit_events, audit_seals FROM {name}",
        # The names of the schema, of the partitions and of the table with the revision are known to the database alone.
        f"""DO $grant$ DECLARE partition regclass; BEGIN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), {text});
            EXECUTE format('REVOKE ALL ON %s FROM %I', {VERSION_TABLE}, {text});
            EXECUTE format('GRANT SELECT ON %s TO %I', {VERSION_TABLE}, {text});
            FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_events'::regclass LOOP
                EXECUTE format('REVOKE ALL ON %s FROM %I', partition, {text});
            END LOOP;
        END $grant$""",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {name}",
        f"GRANT SELECT ON audit_events, audit_seals TO {name}",
        f"GRANT INSERT ({own}) ON audit_events TO {name}",
        f"GRANT INSERT ON audit_seals TO {name}",
        f"GRANT USAGE ON SEQUENCE {audit_events_number.name} TO {name}",
        # A restored database has forgotten it.
        "REVOKE ALL ON FUNCTION audit_partitions(), audit_make_partitions(integer),"
        " audit_drop_partition(text, integer, text, text) FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION audit_partitions(), audit_make_partitions(integer),"
        f" audit_drop_partition(text, integer, text, text) TO {name}",
    ]


def _run(url: str, statements: Sequence[str]) -> None:
    async def work() -> None:
        connection = await endpoints.Endpoints(url, timeout=10, command_timeout=60).connect()
        try:
            async with connection.transaction():
                # Several that start at once do it one after the other.
                await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
                for statement in statements:
                    await connection.execute(statement)
        finally:
            await connection.close()

    try:
        asyncio.run(work())
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    ) as error:
        cause = str(error) or type(error).__name__
        raise MigrationError(f"The rights of the role that runs the server cannot be set: {cause}") from None
