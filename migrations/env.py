"""Runs the migrations, for `alembic …` and for `pairing-server migrate`.

Imports nothing of the package, so that it goes on working for old revisions. The caller puts a URL or a function that
connects into the configuration; else the URL is the settings' PAIRING_DATABASE_URL: environment, credential
file, or the file of settings.
"""

import asyncio
import os
from pathlib import Path

import asyncpg
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from dotenv import dotenv_values
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

NAME = "PAIRING_DATABASE_URL"


def database_url() -> str:
    if url := context.config.attributes.get("url"):
        return str(url)
    if url := os.environ.get(NAME):
        return url
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "")) / "database-url"
    if (
        "CREDENTIALS_DIRECTORY" in os.environ
        and credential.is_file()
        and (url := credential.read_text().strip())
    ):
        return url
    file = os.environ.get("PAIRING_SETTINGS_FILE") or Path.cwd() / ".env"
    if url := dotenv_values(file).get(NAME):
        return url
    raise SystemExit(
        f"{NAME} is not set, so there is nothing to migrate. Set it to postgresql://…;"
        " for the embedded database run: pairing-server migrate"
    )


def say_what_works(*, ctx: MigrationContext, step: MigrationInfo, **_: object) -> None:
    """Write beside the revision which releases work with it: `works_with` of its migration, or nothing.

    Releases read it (pairing_server/db/migrations.py), those older than the migration, too.
    """
    script = step.up_revision if step.is_upgrade else step.down_revisions[0] if step.down_revisions else None
    oldest = getattr(script.module, "works_with", None) if script is not None else None
    said = f"'revision {script.revision} works with releases from revision {oldest} on'" if oldest else "NULL"
    ctx.execute(text(f"COMMENT ON TABLE {ctx.version_table} IS {said}"))


def version_table(connection: Connection) -> str:
    """Where the revision is: a table of our own where another program's is in the way, in a database that is shared.

    Else it is alembic's, which releases before this one look for.
    """
    own, alembics, ours, readable = connection.execute(
        text(
            "SELECT to_regclass('pairing_schema_version') IS NOT NULL, to_regclass('alembic_version') IS NOT NULL,"
            " to_regclass('audit_events') IS NOT NULL, has_table_privilege(to_regclass('alembic_version'), 'SELECT')"
        )
    ).one()
    if not own and alembics and not ours:
        own = (
            not readable
            or connection.execute(text("SELECT EXISTS (SELECT FROM alembic_version)")).scalar_one()
        )
    return "pairing_schema_version" if own else "alembic_version"


def migrate(connection: Connection) -> None:
    # One migrates, the others wait, however long it takes, and then find nothing to do.
    connection.execute(text("SELECT pg_advisory_lock(7421000)"))
    # A migration that cannot get its lock at once gives up instead of queueing everybody behind it.
    connection.execute(text("SET lock_timeout = '4s'"))
    table = version_table(connection)
    connection.commit()
    context.configure(
        connection=connection,
        transaction_per_migration=True,
        on_version_apply=say_what_works,
        version_table=table,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.execute(text("SELECT pg_advisory_unlock(7421000)"))
    connection.commit()


def migrate_within(connection: Connection) -> None:
    """In the transaction of the caller, who ends it."""
    connection.execute(text("SELECT pg_advisory_xact_lock(7421000)"))
    table = version_table(connection)
    context.configure(connection=connection, on_version_apply=say_what_works, version_table=table)
    context.run_migrations()


async def connect() -> asyncpg.Connection:
    """A connection to the host that takes writes: by the function of the caller, which takes all parameters of libpq."""
    if of_caller := context.config.attributes.get("connect"):
        return await of_caller()
    url = database_url()
    several = "," in url.partition("://")[2].partition("/")[0] and "target_session_attrs=" not in url
    wanted = "read-write" if several else None
    return await asyncpg.connect(url, timeout=10, command_timeout=600, target_session_attrs=wanted)


async def run() -> None:
    engine = create_async_engine("postgresql+asyncpg://", poolclass=pool.NullPool, async_creator=connect)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    # "named", or every "%" would be printed twice.
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        on_version_apply=say_what_works,
    )
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate_within(given)
else:
    asyncio.run(run())
