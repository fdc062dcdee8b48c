"""The doctor as a monitor, which runs every few minutes: it leaves nothing behind and raises no alarm."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, select

from pairing_server.audit.store.filters import Filter
from pairing_server.audit.store.summary import attempts
from pairing_server.audit.summary import INTRUDERS
from pairing_server.db.tables import pairings, users
from tests.cli.commands import Operator, Result
from tests.devices import Site

pytestmark = pytest.mark.one_node


async def doctor(operator: Operator, *arguments: str) -> Result:
    return await asyncio.to_thread(operator.run, "doctor", *arguments)


@pytest.mark.parametrize("registration", ["open", "closed"])
async def test_it_deletes_the_account_that_it_makes_and_its_intruder_is_no_alarm(
    site: Site, database_url: str, tmp_path: Path, registration: str
) -> None:
    settings = {"REGISTRATION": registration, "PUBLIC_URL": site.url}
    operator = Operator(database_url, tmp_path, **settings)
    done = await doctor(operator, *(["--url", site.url] if registration == "open" else []))
    assert done.status == 0 and "All right" in done.out, done.text
    assert ("register a throw-away account" in done.out) == (registration == "open")
    assert "could not be deleted" not in done.out
    async with site.node.database.transaction() as conn:
        for table in (users, pairings):
            assert (await conn.execute(select(func.count()).select_from(table))).scalar_one() == 0
    denied = await site.events("channel.denied")
    assert denied and all((event["reason"], event["trial"]) == ("full", True) for event in denied)
    async with site.node.database.transaction() as conn:
        assert await attempts(conn, Filter(), INTRUDERS, 10) == []


async def test_it_deletes_its_account_after_a_step_that_failed(
    site: Site, database_url: str, tmp_path: Path
) -> None:
    site.node.app.code_limits.live = 10**9
    try:
        done = await doctor(Operator(database_url, tmp_path), "--url", site.url)
    finally:
        site.node.app.code_limits.live = 0
    assert done.status == 1 and "hint" in done.out, done.text
    async with site.node.database.transaction() as conn:
        assert (await conn.execute(select(func.count()).select_from(users))).scalar_one() == 0
