"""While the database is away: who was in a channel comes back to it from memory, everybody else waits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from harness.fault_proxy import FaultProxy
from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.store import users
from tests.devices import Device, Site, Socket
from tests.faults.sites import known_to_be_away, ready


def join(device: Device) -> dict[str, Any]:
    return {
        "type": "join_channel",
        "channel": device.channel,
        "device_type": device.device_type,
        "session_id": device.session_id,
    }


def identify(device: Device) -> dict[str, Any]:
    return {"type": "identify", "device_type": device.device_type, "session_id": device.session_id}


async def refused(socket: Socket, message: dict[str, Any]) -> None:
    """The answer says that it may try again later, and its connection stays."""
    socket.send(message)
    error = await socket.error()
    assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True)
    assert error["details"]["retry_after_ms"] > 0
    assert await socket.pending() == []


async def test_who_was_seated_comes_back_with_a_fresh_token_to_what_was_missed(
    far: Site, proxy: FaultProxy
) -> None:
    account = await far.account()
    desktop, mobile = await far.pair(account)
    proxy.reset()
    await known_to_be_away(far)
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    desktop.socket.send({"type": "channel_message", "payload": {"n": 1}})
    socket = await far.connect(account, "mobile")
    socket.send(identify(mobile))
    await socket.expect("identified")
    socket.send(join(mobile))
    joined = await socket.expect("channel_joined")
    assert (joined["degraded"], joined["devices"]) == (True, ["desktop", "mobile"])
    assert (await socket.expect("channel_message"))["payload"] == {"n": 1}
    assert [message["type"] for message in await desktop.socket.pending()] == [
        "client_joined",
        "pairing_success",
    ]
    # The same once more on another connection, while the first is still open.
    again = await far.connect(account, "mobile")
    again.send(join(mobile))
    assert (await again.expect("channel_joined"))["degraded"] is True
    assert await socket.closed() == 4409
    proxy.heal()
    await ready(far)
    again.send(join(mobile))
    assert "degraded" not in next(m for m in await again.pending() if m["type"] == "channel_joined")
    assert [event["slot"] for event in await far.events("channel.joined") if event.get("degraded")] == [
        "mobile"
    ] * 2
    assert [
        event["device_type"] for event in await far.events("auth.token_issued") if event.get("degraded")
    ] == [
        "mobile",
        "mobile",
    ]


async def test_who_was_not_seated_waits_on_an_open_connection_until_it_can_join(
    far: Site, proxy: FaultProxy
) -> None:
    account = await far.account()
    code = await far.code(account, "desktop-session-1")
    device = Device(await far.connect(account, "desktop"), "desktop-session-1", "desktop", f"pair-{code}")
    proxy.reset()
    await known_to_be_away(far)
    await refused(device.socket, identify(device))
    await refused(device.socket, join(device))
    proxy.heal()
    await ready(far)
    device.socket.send(join(device))
    assert "degraded" not in await device.socket.expect("channel_joined")


async def test_memory_seats_nobody_but_the_device_itself_in_its_own_channel(
    far: Site, proxy: FaultProxy
) -> None:
    account, stranger = await far.account(), await far.account()
    desktop, mobile = await far.pair(account)
    other, _ = await far.pair(account)
    as_stranger = await far.connect(stranger, "mobile")
    as_desktop = await far.connect(account, "desktop")
    proxy.reset()
    await known_to_be_away(far)
    await refused(as_stranger, join(mobile))
    await refused(as_stranger, identify(mobile))
    # Its own session id, but another channel, though that is the same user's.
    await refused(as_desktop, {**join(desktop), "channel": other.channel})
    await refused(as_desktop, {**join(desktop), "session_id": mobile.session_id})
    assert await desktop.socket.pending() == []


async def test_the_grace_is_not_extended_while_the_database_is_away(far: Site, proxy: FaultProxy) -> None:
    account = await far.account()
    desktop, mobile = await far.pair(account)
    proxy.reset()
    await known_to_be_away(far)
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    late = asyncio.get_running_loop().time() + 301
    assert await far.node.backend.expiry.close_overdue(late, system(utcnow())) == 1
    gone = await desktop.socket.expect("mobile_disconnected")
    assert (gone["force_disconnect"], gone["client_id"]) == (True, mobile.session_id)
    assert await desktop.socket.closed() == 4410
    await refused(await far.connect(account, "mobile"), join(mobile))
    proxy.heal()
    await ready(far)
    socket = await far.connect(account, "mobile")
    socket.send(join(mobile))
    assert (await socket.error())["code"] == "INVALID_CHANNEL"


async def test_a_ws_token_is_for_who_was_seen_enabled_a_moment_ago(far: Site, proxy: FaultProxy) -> None:
    seen, unseen = await far.account(), await far.account()
    await far.ws_token(seen, "desktop")
    proxy.reset()
    await known_to_be_away(far)
    assert (await far.post("/api/auth/ws-token", {}, unseen.token)).status == 503
    assert await far.ws_token(seen, "desktop")
    node = far.node
    assert node.backend.account_status.seen_recently(seen.subject, utcnow() + timedelta(minutes=9))
    assert not node.backend.account_status.seen_recently(seen.subject, utcnow() + timedelta(minutes=11))


@pytest.mark.parametrize("noticed_by", ["the timer", "a request"])
async def test_who_was_found_disabled_gets_no_ws_token_while_the_database_is_away(
    far: Site, proxy: FaultProxy, noticed_by: str
) -> None:
    account = await far.account()
    socket = await far.connect(account, "desktop")
    async with far.node.database.transaction() as conn:
        await users.set_disabled(conn, UUID(account.subject), utcnow())
    if noticed_by == "the timer":
        await far.node.backend.account_status.close_disabled(utcnow())
        assert await socket.closed() == 4401
    else:
        assert (await far.post("/api/auth/ws-token", {}, account.token)).status == 401
    proxy.reset()
    await known_to_be_away(far)
    assert (await far.post("/api/auth/ws-token", {}, account.token)).status == 503
