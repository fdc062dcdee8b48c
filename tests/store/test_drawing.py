"""Drawing a code when nearly every name is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import event

from pairing_server.errors import Unavailable
from pairing_server.services import pairings
from pairing_server.services.deps import Caller, Deps
from tests.conftest import StartNode
from tests.devices import Site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAKEN = 900_000
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


async def take(url: str, deps: Deps, codes: range) -> None:
    """Live pairings under all these codes, written as fast as it goes."""
    connection = await asyncpg.connect(url)
    end = NOW + timedelta(seconds=300)
    try:
        # Nothing here asks by these columns, and keeping their indexes takes most of the time.
        for column in ("desktop_session", "desktop_user", "mobile_user", "expires_at"):
            await connection.execute(f"DROP INDEX ix_pairings_{column}")
        await connection.copy_records_to_table(
            "pairings",
            columns=("id", "code_mac", "state", "desktop_session", "created_at", "expires_at"),
            records=(
                (UUID(int=code), deps.codes.macs(f"{code:06d}")[0], "pending", "desktop", NOW, end)
                for code in codes
            ),
        )
    finally:
        await connection.close()


@pytest.mark.parametrize("", [()])
async def test_with_nine_of_ten_names_taken_drawing_takes_as_few_statements(
    site: Site, database_url: str
) -> None:
    deps = site.node.deps
    with statements(deps) as alone:
        await pairings.generate(deps, "desktop-0", GUEST, NOW)
    await take(database_url, deps, range(TAKEN))
    drawn = []
    for number in range(1, 31):
        with statements(deps) as sent:
            drawn.append(await pairings.generate(deps, f"desktop-{number}", GUEST, NOW))
        # At most one more: the second draw, when none of the first eight is free.
        assert len(sent) <= len(alone) + 1
    assert len({code.code for code in drawn}) == 30
    assert all(int(code.code) >= TAKEN for code in drawn)
