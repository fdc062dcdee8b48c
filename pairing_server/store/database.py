"""The way to PostgreSQL: one engine with its pool, transactions, and what an absent database looks like.

No SQL of ours lives here but the probe of `ready`. Taking a connection costs no round trip: whether it still works shows
with the BEGIN that has to be sent anyway, and one that is lost then is replaced.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import asyncpg
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from pairing_server.errors import Unavailable

# Related durations, in seconds: the server gives up on a statement before the client does, and a
# request waits for a connection less long than for a statement.
CONNECT_TIMEOUT = 3
STATEMENT_TIMEOUT = 4
COMMAND_GRACE = 1
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


@dataclass(frozen=True, slots=True)
class Lane:
    """One connection, in two views: for SQLAlchemy's statements, and for those few that go to the driver directly.

    `conn` sends no BEGIN of its own, so that both are in the same transaction.
    """

    conn: AsyncConnection
    driver: asyncpg.Connection

    @property
    def dead(self) -> bool:
        """Whether it is known not to work; False promises nothing."""
        return self.driver.is_closed() or self.conn.invalidated


class Database:
    """The engine and its connections. One for each process; made before the first request, closed at the end."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = POOL_SIZE,
        pool_timeout: float = POOL_TIMEOUT,
        statement_timeout: int = STATEMENT_TIMEOUT,
    ) -> None:
        """`url`: postgresql://…; query parameters are asyncpg's. The timeouts are in seconds."""
        self._asking: asyncio.Future[None] | None = None
        self.engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            pool_recycle=MAX_AGE,
            # Those that are not needed grow old together.
            pool_use_lifo=True,
            # `transaction`, `lane` and `once` leave none to be undone.
            pool_reset_on_return=None,
            hide_parameters=True,
            connect_args={
                "timeout": CONNECT_TIMEOUT,
                "command_timeout": statement_timeout + COMMAND_GRACE,
                "server_settings": {
                    "application_name": "pairing-server",
                    "statement_timeout": f"{statement_timeout}s",
                    "lock_timeout": LOCK_TIMEOUT,
                    "idle_in_transaction_session_timeout": "10s",
                    "timezone": "UTC",
                    "jit": "off",
                },
            },
        )
        event.listen(self.engine.sync_engine, "checkout", _checked_out)

    async def warm(self) -> None:
        """Open the first connections. If the database is away, whoever asks first is told."""
        wanted = (self.engine.connect().start() for _ in range(WARM))
        for opened in await asyncio.gather(*wanted, return_exceptions=True):
            if isinstance(opened, AsyncConnection):
                await opened.close()

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
        # The BEGIN shows whether it works; if not, nothing has been lost yet.
        lane, _ = await self._first(lambda lane: lane.driver.execute("BEGIN"))
        try:
            yield lane
            if await lane.driver.execute("COMMIT") != "COMMIT":
                raise RuntimeError("the transaction had failed, and was not committed")
        except BaseException as error:
            lost = await _undo(lane, error)
            if (unavailable := _unavailable(error, lost=lost)) is not None:
                raise unavailable from error
            raise
        await lane.conn.close()

    async def once(self, statement: str, *values: object) -> asyncpg.Record | None:
        """The first row of one statement that is a transaction by itself.

        If the connection is lost, it is sent once more on a new one, so it must be one that may be done twice:
        whether the first has been done is not known then. Raises Unavailable as `transaction` does.
        """

        async def fetch(lane: Lane) -> asyncpg.Record | None:
            found: asyncpg.Record | None = await lane.driver.fetchrow(statement, *values)
            return found

        lane, found = await self._first(fetch)
        await lane.conn.close()
        return found

    async def _first(self, act: Callable[[Lane], Awaitable[T]]) -> tuple[Lane, T]:
        """A lane, and what comes of the first statement on it: on a second lane if the first one was lost."""
        for last in (False, True):
            lane = await self._taken()
            try:
                return lane, await act(lane)
            except BaseException as error:
                lost = await _undo(lane, error)
                # Who has waited for one in vain need not wait for another.
                if lost and not last and isinstance(error, Exception) and not isinstance(error, TimeoutError):
                    continue
                if (unavailable := _unavailable(error, lost=lost)) is not None:
                    raise unavailable from error
                raise
        raise AssertionError("the last attempt returns or raises")

    async def _taken(self) -> Lane:
        try:
            conn = await self.engine.connect()
        except Exception as error:
            if (unavailable := _unavailable(error, lost=False)) is not None:
                raise unavailable from error
            raise
        return Lane(conn, cast(Connection, conn.sync_connection).connection.driver_connection)

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


def _checked_out(adapted: Any, *_: object) -> None:
    """One that the database has closed meanwhile is replaced; the others that wait most likely are closed as well."""
    if adapted.driver_connection.is_closed():
        raise InvalidatePoolError


async def _undo(lane: Lane, error: BaseException) -> bool:
    """Give the lane back: its transaction, if it is in one, has not happened. Whether the connection was lost."""
    # Cut off in the middle of something, nobody knows what it is still doing.
    lost = (
        lane.dead
        or isinstance(error, (*_HANGING_UP, OSError, TimeoutError))
        or not isinstance(error, Exception)
    )
    clean = False
    try:
        if not lost and lane.driver.is_in_transaction():
            await lane.driver.execute("ROLLBACK")
        clean = not lost
    except Exception:
        lost = True
    finally:
        if not clean:
            await lane.conn.invalidate()
        await lane.conn.close()
    return lost


def _unavailable(error: BaseException, *, lost: bool) -> Unavailable | None:
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
        passing = isinstance(error, PoolTimeout)
    return Unavailable("The database is not available just now.") if passing else None
