"""Drawing a code when nearly every name is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import delete, event
from tornado.ioloop import IOLoop

from pairing_server.services import pairings
from pairing_server.services.deps import Caller, Deps
from pairing_server.store import tables
from tests.conftest import StartNode
from tests.devices import Site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GUEST = Caller(address="192.0.2.1", address_key="192.0.2.1")


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node(max_live_codes=1_000_000, guest_pairing=True)


@contextmanager
def statements(deps: Deps) -> Iterator[list[str]]:
    """What is sent to the database meanwhile."""
    sent: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = deps.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


# The indexes are made when all rows are there, which takes a fifth of the time.
FILL = (
    "DROP INDEX ix_pairings_desktop_session, ix_pairings_expires_at",
    "ALTER TABLE pairings DROP CONSTRAINT uq_pairings_code_mac",
    """
    INSERT INTO pairings (id, code_mac, state, desktop_session, created_at, expires_at)
    SELECT gen_random_uuid(), substring($1::bytea FROM n * 32 + 1 FOR 32), 'pending', 'desktop', $2, $3
    FROM generate_series(0, $4) AS n
    """,
    "ALTER TABLE pairings ADD CONSTRAINT uq_pairings_code_mac UNIQUE (code_mac)",
    "CREATE INDEX ix_pairings_desktop_session ON pairings (desktop_session) WHERE ended_at IS NULL",
)


async def take(url: str, deps: Deps, codes: range) -> None:
    """Live pairings under all these codes."""
    macs = b"".join(deps.codes.macs(f"{code:06d}")[0] for code in codes)
    connection = await asyncpg.connect(url)
    try:
        for statement in FILL:
            values = (macs, NOW, NOW + timedelta(seconds=300), len(codes) - 1) if "$1" in statement else ()
            await connection.execute(statement, *values)
    finally:
        await connection.close()


@pytest.fixture
def alone(site: Site, io_loop: IOLoop) -> int:
    """How many statements drawing takes while no name is taken."""
    site.node.maintenance.stop()  # it has statements of its own

    async def draw() -> int:
        with statements(site.node.deps) as sent:
            await pairings.generate(site.node.deps, "desktop-0", GUEST, NOW)
        async with site.node.database.transaction() as conn:
            await conn.execute(delete(tables.pairings))
        return len(sent)

    return int(io_loop.run_sync(draw))


@pytest.fixture
def crowd(site: Site, alone: int, database_url: str, io_loop: IOLoop) -> range:
    """The codes that are taken."""
    taken = range(900_000)
    io_loop.run_sync(lambda: take(database_url, site.node.deps, taken))
    return taken


async def test_with_nine_of_ten_names_taken_drawing_takes_as_few_statements(
    site: Site, alone: int, crowd: range
) -> None:
    drawn = []
    for number in range(1, 31):
        with statements(site.node.deps) as sent:
            drawn.append(await pairings.generate(site.node.deps, f"desktop-{number}", GUEST, NOW))
        # At most one more: the second draw, when none of the first eight is free.
        assert alone <= len(sent) <= alone + 1
    assert len({code.code for code in drawn}) == 30
    assert not any(int(code.code) in crowd for code in drawn)
