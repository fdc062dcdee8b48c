"""Floods in the audit log, and asking for readiness: what a stranger can cause is bounded."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from sqlalchemy import event

from pairing_server.audit.store import search
from pairing_server.audit.store.filters import Filter
from pairing_server.clock import utcnow
from pairing_server.request_context import RequestContext, system
from tests.devices import Site

ROUTE = "auth.token_rejected"


async def counts(site: Site) -> list[int]:
    async with site.node.database.transaction() as conn:
        found = (await search.page(conn, Filter(event=ROUTE), 1000)).events
    return sorted(recorded.event.count for recorded in found)


async def test_of_a_flood_ten_are_recorded_singly_and_the_rest_as_one_row_with_a_count(site: Site) -> None:
    audit, now = site.node.audit, utcnow().replace(second=0, microsecond=0)
    for address in ("203.0.113.7", "203.0.113.8"):
        for _ in range(35 if address.endswith("7") else 3):
            audit.enqueue(
                audit.event(
                    ROUTE, "denied", RequestContext(utcnow(), address=address).at(now), reason="expired"
                )
            )
    await audit.flush(system(now))
    assert await counts(site) == [1] * 13
    await audit.flush(system(now + timedelta(minutes=1)))
    assert await counts(site) == [1] * 13 + [25]


async def test_asking_for_readiness_at_once_takes_one_connection(site: Site) -> None:
    taken: list[object] = []
    event.listen(site.node.database.engine.sync_engine, "checkout", lambda *of: taken.append(of))
    await asyncio.gather(*(site.node.database.ready() for _ in range(50)))
    assert len(taken) == 1
    await site.node.database.ready()
    assert len(taken) == 2
