"""A connection for saving and loading, and its errors in plain words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError

from pairing_server.db import endpoints
from pairing_server.db.errors import DATABASE_ERRORS

# All hosts together.
_CONNECT_SECONDS = 10
# What a role or a database may have set for requests, which are short.
_NO_LIMITS = """SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"""


class BackupError(Exception):
    """It could not be saved or loaded; the text is for the operator."""


def endpoint(url: str) -> endpoints.Endpoints:
    return endpoints.Endpoints(
        url,
        timeout=_CONNECT_SECONDS,
        application_name="pairing-server backup",
        # COPY writes values as these say.
        timezone="UTC",
        datestyle="ISO",
        intervalstyle="postgres",
        bytea_output="hex",
    )


async def lift_limits(driver: asyncpg.Connection) -> None:
    """For the transaction."""
    await driver.execute(_NO_LIMITS)


def quoted(name: str) -> str:
    """The name in a statement."""
    return '"' + name.replace('"', '""') + '"'


@asynccontextmanager
async def backup_errors(needed: str) -> AsyncIterator[None]:
    """Raises BackupError for what the database answers. `needed`: the rights that it takes."""
    try:
        yield
    except endpoints.PoolerError as error:
        raise BackupError(str(error)) from None
    except (*DATABASE_ERRORS, OSError, TimeoutError) as error:
        raise _plain(error.orig if isinstance(error, DBAPIError) else error, needed) from None


def _plain(error: BaseException | None, needed: str) -> BackupError:
    cause = str(error) or type(error).__name__
    state = getattr(error, "sqlstate", None) or ""
    if state == "42501":
        return BackupError(f"The role may not do that: {cause}. {needed}")
    if state == "55P03":
        return BackupError(f"The database is in use: {cause}. Stop every server, then try again.")
    if state == "42P07":
        return BackupError(
            f"A table of another program is in the way: {cause}. Give the server a database or a schema of its own."
        )
    # It needs them, as a view does, or refers to them, as a foreign key does.
    if state in ("2BP01", "0A000"):
        detail = getattr(error, "detail", None) or cause
        return BackupError(
            f"Something that is not the server's needs its tables: {detail} Remove that first, or use an empty database."
        )
    if isinstance(error, OSError | TimeoutError) or state.startswith(("08", "28", "3D", "57P")):
        return BackupError(f"The database is not reachable: {cause}. Check PAIRING_DATABASE_URL.")
    return BackupError(f"The database refuses: {cause}.")
