"""Runs the migrations, for `alembic …` and for `pairing-server migrate`.

Imports nothing of the package, so that it goes on working for old revisions. The URL is the one the
caller put into the configuration, else the settings' PAIRING_DATABASE_URL: environment, credential
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
from sqlalchemy.engine import URL, make_url
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
    ctx.execute(text(f"COMMENT ON TABLE alembic_version IS {said}"))


def migrate(connection: Connection) -> None:
    # One migrates, the others wait, however long it takes, and then find nothing to do.
    connection.execute(text("SELECT pg_advisory_lock(7421000)"))
    # A migration that cannot get its lock at once gives up instead of queueing everybody behind it.
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.commit()
    context.configure(connection=connection, transaction_per_migration=True, on_version_apply=say_what_works)
    with context.begin_transaction():
        context.run_migrations()
    connection.execute(text("SELECT pg_advisory_unlock(7421000)"))
    connection.commit()


def single(url: str) -> list[URL]:
    """The URL for each of its hosts (postgresql://a:1,b:2/name)."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    return [
        make_url(f"{scheme}://{login}{at}{host}{slash}{path}").set(drivername="postgresql+asyncpg")
        for host in hosts.split(",")
    ]


async def connect(urls: list[URL]) -> asyncpg.Connection:
    """A connection to the first that takes writes; one that is cut off does not use up the others' time."""
    failure: Exception | None = None
    for url in urls:
        options = dict(url.get_dialect()().create_connect_args(url)[1])
        if len(urls) > 1 or isinstance(options.get("host"), list):
            options.setdefault("target_session_attrs", "read-write")
        try:
            return await asyncpg.connect(timeout=10 / len(urls), command_timeout=600, **options)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
            if failure is None or isinstance(failure, OSError):
                failure = error
    raise failure or SystemExit(f"{NAME} names no host")


async def run() -> None:
    urls = single(database_url())
    engine = create_async_engine(urls[0], poolclass=pool.NullPool, async_creator=lambda: connect(urls))
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
else:
    asyncio.run(run())
