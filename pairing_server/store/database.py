"""The way to PostgreSQL: one engine, transactions, and what an absent database looks like.

No SQL of ours lives here but the probe of `ready`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from pairing_server.errors import Unavailable
from pairing_server.store.pool import Lane, Pool

# Related durations, in seconds: the server gives up on a statement before the client does, and a
# request waits for a connection less long than for a statement.
CONNECT_TIMEOUT = 3
COMMAND_TIMEOUT = 5
STATEMENT_TIMEOUT = "4s"
LOCK_TIMEOUT = "2s"
POOL_TIMEOUT = 4
MAX_AGE = 1800

POOL_SIZE = 12
WARM = 4

# SQLSTATE classes and codes that mean "not now": connection trouble (a refused login, a missing
# or a closed database included), read-only after a failover, out of resources, shutting down, locks and cancelled statements.
_PASSING = ("08", "28", "3D000", "53", "57", "25006", "40001", "40P01", "55000", "55P03")

# How the server says that it is hanging up.
_HANGING_UP = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)

T = TypeVar("T")


class Database:
    """The engine and the lanes to it. One for each process; made before the first request, closed at the end."""

    def __init__(self, url: str, *, pool_size: int = POOL_SIZE) -> None:
        """`url`: postgresql://…; query parameters are asyncpg's."""
        self._asking: asyncio.Future[None] | None = None
        self.engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            poolclass=NullPool,
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
        self._pool = Pool(self.engine, size=pool_size, patience=POOL_TIMEOUT, max_age=MAX_AGE)

    async def warm(self) -> None:
        """Open the first connections. If the database is away, whoever asks first is told."""
        await self._pool.warm(WARM)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end, rolled back by any error.

        Raises Unavailable if the database is away, overloaded or refuses to write for now.
        """
        async with self.lane() as lane:
            yield lane.conn

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        """As `transaction`, for those who also send statements to the driver directly."""
        lane = await self._begun()
        try:
            yield lane
            if await lane.driver.execute("COMMIT") != "COMMIT":
                raise RuntimeError("the transaction had failed, and was not committed")
        except Exception as error:
            lost = _lost(lane, error)
            await self._undo(lane, lost=lost)
            if (unavailable := _unavailable(error, lost=lost)) is not None:
                raise unavailable from error
            raise
        except BaseException:
            # Cut off in the middle of something: nobody knows what it is still doing.
            self._pool.drop(lane)
            raise
        await self._leave(lane)

    async def once(self, statement: str, *values: object) -> asyncpg.Record | None:
        """The first row of one statement that is a transaction by itself.

        If the connection is lost, it is sent once more on a new one, so it must be one that may be done twice:
        whether the first has been done is not known then. Raises Unavailable as `transaction` does.
        """

        async def fetch(lane: Lane) -> asyncpg.Record | None:
            found: asyncpg.Record | None = await lane.driver.fetchrow(statement, *values)
            return found

        lane, found = await self._first(fetch)
        self._pool.give_back(lane)
        return found

    async def _begun(self) -> Lane:
        """A lane in a transaction. The BEGIN shows whether it works; if not, nothing has been lost yet."""
        lane, _ = await self._first(lambda lane: lane.driver.execute("BEGIN"))
        return lane

    async def _first(self, act: Callable[[Lane], Awaitable[T]]) -> tuple[Lane, T]:
        """A lane, and what comes of the first statement on it: on a second lane if the first one was lost."""
        for last in (False, True):
            lane = await self._taken()
            try:
                return lane, await act(lane)
            except Exception as error:
                lost = _lost(lane, error)
                await self._undo(lane, lost=lost)
                if lost:
                    self._pool.drop_free()  # most likely they are lost as well
                if lost and not last:
                    continue
                if (unavailable := _unavailable(error, lost=lost)) is not None:
                    raise unavailable from error
                raise
            except BaseException:
                self._pool.drop(lane)
                raise
        raise AssertionError("the last attempt returns or raises")

    async def _taken(self) -> Lane:
        try:
            return await self._pool.take()
        except Exception as error:
            if (unavailable := _unavailable(error, lost=False)) is not None:
                raise unavailable from error
            raise

    async def _undo(self, lane: Lane, *, lost: bool) -> None:
        """The lane's transaction, if it is in one, has not happened."""
        try:
            if not lost and lane.driver.is_in_transaction():
                await lane.driver.execute("ROLLBACK")
        except BaseException as error:
            self._pool.drop(lane)
            if not isinstance(error, Exception):
                raise
            return
        if lost:
            self._pool.drop(lane)
        else:
            await self._leave(lane)

    async def _leave(self, lane: Lane) -> None:
        """The transaction is over: SQLAlchemy, which has counted one of its own, is told."""
        try:
            if lane.conn.in_transaction():
                await lane.conn.rollback()
        except BaseException:
            self._pool.drop(lane)
            raise
        self._pool.give_back(lane)

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
        await self._pool.close()
        await self.engine.dispose()


def _lost(lane: Lane, error: Exception) -> bool:
    """Whether the connection is not to be used again after this error."""
    return lane.dead or isinstance(error, (*_HANGING_UP, OSError, TimeoutError))


def _unavailable(error: Exception, *, lost: bool) -> Unavailable | None:
    """What means "not now" as Unavailable; None for a fault, and for what is no error of the database."""
    if isinstance(error, OSError | TimeoutError) or (lost and isinstance(error, asyncpg.InterfaceError)):
        return Unavailable("The database is not reachable just now.")
    if isinstance(error, asyncpg.PostgresError):
        passing = (error.sqlstate or "08").startswith(_PASSING)
    elif isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        # asyncpg's own errors (connection lost, timeout) carry no SQLSTATE.
        passing = not state or error.connection_invalidated or state.startswith(_PASSING)
    else:
        passing = False
    return Unavailable("The database is not available just now.") if passing else None
