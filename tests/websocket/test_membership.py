"""Who sits in a channel: identify and join, intruders, take-over, and how a pairing ends."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from pairing_server.clock import utcnow
from pairing_server.request_context import system
from pairing_server.server.server import Node
from tests.devices import Account, Device, Site, Socket

pytestmark = pytest.mark.one_node

DESKTOP, MOBILE = "desktop-session-1", "mobile-session-1"


def identify(device_type: str, session_id: str) -> dict[str, str]:
    return {"type": "identify", "device_type": device_type, "session_id": session_id}


def join(channel: str, device_type: str, session_id: str) -> dict[str, str]:
    return {"type": "join_channel", "channel": channel, "device_type": device_type, "session_id": session_id}


async def waiting(site: Site, account: Account, session_id: str = DESKTOP) -> Device:
    """A desktop in the channel of a code that is not redeemed."""
    return await site.join(account, "desktop", f"pair-{await site.code(account, session_id)}", session_id)


async def ask(socket: Socket, message: dict[str, Any]) -> dict[str, Any]:
    socket.send(message)
    return await socket.receive()


async def when(site: Site, account: Account, what: str) -> datetime:
    """When the account's only pairing was created, say."""
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    return datetime.fromisoformat(pairing[f"{what}_at"])


async def expire(site: Site, since: datetime, seconds: float) -> int:
    """What the timer does about codes so many seconds after that."""
    return await site.node.backend.expiry.expire_pairings(system(since + timedelta(seconds=seconds)))


async def overdue(site: Site, seconds: float) -> int:
    """What the timer does about missing members so many seconds after the last has gone from the only channel."""
    [channel] = site.node.hub.channels.values()
    later = max(channel.absent_since.values(), default=asyncio.get_running_loop().time()) + seconds
    return await site.node.backend.expiry.close_overdue(later, system(utcnow()))


async def still_talks(speaker: Device, hearer: Device) -> None:
    speaker.socket.send({"type": "channel_message", "payload": {"still": "here"}})
    assert (await hearer.socket.expect("channel_message"))["payload"] == {"still": "here"}


# Identify and join


async def test_identify_and_join_work_in_either_order_and_neither_undoes_the_other(site: Site) -> None:
    account = await site.account()
    for number, order in enumerate(("ij", "ji", "iji", "j", "jij")):
        session_id = f"{DESKTOP}{number}"
        channel = f"pair-{await site.code(account, session_id)}"
        socket = await site.connect(account, "desktop")
        for step in order:
            if step == "i":
                answer = await ask(socket, identify("desktop", session_id))
                assert answer == {
                    "type": "identified",
                    "device_type": "desktop",
                    "session_id": session_id,
                }
            else:
                assert (await ask(socket, join(channel, "desktop", session_id)))["type"] == "channel_joined"
        acknowledged = await ask(socket, {"type": "channel_message", "payload": {}, "id": "m"})
        assert acknowledged["type"] == "ack", order


async def test_join_takes_the_session_and_device_type_that_identify_gave(site: Site) -> None:
    account = await site.account()
    channel = f"pair-{await site.code(account, DESKTOP)}"
    socket = await site.connect(account, "desktop")
    await ask(socket, identify("desktop", DESKTOP))
    assert (await ask(socket, {"type": "join_channel", "channelId": channel}))["type"] == "channel_joined"


async def test_joining_twice_tells_the_other_once(site: Site) -> None:
    account = await site.account()
    desktop = await waiting(site, account)
    code = desktop.channel.removeprefix("pair-")
    await site.redeem(account, code, MOBILE)
    await desktop.socket.expect("pairing_claimed")
    mobile = await site.connect(account, "mobile")
    for _ in range(3):
        mobile.send(join(desktop.channel, "mobile", MOBILE))
    types = [message["type"] for message in await mobile.pending()]
    assert types == ["channel_joined", "pairing_success", "channel_joined", "channel_joined"]
    assert [m["type"] for m in await desktop.socket.pending()] == ["client_joined", "pairing_success"]
    joined = await site.events("channel.joined")
    assert [(event["slot"], event["outcome"]) for event in joined] == [
        ("desktop", "success"),
        ("mobile", "success"),
    ]


