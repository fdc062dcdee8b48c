"""Noting who has come and gone: behind, and many together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.db.tables import pairings
from pairing_server.errors import Unavailable
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
    return Presence(cast(Database, counting), site.node.hub, site.node.services.nodes.id), counting


def leave(site: Site) -> None:
    """The mobile leaves the only channel, and nothing notes it."""
    [channel] = site.node.hub.channels.values()
    channel.leave(channel.members["mobile"], "gone", 0.0)


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
                assert not presence.note(uuid4())
            presence.note(channel)
            leave(site)

    presence, counting = counted(site, meanwhile)
    assert presence.note(channel)
    await asyncio.gather(*(presence.write(utcnow) for _ in range(3)))
    assert counting.sent == 2
    assert await state(site) == "waiting"
    assert presence.note(channel), "nothing is being written any more"


async def test_a_change_older_than_the_database_is_not_written(site: Site) -> None:
    await site.pair()
    [channel] = site.node.hub.channels
    presence, counting = counted(site)
    presence.note(channel)
    presence.known_joined(channel, both=True)
    await presence.write(utcnow)
    assert counting.sent == 0
    # That one has joined says nothing of the other.
    presence.note(channel)
    presence.known_joined(channel, both=False)
    await presence.write(utcnow)
    assert counting.sent == 1


async def test_a_write_under_way_does_not_undo_a_newer_change(site: Site) -> None:
    await site.pair()

    def meanwhile() -> None:
        if counting.sent == 0:
            channel.members["mobile"] = mobile
            presence.known_joined(channel.pairing_id, both=True)

    [channel] = site.node.hub.channels.values()
    mobile = channel.members["mobile"]
    leave(site)
    presence, counting = counted(site, meanwhile)
    presence.note(channel.pairing_id)
    await presence.write(utcnow)
    assert counting.sent == 2
    assert await state(site) == "active"


async def test_what_could_not_be_written_is_written_with_the_next_note_of_all(site: Site) -> None:
    """Also where the channel is forgotten by then: another server may have the devices at once."""
    desktop, mobile = await site.pair()

    def fail() -> None:
        if counting.sent == 0:
            counting.sent += 1
            raise Unavailable

    presence, counting = counted(site, fail)
    [channel] = site.node.hub.channels.values()
    for device in (desktop, mobile):
        device.socket.close()
    while channel.members:
        await site.get("/healthz")
    await site.node.app.settled()
    async with site.node.database.transaction() as conn:
        await conn.execute(update(pairings).values(desktop_joined=True, mobile_joined=True))
    presence.note(channel.pairing_id)
    with pytest.raises(Unavailable):
        await presence.write(utcnow)
    site.node.hub.forget_channel(channel.pairing_id)
    assert await presence.note_all(utcnow()) == []
    async with site.node.database.transaction() as conn:
        [row] = await conn.execute(select(pairings.c.desktop_joined, pairings.c.mobile_joined))
    assert tuple(row) == (False, False)
