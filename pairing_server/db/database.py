"""PostgreSQL: one engine with its pool, transactions, and the errors of an unavailable database.

The only SQL here are the probes of `ready`. Taking a connection costs no round trip: whether it still works shows
with the BEGIN that has to be sent anyway, and one that is lost then is replaced.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from pairing_server.db import endpoints
from pairing_server.db.circuit_breaker import (
    PROBE_TIMEOUT,
    CircuitBreaker,
    DatabaseUnavailable,
    OutageListener,
)
from pairing_server.db.errors import unavailable_error
from pairing_server.db.raw_connection import RawConnection, undo
from pairing_server.db.servers import APPLICATION_NAME
from pairing_server.metrics import histogram
from pairing_server.tracing import OFF, Traces

# Related durations, in seconds: the server gives up on a statement before the client does, and a
# request waits for a connection less long than for a statement.
CONNECT_TIMEOUT = 3
COMMAND_GRACE = 1
# For all of a transaction, the wait for a connection included, beyond the longest statement.
TRANSACTION_GRACE = 1.5
CLOSE_TIMEOUT = 5
LOCK_TIMEOUT = "2s"
MAX_AGE = 1800

POOL_SIZE = 12
WARM = 4

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

# Whether this server takes writes, and which one it is. A promoted standby writes on another timeline.
_LOOK = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only,
    concat_ws(' ', inet_server_addr(), inet_server_port(),
        CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END) AS server
"""
# For a managed service that forbids to read the timeline: there a failover shows by the address alone.
_LOOK_WITHOUT_WAL = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only,
    concat_ws(' ', inet_server_addr(), inet_server_port()) AS server
"""
_FORBIDDEN = (asyncpg.SyntaxOrAccessError, asyncpg.FeatureNotSupportedError)

# Writes and commits something that leaves nothing, each in one message, which is one transaction. The first needs room for
# a file of 256 KiB where the tables are; the second, for a role that may make no temporary table, only where the log is.
_WRITES = (
    "SELECT pg_catalog.set_config('temp_tablespaces', '', true);"
    " CREATE TEMPORARY TABLE pairing_write_probe ON COMMIT DROP AS"
    " SELECT pg_catalog.repeat('x', 1000) AS filling FROM pg_catalog.generate_series(1, 256)",
    "SELECT pg_catalog.pg_logical_emit_message(true, 'pairing-server', 'probe')",
)
# Seconds: however often `ready` is called, it writes no more often.
WRITE_EVERY = 5.0

# One message, so it costs no round trip.
BEGIN_PLANNED = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`size`: connections. Seconds: `wait` for one of them, and for one statement."""

    size: int = POOL_SIZE
    wait: float = 4
    statement_timeout: int = 4