@pytest.mark.parametrize("first", ["desktop", "mobile"])
async def test_pairing_success_comes_to_both_once_whoever_joins_last(site: Site, first: str) -> None:
    account = await site.account()
    code = await site.code(account, DESKTOP)
    await site.redeem(account, code, MOBILE)
    channel = f"pair-{code}"
    connections = {"desktop": DESKTOP, "mobile": MOBILE}
    second = "mobile" if first == "desktop" else "desktop"
    early = await site.join(account, first, channel, connections[first])
    late = await site.connect(account, second)
    late.send(join(channel, second, connections[second]))
    success = {
        "type": "pairing_success",
        "code": code,
        "channel": channel,
        "channelId": channel,
        "message": "Devices paired successfully",
        "devices": ["desktop", "mobile"],
    }
    assert (await late.pending())[1:] == [success]
    joined, celebrated = await early.socket.pending()
    assert (joined["client_id"], joined["device_type"]) == (connections[second], second)
    assert celebrated == success


async def test_the_desktop_that_shows_the_code_is_told_when_it_is_redeemed(site: Site) -> None:
    account = await site.account()
    socket = await site.connect(account, "desktop")
    await ask(socket, identify("desktop", DESKTOP))
    code = await site.code(account, DESKTOP)
    for _ in range(2):  # the phone's retry is answered again and announced once
        assert (await site.redeem(account, code, MOBILE)).status == 200
    assert await socket.pending() == [
        {"type": "pairing_claimed", "channel": f"pair-{code}", "channelId": f"pair-{code}"}
    ]


# Who may not


async def test_another_users_session_id_is_forbidden_and_recorded(site: Site) -> None:
    owner, thief = await site.account(), await site.account()
    desktop = await waiting(site, owner)
    socket = await site.connect(thief, "desktop")
    for message in (identify("desktop", DESKTOP), join(desktop.channel, "desktop", DESKTOP)):
        answer = await ask(socket, message)
        assert (answer["type"], answer["code"]) == ("error", "FORBIDDEN")
    attempts = await site.events("session.hijack_attempt")
    assert [(a["session_id"], a["owner"], a["actor"], a["outcome"]) for a in attempts] == [
        (DESKTOP, owner.subject, thief.subject, "denied")
    ] * 2
    assert await desktop.socket.pending() == []


async def test_a_session_id_is_bound_to_its_user_on_first_use(site: Site) -> None:
    account = await site.account()
    socket = await site.connect(account, "desktop")
    for _ in range(2):
        assert (await ask(socket, identify("desktop", DESKTOP)))["type"] == "identified"
    [bound] = await site.events("session.bound")
    assert (bound["session_id"], bound["device_type"]) == (DESKTOP, "desktop")


async def test_the_other_device_type_is_refused_before_anything_is_looked_up(site: Site) -> None:
    account = await site.account()
    desktop = await waiting(site, account)
    phone = await site.connect(account, "mobile")
    answer = await ask(phone, join(desktop.channel, "desktop", DESKTOP))
    assert answer["code"] == "DEVICE_TYPE_MISMATCH"
    assert answer["details"] == {"device_type": "desktop", "token_device_type": "mobile"}


@pytest.mark.parametrize("device_type", ["desktop", "mobile"])
async def test_a_channel_one_does_not_belong_to_is_not_joined_by_naming_it(
    site: Site, device_type: str
) -> None:
    account, other = await site.account(), await site.account()
    desktop = await waiting(site, account)
    for number, intruder in enumerate((account, other)):
        socket = await site.connect(intruder, device_type)
        answer = await ask(socket, join(desktop.channel, device_type, f"intruder-{number}"))
        assert (answer["code"], answer["details"]) == ("INVALID_CHANNEL", {"channel": desktop.channel})
        assert (await ask(socket, {"type": "channel_message", "payload": {}}))["code"] == "NOT_IN_CHANNEL"
    assert await desktop.socket.pending() == []
    assert {e["reason"] for e in await site.events("channel.denied")} == {"not_yours"}


