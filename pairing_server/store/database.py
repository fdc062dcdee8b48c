"""The way to PostgreSQL: one engine, transactions, and what an absent database looks like.

No SQL of ours lives here but the probe of `ready`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from pairing_server.errors import Unavailable

# Related durations, in seconds: the server gives up on a statement before the client does, and a
# request waits for a connection less long than for a statement.
CONNECT_TIMEOUT = 3
COMMAND_TIMEOUT = 5
STATEMENT_TIMEOUT = "4s"
LOCK_TIMEOUT = "2s"
POOL_TIMEOUT = 2

# SQLSTATE classes and codes that mean "not now": connection trouble (a refused login, a missing
# or a closed database included), read-only after a failover, out of resources, shutting down, locks and cancelled statements.
_PASSING = ("08", "28", "3D000", "53", "57", "25006", "40001", "40P01", "55000", "55P03")


class Database:
    """The engine and its pool. One for each process; made before the first request, closed at the end."""

    def __init__(self, url: str, *, pool_size: int = 10, max_overflow: int = 5) -> None:
        """`url`: postgresql://…; query parameters are asyncpg's."""
        self._asking: asyncio.Future[None] | None = None
        self.engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=POOL_TIMEOUT,
            pool_pre_ping=True,
            pool_recycle=1800,
            pool_use_lifo=True,
            hide_parameters=True,
            connect_args={
                "timeout": CONNECT_TIMEOUT,
                "command_timeout": COMMAND_TIMEOUT,
                "server_settings": {
                    "application_name": "pairing-server",
                    "statement_timeout": STATEMENT_TIMEOUT,
                    "lock_timeout": LOCK_TIMEOUT,
                    "idle_in_transaction_session_timeout": "10s",
                    "timezone": "UTC",
                    "jit": "off",
                },
            },
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end, rolled back by any error.

        Raises Unavailable if the database is away, overloaded or refuses to write for now.
        """
        try:
            async with self.engine.begin() as connection:
                yield connection
        except (PoolTimeout, OSError, TimeoutError) as error:
            raise Unavailable("The database is not reachable just now.") from error
        except DBAPIError as error:
            if _passing(error):
                raise Unavailable("The database is not available just now.") from error
            raise

    async def ready(self) -> None:
        """Return if the database answers and takes writes; raise Unavailable otherwise.

        Whoever asks while another's question is under way shares its answer, so that asking, which needs
        no login, never takes more than one connection.
        """
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._asked)
        await asyncio.shield(self._asking)

    def _asked(self, asked: asyncio.Future[None]) -> None:
        self._asking = None
        if not asked.cancelled():
            asked.exception()  # whoever still waits has it; nobody may be left

    async def _ask(self) -> None:
        async with self.transaction() as connection:
            if (await connection.execute(text("SELECT pg_is_in_recovery()"))).scalar_one():
                raise Unavailable("The database is read-only just now.")

    async def close(self) -> None:
        await self.engine.dispose()


def _passing(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None) or ""
    if not state:
        # asyncpg's own errors (connection lost, timeout) carry no SQLSTATE.
        return True
    return error.connection_invalidated or state.startswith(_PASSING)