class Database:
    """The engine and its connections. One for each process; made before the first request, closed at the end."""

    def __init__(
        self,
        url: str,
        *,
        limits: PoolLimits = PoolLimits(),
        on_outage: OutageListener = lambda *_: None,
        breaker: CircuitBreaker | None = None,
        traces: Traces = OFF,
    ) -> None:
        """`url`: postgresql://…, with one host or several; query parameters are libpq's.

        `on_outage` is called for each outage. `breaker`: that of another pool of the same database;
        failures of this pool do not count there.
        """
        self._asking: asyncio.Future[None] | None = None
        self._on_outage = on_outage
        self._traces = traces
        self._look = _LOOK
        self._writes: tuple[str, ...] = _WRITES
        self._wrote_at = -math.inf
        self._server: str | None = None
        self._counts = breaker is None
        self.breaker = breaker or CircuitBreaker(self._probe, on_outage)
        self.seconds = histogram(
            "pairing_database_seconds",
            "How long the wait for a connection and a whole transaction, that wait included, took.",
            SECONDS_BOUNDS,
            ("of",),
        )
        self._waited, self._took = self.seconds.labels("connection"), self.seconds.labels("transaction")
        self._hosts = endpoints.Endpoints(
            url,
            timeout=CONNECT_TIMEOUT,
            command_timeout=limits.statement_timeout + COMMAND_GRACE,
            application_name=APPLICATION_NAME,
            statement_timeout=f"{limits.statement_timeout}s",
            lock_timeout=LOCK_TIMEOUT,
            idle_in_transaction_session_timeout="10s",
            timezone="UTC",
            jit="off",
        )
        # A caller waits for the database no longer than a connection and a statement may take.
        longer = max(0.0, self._hosts.timeout - CONNECT_TIMEOUT)
        self._transaction_timeout = limits.statement_timeout + TRANSACTION_GRACE + longer
        self._probe_timeout = PROBE_TIMEOUT + longer
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._hosts.connect,
            isolation_level="AUTOCOMMIT",
            pool_size=limits.size,
            max_overflow=0,
            pool_timeout=limits.wait,
            pool_recycle=MAX_AGE,
            # Those that are not needed grow old together.
            pool_use_lifo=True,
            # `transaction`, `direct` and `once` leave none to be undone.
            pool_reset_on_return=None,
            hide_parameters=True,
        )
        event.listen(self.engine.sync_engine, "connect", _opened)
        event.listen(self.engine.sync_engine, "checkout", self._checked_out)

    async def warm(self) -> None:
        """Open the first connections, and note which server they lead to. If the database is unavailable, the first
        request finds out."""
        with suppress(DatabaseUnavailable):
            await self.ready()
        wanted = (self.engine.connect().start() for _ in range(WARM))
        for opened in await asyncio.gather(*wanted, return_exceptions=True):
            if isinstance(opened, AsyncConnection):
                await opened.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end, rolled back by any error.

        Raises Unavailable if the database is away, overloaded or refuses to write for now.
        """
        with self._traces.inner("database transaction", "client"):
            async with self._guarded() as time, self._begun("BEGIN", time) as direct:
                yield direct.conn

    @asynccontextmanager
    async def direct(self) -> AsyncIterator[RawConnection]:
        """As `transaction`, for callers that also send statements to the driver directly.

        Its statements are planned once for each connection, not anew for their values: the one it is for takes
        longer to plan than to do. So none may need values to find its index.
        """
        with self._traces.inner("database transaction", "client"):
            async with self._guarded() as time, self._begun(BEGIN_PLANNED, time) as direct:
                yield direct

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[asyncio.Timeout]:
        """Ask the database if that is worth it, for no longer than a transaction may take, and note how it went.

        Yields the time that it may take.
        """
        self.breaker.check()
        asked_at = asyncio.get_running_loop().time()
        try:
            with self._took.time():
                async with asyncio.timeout(self._transaction_timeout) as time:
                    yield time
        except Exception as error:
            known = error if isinstance(error, DatabaseUnavailable) else unavailable_error(error, lost=False)
            self._note(None if known is None else known.reason, asked_at)
            if known is None or known is error:
                raise
            raise known from error
        if self._counts:
            self.breaker.worked()

    def _note(self, reason: str | None, asked_at: float) -> None:
        """It has failed, asked at that monotonic second; `reason` if that lies with the database."""
        if not self._counts:
            return
        if reason is None:
            self.breaker.answered()
        else:
            self.breaker.failed(reason, asked_at)

    @asynccontextmanager
    async def _begun(self, begin: str, time: asyncio.Timeout) -> AsyncIterator[RawConnection]:
        # The BEGIN shows whether it works; if not, nothing has been lost yet.
        direct, _ = await self._first(lambda direct: direct.driver.execute(begin), time)
        try:
            yield direct
            if await direct.driver.execute("COMMIT") != "COMMIT":
                raise RuntimeError("the transaction had failed, and was not committed")
        except BaseException as error:
            lost = await undo(direct, error, time)
            if (unavailable := unavailable_error(error, lost=lost)) is not None:
                raise unavailable from error
            raise
        await direct.conn.close()

    async def once(self, statement: str, *values: object, again: str | None = None) -> asyncpg.Record | None:
        """The first row of one statement that is a transaction by itself.

        If the connection is lost, it is sent once more on a new one, so it must be one that may be done twice:
        whether the first has been done is not known then. `again`: what to send the second time in its place. Raises
        Unavailable as `transaction` does.
        """
        following = iter((statement, again or statement))

        async def fetch(direct: RawConnection) -> asyncpg.Record | None:
            found: asyncpg.Record | None = await direct.driver.fetchrow(next(following), *values)
            return found

        with self._traces.inner("database statement", "client"):
            async with self._guarded() as time:
                direct, found = await self._first(fetch, time)
                await direct.conn.close()
        return found

    async def _first(
        self, act: Callable[[RawConnection], Awaitable[T]], time: asyncio.Timeout
    ) -> tuple[RawConnection, T]:
        """A connection, and what comes of the first statement on it: on a second one if the first was lost."""
        for last in (False, True):
            direct = await self._taken()
            try:
                return direct, await act(direct)
            except BaseException as error:
                lost = await undo(direct, error, time)
                # A connection that timed out is not tried once more.
                if lost and not last and isinstance(error, Exception) and not isinstance(error, TimeoutError):
                    continue
                if (unavailable := unavailable_error(error, lost=lost)) is not None:
                    raise unavailable from error
                raise
        raise AssertionError("the last attempt returns or raises")

    async def _taken(self) -> RawConnection:
        try:
            with self._waited.time():
                conn = await self.engine.connect()
        except Exception as error:
            if (unavailable := unavailable_error(error, lost=False)) is not None:
                raise unavailable from error
            raise
        return RawConnection(conn, cast(Connection, conn.sync_connection).connection.driver_connection)

    async def ready(self) -> None:
        """Return if the database answers, takes writes and has room for them; raise Unavailable otherwise.

        Calls at the same time share one question, so that this, which needs no login, never takes more than one
        connection.
        """
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._asked)
        await asyncio.shield(self._asking)

    def _asked(self, asked: asyncio.Future[None]) -> None:
        self._asking = None
        if not asked.cancelled():
            asked.exception()  # retrieved: it may be that no caller waits any more

    async def _ask(self) -> None:
        await self._look_at(self.once)
        if asyncio.get_running_loop().time() - self._wrote_at >= WRITE_EVERY:
            await self._write_with(self._execute)

    async def _execute(self, statement: str) -> None:
        async with self._guarded() as time:
            direct, _ = await self._first(lambda direct: direct.driver.execute(statement), time)
            await direct.conn.close()

    async def _write_with(self, execute: Callable[[str], Awaitable[object]]) -> None:
        """Write something, as far as the role may: to read says nothing about a full disk."""
        while self._writes:
            try:
                await execute(self._writes[0])
                break
            except asyncpg.InsufficientPrivilegeError:
                self._writes = self._writes[1:]
        self._wrote_at = asyncio.get_running_loop().time()

    async def _look_at(self, fetch: Callable[[str], Awaitable[asyncpg.Record | None]]) -> None:
        """Raises DatabaseUnavailable if it takes no writes."""
        try:
            row = await fetch(self._look)
        except _FORBIDDEN:
            self._look = _LOOK_WITHOUT_WAL
            row = await fetch(self._look)
        if row is None or row["read_only"]:
            self.breaker.failed("read_only", asyncio.get_running_loop().time())
            raise DatabaseUnavailable("The database is read-only. Try again in a moment.", "read_only")
        before, self._server = self._server, row["server"]
        if before not in (None, self._server):
            self._on_outage("failover", "", 0.0)

    async def _probe(self) -> None:
        """Ask on a connection of its own: those of the pool may all be stuck. Raises DatabaseUnavailable."""
        try:
            async with asyncio.timeout(self._probe_timeout):
                driver = await self._hosts.connect()
                try:
                    await self._look_at(driver.fetchrow)
                    await self._write_with(driver.execute)
                    await driver.close()
                finally:
                    driver.terminate()
        except DatabaseUnavailable:
            raise
        except Exception as error:
            raise unavailable_error(error, lost=True) or DatabaseUnavailable(
                "The database failed. Try again in a moment.", "refused"
            ) from error

    def _checked_out(self, adapted: Any, record: Any, _: object) -> None:
        """One that the database has closed meanwhile is replaced, and one from before an outage: it may be stuck, or
        lead to a server that takes no writes any more."""
        if adapted.driver_connection.is_closed() or record.info["opened"] < self.breaker.back_at:
            raise DisconnectionError

    @property
    def at(self) -> str:
        """Where it is, as host:port or the folder of a socket."""
        return self._hosts.at

    def usage(self) -> tuple[int, int, int]:
        """How many connections are open, how many of them in use, and how many there may be."""
        pool = cast(QueuePool, self.engine.pool)
        used = pool.checkedout()
        return used + pool.checkedin(), used, pool.size()

    async def close(self) -> None:
        if self._counts:
            await self.breaker.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.engine.dispose()


def _opened(_: object, record: Any) -> None:
    record.info["opened"] = asyncio.get_running_loop().time()
