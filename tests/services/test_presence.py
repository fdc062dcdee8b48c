"""Noting who has come and gone: behind, and many together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

from sqlalchemy import select

from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.db.tables import pairings
from pairing_server.services.presence import Presence
from tests.devices import Site


class Counting:
    """The database, with something to be done before each statement."""

    def __init__(self, database: Database, before: Callable[[], None] = lambda: None) -> None:
        self.database, self.before, self.sent = database, before, 0

    async def once(self, statement: str, *values: object, **more: Any) -> object:
        self.before()
        self.sent += 1
        return await self.database.once(statement, *values, **more)


def counted(site: Site, before: Callable[[], None] = lambda: None) -> tuple[Presence, Counting]:
    counting = Counting(site.node.database, before)
    return Presence(cast(Database, counting)), counting


async def state(site: Site) -> str:
    """That of the only pairing, in the database."""
    async with site.node.database.transaction() as conn:
        found: str = (await conn.execute(select(pairings.c.state))).scalar_one()
    return found


async def test_changes_during_a_write_go_with_the_next_write(site: Site) -> None:
    await site.pair()
    [channel] = site.node.hub.channels

    def meanwhile() -> None:
        if counting.sent == 0:
            for _ in range(100):
                assert not presence.note(uuid4(), active=True)
            presence.note(channel, active=False)
            presence.note(channel, active=True)
            presence.note(channel, active=False)

    presence, counting = counted(site, meanwhile)
    assert presence.note(channel, active=True)
    await asyncio.gather(*(presence.write(utcnow) for _ in range(3)))
    assert counting.sent == 2
    assert await state(site) == "waiting"
    assert presence.note(channel, active=True), "nobody is writing any more"


async def test_a_change_older_than_the_database_is_not_written(site: Site) -> None:
    await site.pair()
    [channel] = site.node.hub.channels
    presence, counting = counted(site)
    presence.note(channel, active=False)
    presence.known_active(channel)
    await presence.write(utcnow)
    assert counting.sent == 0


async def test_a_write_under_way_does_not_undo_a_newer_change(site: Site) -> None:
    await site.pair()
    [channel] = site.node.hub.channels

    def meanwhile() -> None:
        if counting.sent == 0:
            presence.known_active(channel)

    presence, counting = counted(site, meanwhile)
    presence.note(channel, active=False)
    await presence.write(utcnow)
    assert await state(site) == "active"
