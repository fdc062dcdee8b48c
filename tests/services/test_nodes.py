"""Several servers on one database: the devices of a pairing meet on one, and no other one's timer ends it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from pairing_server.clock import utcnow
from pairing_server.db.tables import nodes
from pairing_server.request_context import system
from pairing_server.store.nodes import ALIVE_SECONDS
from tests.conftest import StartNode, execute_within
from tests.devices import Account, Device, Site, Socket
from tests.logged import logged

POLL = "poll pairing changes"
DAY = 86_400


@pytest.fixture
def servers(start_node: StartNode) -> tuple[Site, Site]:
    return start_node(), start_node()


async def beat(*sites: Site) -> None:
    for site in sites:
        await site.run("beat")


async def attempt(site: Site, account: Account, device: Device) -> tuple[Socket, dict[str, Any]]:
    """The device joins on that server: its socket, and the first answer."""
    socket = await site.connect(account, device.device_type)
    socket.send(
        {
            "type": "join_channel",
            "channel": device.channel,
            "device_type": device.device_type,
            "session_id": device.session_id,
        }
    )
    return socket, await socket.receive()


def silent_since(site: Site, seconds: float = ALIVE_SECONDS + 1) -> str:
    """The statement after which that server has not beaten for so long."""
    return (
        f"UPDATE nodes SET beat_at = beat_at - interval '{seconds} seconds'"
        f" WHERE id = '{site.node.services.nodes.id}'"
    )


async def leave(site: Site, *devices: Device) -> None:
    """They leave, and that is in the database."""
    for device in devices:
        device.socket.close()
    while any(channel.members for channel in site.node.hub.channels.values()):
        await site.get("/healthz")
    await site.node.app.settled()


async def test_the_second_device_is_refused_where_the_first_is_on_another_server(
    servers: tuple[Site, Site], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = servers
    account = await one.account()
    desktop, mobile = await one.pair(account)
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    await one.node.app.settled()
    await beat(one, other)
    socket, error = await attempt(other, account, mobile)
    assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True)
    assert error["details"]["reason"] == "elsewhere"
    assert error["details"]["channel"] == mobile.channel
    assert error["details"]["retry_after_ms"] > 0
    # The socket stays; the desktop notices nothing; it is logged, counted and recorded.
    assert await socket.pending() == []
    assert await desktop.socket.pending() == []
    assert other.node.hub.channels == {}
    assert logged(caplog, "join refused", "reason") == [("elsewhere",)]
    assert b"pairing_joins_elsewhere_total 1.0" in (await other.get("/metrics")).body
    assert [event["reason"] for event in await other.events("channel.denied")] == ["elsewhere"]
    # Where the desktop is, it is let in.
    assert (await attempt(one, account, mobile))[1]["type"] == "channel_joined"


@pytest.fixture
def for_guests(start_node: StartNode) -> tuple[Site, Site]:
    return start_node(guest_pairing=True), start_node(guest_pairing=True)


async def test_also_the_first_join_of_a_guests_phone_is_refused_elsewhere(
    for_guests: tuple[Site, Site],
) -> None:
    one, other = for_guests
    account = await one.account()
    code = (await one.post("/api/generate-pair-code", {"desktop_session_id": "desktop-1"})).body["code"]
    await one.post("/api/pair-device", {"code": code, "mobile_session_id": "mobile-1"})
    await one.join(account, "desktop", f"pair-{code}", "desktop-1")
    await beat(one, other)
    phone = Device(await other.connect(account, "mobile"), "mobile-1", "mobile", f"pair-{code}")
    assert (await attempt(other, account, phone))[1]["details"]["reason"] == "elsewhere"


async def test_a_pair_that_has_left_one_server_meets_on_another(servers: tuple[Site, Site]) -> None:
    one, other = servers
    account = await one.account()
    desktop, mobile = await one.pair(account)
    await leave(one, desktop, mobile)
    await beat(one, other)
    here = await other.join(account, "desktop", desktop.channel, desktop.session_id)
    there = await other.join(account, "mobile", mobile.channel, mobile.session_id)
    await here.socket.pending()
    there.socket.send({"type": "channel_message", "payload": {"n": 1}})
    assert (await here.socket.expect("channel_message"))["payload"] == {"n": 1}
    # The first server learns of it, and keeps no old state of the channel.
    await one.run(POLL)
    assert one.node.hub.channels == {}


async def test_a_timer_does_not_end_what_another_server_has(servers: tuple[Site, Site]) -> None:
    """After the grace, with whatever clock, and whether the first server has polled or not."""
    one, other = servers
    account = await one.account()
    desktop, mobile = await one.pair(account)
    await leave(one, desktop, mobile)
    here = await other.join(account, "desktop", desktop.channel, desktop.session_id)
    await other.join(account, "mobile", mobile.channel, mobile.session_id)
    await here.socket.pending()
    await beat(one, other)
    late = asyncio.get_running_loop().time() + DAY
    expiry, tomorrow = one.node.backend.expiry, system(utcnow() + timedelta(days=1))
    await expiry.close_overdue(late, tomorrow)
    assert one.node.hub.channels == {}
    assert await expiry.close_deserted(tomorrow) == 0
    await other.run(POLL)
    assert await here.socket.pending() == []
    assert await one.events("pairing.closed") == []


async def test_a_timer_does_not_end_what_a_server_of_the_release_before_has_seen(
    site: Site, database_url: str
) -> None:
    """That one notes `seen_at` and no server."""
    desktop, mobile = await site.pair()
    await leave(site, desktop, mobile)
    await execute_within(database_url, "UPDATE pairings SET seen_at = now() + interval '10 minutes'")
    late = asyncio.get_running_loop().time() + 301
    await site.node.backend.expiry.close_overdue(late, system(utcnow() + timedelta(seconds=301)))
    assert await site.events("pairing.closed") == []
    assert site.node.hub.channels == {}


async def test_what_a_server_has_that_has_crashed_others_take_over_and_end(
    servers: tuple[Site, Site], database_url: str
) -> None:
    one, other = servers
    account = await one.account()
    desktop, mobile = await one.pair(account)
    await beat(one, other)
    assert (await attempt(other, account, mobile))[1]["details"]["reason"] == "elsewhere"
    await execute_within(database_url, silent_since(one))
    assert (await attempt(other, account, mobile))[1]["type"] == "channel_joined"
    # It has not crashed after all: its devices come to where the phone is.
    await one.run("beat")
    await one.run(POLL)
    # Without a close frame, since this one uses nothing that was added to the original protocol.
    assert await desktop.socket.closed() is None
    assert await mobile.socket.closed() == 4409
    assert (await attempt(other, account, desktop))[1]["type"] == "channel_joined"


async def test_after_an_outage_of_the_database_no_server_counts_as_crashed_before_it_could_beat(
    servers: tuple[Site, Site], database_url: str
) -> None:
    one, other = servers
    account = await one.account()
    _, mobile = await one.pair(account)
    await beat(one, other)
    await execute_within(database_url, silent_since(one, 60), silent_since(other, 60))
    # None has beaten yet; then only the one that the phone comes to.
    assert (await attempt(other, account, mobile))[1]["details"]["reason"] == "elsewhere"
    await asyncio.gather(*(beat(site) for site in (other, other)))
    assert (await attempt(other, account, mobile))[1]["details"]["reason"] == "elsewhere"
    # One that stays silent has crashed.
    await execute_within(database_url, silent_since(one))
    await other.run("beat")
    assert (await attempt(other, account, mobile))[1]["type"] == "channel_joined"


async def test_a_device_that_comes_back_alone_to_another_server_replaces_its_old_connection(
    servers: tuple[Site, Site],
) -> None:
    one, other = servers
    account = await one.account()
    code = await one.code(account, "desktop-1")
    desktop = await one.join(account, "desktop", f"pair-{code}", "desktop-1")
    await beat(one, other)
    assert (await attempt(other, account, desktop))[1]["type"] == "channel_joined"
    await one.run(POLL)
    assert (await desktop.socket.error())["code"] == "SESSION_REPLACED"
    assert await desktop.socket.closed() == 4409


async def test_a_restart_takes_the_place_of_the_start_before(
    servers: tuple[Site, Site], database_url: str
) -> None:
    """A process that is killed and started again at once: its devices come back without a wait for the time after which it counts as crashed."""
    one, other = servers
    account = await one.account()
    desktop, _ = await one.pair(account)
    registry = other.node.services.nodes
    registry.name, registry._begun = one.node.services.nodes.name, False
    await other.run("beat")
    assert (await attempt(other, account, desktop))[1]["type"] == "channel_joined"


async def test_a_server_that_stops_leaves_its_channels_to_others_at_once(
    servers: tuple[Site, Site],
) -> None:
    one, other = servers
    account = await one.account()
    desktop, mobile = await one.pair(account)
    await beat(one, other)
    await one.node.services.nodes.end()
    await one.run("beat")
    assert (await attempt(other, account, mobile))[1]["type"] == "channel_joined"
    assert (await attempt(other, account, desktop))[1]["type"] == "channel_joined"


async def test_a_server_that_has_stopped_runs_no_more(servers: tuple[Site, Site]) -> None:
    one, other = servers
    await one.node.stop()
    async with other.node.database.transaction() as conn:
        [running] = (await conn.execute(select(nodes.c.id))).scalars()
    assert running == other.node.services.nodes.id


async def test_a_join_whose_connection_closed_meanwhile_keeps_no_other_server_out(
    servers: tuple[Site, Site],
) -> None:
    one, other = servers
    account = await one.account()
    desktop, mobile = await one.pair(account)
    await leave(one, desktop, mobile)
    await beat(one, other)
    services = one.node.services
    socket = await one.connect(account, "mobile")
    [connection] = one.node.hub.connections.values()
    admit = type(services.membership).admit

    class Closing(type(services.membership)):  # type: ignore[misc]
        async def admit(self, *values: Any) -> Any:
            admitted = await admit(self, *values)
            connection.closing = True
            return admitted

    fields = {name: getattr(services.membership, name) for name in services.membership.__slots__}
    one.use(membership=Closing(**fields))
    socket.send(
        {
            "type": "join_channel",
            "channel": mobile.channel,
            "device_type": "mobile",
            "session_id": mobile.session_id,
        }
    )
    while not connection.closing:
        await one.get("/healthz")
    await one.node.app.settled()
    assert (await attempt(other, account, desktop))[1]["type"] == "channel_joined"


async def test_without_the_note_of_a_leaving_the_next_note_of_all_lets_others_in(
    servers: tuple[Site, Site], database_url: str
) -> None:
    one, other = servers
    account = await one.account()
    desktop, mobile = await one.pair(account)
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    await one.node.app.settled()
    await execute_within(database_url, "UPDATE pairings SET mobile_joined = true")
    await beat(one, other)
    assert (await attempt(other, account, desktop))[1]["details"]["reason"] == "elsewhere"
    await one.run("note presence")
    assert (await attempt(other, account, desktop))[1]["type"] == "channel_joined"
