"""Drawing a code when nearly every name is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry
from tornado.ioloop import IOLoop

from pairing_server.clock import utcnow
from pairing_server.errors import Unavailable
from pairing_server.request_context import RequestContext
from pairing_server.services.codes import Codes
from pairing_server.services.pairings import PairingService
from tests.conftest import StartNode, execute
from tests.devices import Site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GUEST = RequestContext(utcnow(), address="192.0.2.1", address_key="192.0.2.1")


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node(max_live_codes=1_000_000, guest_pairing=True)


@asynccontextmanager
async def statements(drawing: PairingService) -> AsyncIterator[list[str]]:
    """What is sent to the database about pairings meanwhile, by SQLAlchemy and by the driver itself; whole at the end."""
    sent: list[str] = []
    heard: list[asyncpg.Connection] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    def note_driver(logged: LoggedQuery) -> None:
        # A new connection also asks about its types.
        if "pairings" in logged.query:
            sent.append(logged.query)

    def listen(_dbapi: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        driver: Any = record.driver_connection
        if driver not in heard:
            heard.append(driver)
            driver.add_query_logger(note_driver)

    engine = drawing.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "checkout", listen)
    try:
        yield sent
        # The driver tells of a statement in the loop's next turn.
        await asyncio.sleep(0)
    finally:
        event.remove(engine, "before_cursor_execute", note)
        event.remove(engine, "checkout", listen)
        for driver in heard:
            driver.remove_query_logger(note_driver)


class ReadableCodes(Codes):
    """Codes that are stored as they are, so that the database can make a million by itself."""

    def macs(self, code: str) -> list[bytes]:
        return [code.encode()]


# What drawing does not need is left away: keeping it up takes most of the time.
FILL = (
    "DROP TABLE channel_settings, confirmations",
    "TRUNCATE pairings",
    "ALTER TABLE pairings SET UNLOGGED, DROP CONSTRAINT pk_pairings, DROP CONSTRAINT uq_pairings_code_mac",
    """
    DROP INDEX ix_pairings_desktop_session, ix_pairings_desktop_user, ix_pairings_mobile_user,
               ix_pairings_expires_at
    """,
    """
    INSERT INTO pairings (id, code_mac, state, desktop_session, created_at, expires_at)
    SELECT lpad(code::text, 32, '0')::uuid, convert_to(lpad(code::text, 6, '0'), 'UTF8'), 'pending', 'desktop',
           '2026-03-01T12:00:00Z', '2026-03-01T12:05:00Z'
    FROM generate_series(0, 899999) AS code
    """,
    "ALTER TABLE pairings ADD CONSTRAINT uq_pairings_code_mac UNIQUE (code_mac)",
    "CREATE INDEX ix_pairings_desktop_session ON pairings (desktop_session) WHERE ended_at IS NULL",
    "ANALYZE pairings",
)


@pytest.fixture
def drawing(site: Site, io_loop: IOLoop) -> PairingService:
    # The timer has statements of its own.
    io_loop.run_sync(site.node.scheduler.settled)
    return replace(site.node.services.pairings, codes=ReadableCodes([]))


@pytest.fixture
def alone(drawing: PairingService, io_loop: IOLoop) -> int:
    """How many statements drawing takes while no name is taken."""

    async def draw() -> int:
        async with statements(drawing) as sent:
            await drawing.create_code(GUEST.at(NOW), "desktop-0")
        return len(sent)

    count = int(io_loop.run_sync(draw))
    assert count
    return count


@pytest.fixture
def crowd(alone: int, database_url: str) -> range:
    """The codes that are taken."""
    execute(database_url, *FILL)
    return range(900_000)


async def test_with_nine_of_ten_names_taken_drawing_takes_at_most_one_statement_more(
    drawing: PairingService, alone: int, crowd: range
) -> None:
    drawn = []
    for number in range(1, 31):
        async with statements(drawing) as sent:
            drawn.append(await drawing.create_code(GUEST.at(NOW), f"desktop-{number}"))
        # At most one more: the second draw, when none of the first eight is free.
        assert alone <= len(sent) <= alone + 1
    assert len({code.code for code in drawn}) == 30
    assert not any(int(code.code) in crowd for code in drawn)


async def test_with_every_name_taken_drawing_fails_after_two_draws(
    drawing: PairingService, alone: int, database_url: str
) -> None:
    class OneCode(ReadableCodes):
        """Every code is drawn as the same."""

        def macs(self, code: str) -> list[bytes]:
            return [b"000000"]

    full = replace(drawing, codes=OneCode([]))
    await full.create_code(GUEST.at(NOW), "desktop-1")
    async with statements(drawing) as sent:
        with pytest.raises(Unavailable, match="No free code"):
            await full.create_code(GUEST.at(NOW), "desktop-2")
    assert len(sent) == alone + 1
