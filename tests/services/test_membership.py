"""What a device that comes back costs the database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast
from uuid import UUID

from pairing_server.clock import utcnow
from pairing_server.db.database import Database
from pairing_server.request_context import RequestContext
from pairing_server.services.membership import MembershipService
from tests.devices import Account, Site

SESSION = "desktop-session-1"


class Counting:
    """The database, for single statements only."""

    def __init__(self, database: Database) -> None:
        self.database, self.sent = database, 0

    async def once(self, statement: str, *values: object, **more: Any) -> object:
        self.sent += 1
        return await self.database.once(statement, *values, **more)


def counted(site: Site) -> tuple[MembershipService, Counting]:
    counting = Counting(site.node.database)
    return replace(site.node.services.membership, database=cast(Database, counting)), counting


def device_of(account: Account) -> RequestContext:
    return RequestContext(utcnow(), subject=account.subject, kind="device")


async def test_a_device_that_is_known_is_identified_and_let_in_by_one_statement_each(site: Site) -> None:
    account = await site.account()
    channel = f"pair-{await site.code(account, SESSION)}"
    membership, counting = counted(site)
    caller = device_of(account)
    await membership.identify(caller.at(utcnow()), SESSION, "desktop")
    assert counting.sent == 1
    admitted = await membership.admit(caller.at(utcnow()), channel, "desktop", SESSION)
    assert counting.sent == 2
    assert admitted.pairing.desktop.session_id == SESSION


async def test_a_reused_channel_name_means_the_newer_channel(site: Site) -> None:
    desktop, _ = await site.pair()
    hub = site.node.hub
    [old] = hub.channels.values()
    assert hub.channel_named(desktop.channel) is old
    newer = hub.open_channel(UUID(int=1), desktop.channel, hub.context.now())
    assert hub.channel_named(desktop.channel) is newer
    hub.forget_channel(old.pairing_id)
    assert hub.channel_named(desktop.channel) is newer
    hub.forget_channel(newer.pairing_id)
    assert hub.channel_named(desktop.channel) is None
