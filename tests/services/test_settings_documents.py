"""Settings are written behind: what has changed, once, and not at the expense of anybody."""

from __future__ import annotations

from uuid import UUID

import pytest

from pairing_server.clock import utcnow
from pairing_server.store import settings_documents as store
from tests.conftest import StartNode
from tests.devices import Device, Site


async def kept(site: Site, pairing_id: UUID) -> store.Kept | None:
    async with site.node.database.transaction() as conn:
        return await store.of_pairing(conn, pairing_id)


async def change(desktop: Device, mobile: Device, gain: int) -> None:
    desktop.socket.send({"type": "settings_sync", "settings": {"gain": gain}})
    while (await mobile.socket.expect("settings_sync"))["settings"]["gain"] != gain:
        pass


async def test_a_changed_document_is_written_once(site: Site) -> None:
    desktop, mobile = await site.pair()
    await site.pair()
    await change(desktop, mobile, 1)
    await change(desktop, mobile, 2)
    assert await site.node.backend.settings.keep() == 1
    [channel] = [c for c in site.node.hub.channels.values() if c.name == desktop.channel]
    assert await kept(site, channel.pairing_id) == store.Kept(
        channel.pairing_id, channel.epoch, 2, b'{"gain":2}'
    )
    assert await site.node.backend.settings.keep() == 0


@pytest.fixture
def other(start_node: StartNode) -> Site:
    """Another server on the same database."""
    return start_node()


async def test_a_device_that_comes_back_to_another_server_finds_the_settings_there(
    site: Site, other: Site
) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    await change(desktop, mobile, 7)
    await site.node.backend.settings.keep()
    socket = await other.connect(account, "mobile")
    socket.send(
        {
            "type": "join_channel",
            "channel": mobile.channel,
            "device_type": "mobile",
            "session_id": mobile.session_id,
        }
    )
    joined = await socket.expect("channel_joined")
    assert (joined["settings"], joined["rev"]) == ({"gain": 7}, 1)


async def test_an_ended_pairing_leaves_no_settings_behind(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    await change(desktop, mobile, 1)
    await site.node.backend.settings.keep()
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    assert (await site.call("DELETE", f"/api/pairings/{pairing['id']}", token=account.token)).status == 200
    assert await site.node.backend.settings.forget_ended(utcnow()) == 1
    assert await kept(site, UUID(pairing["id"])) is None