async def test_a_name_that_is_no_channel_is_invalid(site: Site) -> None:
    socket = await site.connect(await site.account(), "mobile")
    names = ["pair-000000", "pair-12345", "pair-1234567", "PAIR-123456", "123456", "", "pair-12345６"]
    for name in [*names, "pair-123456\n", "pair-123456'; --", "x" * 128]:
        answer = await ask(socket, join(name, "mobile", MOBILE))
        assert (answer["code"], answer["details"]) == ("INVALID_CHANNEL", {"channel": name}), name
    assert [e["reason"] for e in await site.events("channel.denied")] == ["unknown"]


async def test_a_third_device_is_told_that_the_channel_is_full_and_the_members_of_it(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    intruders = [(account, "mobile"), (account, "desktop"), (await site.account(), "mobile")]
    for number, (intruder, device_type) in enumerate(intruders):
        socket = await site.connect(intruder, device_type)
        answer = await ask(socket, join(desktop.channel, device_type, f"intruder-{number}"))
        assert answer == {
            "type": "error",
            "code": "CHANNEL_FULL",
            "message": "Maximum number of devices already connected to channel",
            "details": {"channel": desktop.channel, "max_devices": 2, "current_devices": 2},
            "retryable": False,
        }
        assert await socket.pending() == []
        for member in (desktop, mobile):
            assert await member.socket.pending() == [
                {
                    "type": "intruder_refused",
                    "channel": desktop.channel,
                    "channelId": desktop.channel,
                    "device_type": device_type,
                    "current_devices": 2,
                }
            ]
    denied = await site.events("channel.denied")
    assert [(event["reason"], event["outcome"]) for event in denied] == [("full", "denied")] * 3
    await still_talks(desktop, mobile)


async def test_the_same_session_on_a_new_socket_takes_over_at_once(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    again = await site.join(account, "mobile", mobile.channel, mobile.session_id)
    assert (await mobile.socket.error())["code"] == "SESSION_REPLACED"
    assert await mobile.socket.closed() == 4409
    assert [m["type"] for m in await desktop.socket.pending()] == ["client_joined"]
    await still_talks(again, desktop)
    await still_talks(desktop, again)
    assert len(await site.events("channel.replaced")) == 1
    assert await site.events("channel.left") == []


# Going


@pytest.mark.parametrize("how", ["leave", "close"])
async def test_the_other_is_told_who_has_gone_and_that_it_may_come_back(site: Site, how: str) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    if how == "leave":
        mobile.socket.send({"type": "leave_channel", "channel": mobile.channel})
        await mobile.socket.expect("channel_left")
    else:
        mobile.socket.connection.close(1000)
    assert await desktop.socket.receive() == {
        "type": "mobile_disconnected",
        "channel": desktop.channel,
        "channelId": desktop.channel,
        "reason": "Left the channel" if how == "leave" else "Connection closed",
        "force_disconnect": False,
        "client_id": mobile.session_id,
        "device_type": "mobile",
    }
    assert len(await site.events("channel.left")) == 1
    if how == "leave":
        mobile.socket.send(join(mobile.channel, "mobile", mobile.session_id))
        await mobile.socket.expect("channel_joined")
        await mobile.socket.expect("pairing_success")
    else:
        mobile = await site.join(account, "mobile", mobile.channel, mobile.session_id)
        [closed] = await site.events("ws.disconnected")
        assert (closed["by"], closed["close_code"], closed["outcome"]) == ("client", 1000, "success")
    assert [m["type"] for m in await desktop.socket.pending()] == ["client_joined", "pairing_success"]
    await still_talks(mobile, desktop)


async def test_unpair_closes_for_good_and_tells_the_other_not_to_come_back(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    desktop.socket.send({"type": "unpair", "channel": desktop.channel})
    gone = await mobile.socket.expect("desktop_disconnected")
    assert (gone["force_disconnect"], gone["client_id"]) == (True, desktop.session_id)
    for member in (desktop, mobile):
        assert (await member.socket.expect("channel_closed"))["reason"] == "unpaired"
        assert await member.socket.closed() == 4410
    late = await site.connect(account, "mobile")
    answer = await ask(late, join(mobile.channel, "mobile", mobile.session_id))
    assert (answer["code"], answer["details"]["reason"]) == ("INVALID_CHANNEL", "unpaired")
    assert [e["reason"] for e in await site.events("channel.denied")] == ["ended"]
    assert [e["reason"] for e in await site.events("pairing.closed")] == ["unpaired"]


async def test_a_pairing_deleted_over_http_closes_its_channel(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    [pairing] = (await site.get("/api/pairings", account.token)).body["pairings"]
    assert (await site.call("DELETE", f"/api/pairings/{pairing['id']}", None, account.token)).status == 200
    for member, other in ((desktop, "mobile"), (mobile, "desktop")):
        assert (await member.socket.expect(f"{other}_disconnected"))["force_disconnect"] is True
        await member.socket.expect("channel_closed")
        assert await member.socket.closed() == 4410


# Time


async def test_a_code_nobody_redeems_expires_and_the_desktop_goes_on_with_the_next(site: Site) -> None:
    account = await site.account()
    desktop = await waiting(site, account)
    created = await when(site, account, "created")
    assert await expire(site, created, 299.9) == 0
    assert await desktop.socket.pending() == []
    assert await expire(site, created, 300) == 1
    error = await desktop.socket.error()
    assert (error["code"], error["details"]) == (
        "INVALID_CHANNEL",
        {"channel": desktop.channel, "reason": "expired"},
    )
    answer = await ask(desktop.socket, join(desktop.channel, "desktop", DESKTOP))
    assert (answer["code"], answer["details"]["reason"]) == ("INVALID_CHANNEL", "expired")
    following = f"pair-{await site.code(account, DESKTOP)}"
    assert (await ask(desktop.socket, join(following, "desktop", DESKTOP)))["type"] == "channel_joined"
    assert len(await site.events("pairing.code_expired")) == 1


async def test_asking_for_another_code_supersedes_the_one_that_waits(site: Site) -> None:
    account = await site.account()
    desktop = await waiting(site, account)
    await site.code(account, DESKTOP)
    error = await desktop.socket.error()
    assert (error["code"], error["details"]["reason"]) == ("INVALID_CHANNEL", "superseded")
    assert (await site.redeem(account, desktop.channel.removeprefix("pair-"), MOBILE)).status == 404
    assert await desktop.socket.pending() == []


async def test_a_running_channel_stays_until_the_next_code_is_redeemed(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    code = await site.code(account, desktop.session_id)
    await still_talks(mobile, desktop)
    assert (await site.redeem(account, code, "mobile-session-2")).status == 200
    gone = await mobile.socket.expect("desktop_disconnected")
    assert gone["force_disconnect"] is True
    assert (await mobile.socket.expect("channel_closed"))["reason"] == "superseded"
    assert await mobile.socket.closed() == 4410
    await desktop.socket.expect("pairing_claimed")
    await desktop.socket.expect("channel_closed")
    answer = await ask(desktop.socket, join(f"pair-{code}", "desktop", desktop.session_id))
    assert answer["type"] == "channel_joined"


async def test_a_redeemed_code_whose_devices_never_meet_is_closed(site: Site) -> None:
    account = await site.account()
    code = await site.code(account, DESKTOP)
    await site.redeem(account, code, MOBILE)
    mobile = await site.join(account, "mobile", f"pair-{code}", MOBILE)
    redeemed = await when(site, account, "redeemed")
    assert await expire(site, redeemed, 299.9) == 0
    assert await expire(site, redeemed, 300) == 1
    error = await mobile.socket.error()
    assert (error["code"], error["details"]) == (
        "INVALID_CHANNEL",
        {"channel": f"pair-{code}", "reason": "expired"},
    )
    assert await mobile.socket.pending() == []
    answer = await ask(await site.connect(account, "desktop"), join(f"pair-{code}", "desktop", DESKTOP))
    assert answer["code"] == "INVALID_CHANNEL"


async def test_a_pair_that_is_connected_outlives_every_timer(site: Site) -> None:
    desktop, mobile = await site.pair()
    assert (await expire(site, utcnow(), 5000), await overdue(site, 5000)) == (0, 0)
    await still_talks(desktop, mobile)


async def test_a_member_gone_longer_than_the_grace_ends_the_channel(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    assert await overdue(site, 299.9) == 0
    assert await overdue(site, 300.1) == 1
    gone = await desktop.socket.expect("mobile_disconnected")
    assert (gone["force_disconnect"], gone["client_id"]) == (True, mobile.session_id)
    await desktop.socket.expect("channel_closed")
    assert await desktop.socket.closed() == 4410
    answer = await ask(
        await site.connect(account, "mobile"), join(mobile.channel, "mobile", mobile.session_id)
    )
    assert answer["code"] == "INVALID_CHANNEL"


async def test_both_members_may_come_back_within_the_grace_and_not_after(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    for member in (desktop, mobile):
        member.socket.send({"type": "leave_channel"})
        await member.socket.pending()
    assert await overdue(site, 299.9) == 0
    desktop = await site.join(account, "desktop", desktop.channel, desktop.session_id)
    mobile = await site.join(account, "mobile", mobile.channel, mobile.session_id)
    await desktop.socket.pending()
    await still_talks(desktop, mobile)
    for member in (desktop, mobile):
        member.socket.send({"type": "leave_channel"})
        await member.socket.pending()
    assert await overdue(site, 300.1) == 1
    desktop.socket.send(join(desktop.channel, "desktop", desktop.session_id))
    assert (await desktop.socket.error())["code"] == "INVALID_CHANNEL"
    assert [e["reason"] for e in await site.events("pairing.closed")] == ["deserted"]


async def test_a_pairing_outlives_a_restart_of_the_process(own_site: Site, database_url: str) -> None:
    account = await own_site.account()
    desktop, mobile = await own_site.pair(account)
    before = own_site.node.hub.channels[next(iter(own_site.node.hub.channels))].epoch
    desktop.socket.send({"type": "settings_sync", "settings": {"gain": 1}})
    await mobile.socket.expect("settings_sync")
    closing = [asyncio.ensure_future(member.socket.closed()) for member in (desktop, mobile)]
    await own_site.node.stop()
    assert await asyncio.gather(*closing) == [None, None]
    node = Node(own_site.node.config, database_url)
    [(_, port), *_] = await node.start(timers=False)
    fresh = Site(node, port)
    try:
        socket = await fresh.connect(account, "desktop")
        joined = await ask(socket, join(desktop.channel, "desktop", desktop.session_id))
        assert (joined["type"], joined["recovered"], joined["seq"]) == ("channel_joined", False, 0)
        assert (joined["settings"], joined["rev"]) == ({"gain": 1}, 1)
        assert joined["epoch"] != before
        assert (await socket.expect("settings_sync"))["settings"] == {"gain": 1}
        again = await fresh.join(account, "mobile", mobile.channel, mobile.session_id)
        assert [m["type"] for m in await socket.pending()] == ["client_joined", "pairing_success"]
        again.socket.send({"type": "channel_message", "payload": {"a": 1}})
        assert (await socket.expect("channel_message"))["seq"] == 1
    finally:
        await fresh.close()
        await node.stop()
    assert len(await fresh_events(own_site, database_url, "ws.disconnected")) == 4


async def fresh_events(site: Site, database_url: str, name: str) -> list[dict[str, Any]]:
    """The audit events of that name, read when all nodes have stopped."""
    reader = Site(Node(site.node.config, database_url), 0)
    try:
        return await reader.events(name)
    finally:
        await reader.node.release()
        reader.client.close()
