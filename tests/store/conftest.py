"""Ways to a database without a running node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from tornado.ioloop import IOLoop

from pairing_server.db.database import Database
from tests.conftest import fresh_database


@pytest.fixture
def database(io_loop: IOLoop, database_url: str) -> Iterator[Database]:
    """The test's own database."""
    made = Database(database_url)
    yield made
    io_loop.run_sync(made.close)


@pytest.fixture(scope="session")
def shared_database_url(postgres: str) -> Iterator[str]:
    """A migrated database in which no test commits."""
    yield from fresh_database(postgres, "pairing")


@pytest.fixture
def conn(io_loop: IOLoop, shared_database_url: str) -> Iterator[AsyncConnection]:
    """A connection in a transaction that is never committed, to a database with nothing in it."""
    database = Database(shared_database_url)

    async def connect() -> AsyncConnection:
        connection = await database.engine.connect()
        return await connection.execution_options(isolation_level="READ COMMITTED")

    connection: AsyncConnection = io_loop.run_sync(connect)
    yield connection

    async def leave() -> None:
        await connection.close()
        await database.close()

    io_loop.run_sync(leave)
