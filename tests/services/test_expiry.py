"""How pairings end by themselves, and what is forgotten when: at shifted clocks, on real nodes."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert, select

from pairing_server.clock import utcnow
from pairing_server.db.tables import pairings
from pairing_server.request_context import system
from pairing_server.store import rate_limits, users
from tests.conftest import StartNode
from tests.devices import Account, Site

DAY = 86_400


@pytest.fixture
def site(start_node: StartNode) -> Site:
    return start_node()


def after(seconds: float) -> datetime:
    return utcnow() + timedelta(seconds=seconds)


def monotonic(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def rows(site: Site) -> list[dict[str, Any]]:
    async with site.node.database.transaction() as conn:
        found = await conn.execute(select(pairings).order_by(pairings.c.created_at))
        return [row._asdict() for row in found]


async def states(site: Site) -> list[tuple[str, str | None]]:
    return [(row["state"], row["end_reason"]) for row in await rows(site)]


async def redeemed(site: Site, account: Account | None = None) -> str:
    """The channel of a pairing whose devices have not met."""
    account = account or await site.account()
    code = await site.code(account, "desktop-1")
    assert (await site.redeem(account, code, "mobile-1")).status == 200
    return f"pair-{code}"


# Codes


async def test_an_unused_code_expires_once(site: Site) -> None:
    await site.code(await site.account(), "desktop-1")
    [row] = await rows(site)
    end = row["created_at"] + timedelta(seconds=300)
    assert await site.node.backend.expiry.expire_pairings(system(end - timedelta(seconds=1))) == 0
    assert await site.node.backend.expiry.expire_pairings(system(end)) == 1
    assert await site.node.backend.expiry.expire_pairings(system(end)) == 0
    assert await states(site) == [("expired", "expired")]
    [event] = await site.events("pairing.code_expired")
    assert event["age_s"] == 300


async def test_a_waiting_desktop_receives_the_expiry_of_its_code(site: Site) -> None:
    account = await site.account()
    channel = f"pair-{await site.code(account, 'desktop-1')}"
    desktop = await site.join(account, "desktop", channel, "desktop-1")
    await site.node.backend.expiry.expire_pairings(system(after(300)))
    error = await desktop.socket.error()
    assert (error["code"], error["details"]["reason"]) == ("INVALID_CHANNEL", "expired")


async def test_devices_that_never_meet_have_five_minutes_more(site: Site) -> None:
    await redeemed(site)
    [row] = await rows(site)
    end = row["redeemed_at"] + timedelta(seconds=300)
    assert await site.node.backend.expiry.expire_pairings(system(end - timedelta(seconds=1))) == 0
    assert await site.node.backend.expiry.expire_pairings(system(end)) == 1
    assert await site.node.backend.expiry.expire_pairings(system(end)) == 0
    assert await states(site) == [("closed", "expired")]
    assert [event["reason"] for event in await site.events("pairing.closed")] == ["expired"]


async def test_devices_that_have_met_do_not_expire(site: Site) -> None:
    await site.pair()
    assert await site.node.backend.expiry.expire_pairings(system(after(DAY))) == 0
    assert await states(site) == [("active", None)]


# Channels


def last_left(site: Site) -> float:
    """When a member was last seen to leave the only channel, in monotonic seconds."""
    [channel] = site.node.hub.channels.values()
    return max(channel.absent_since.values())


async def test_a_member_that_stays_away_longer_than_the_grace_ends_the_channel(site: Site) -> None:
    desktop, mobile = await site.pair()
    mobile.socket.close()
    assert (await desktop.socket.expect("mobile_disconnected"))["force_disconnect"] is False
    node, left = site.node, last_left(site)
    assert await node.backend.expiry.close_overdue(left + 299, system(after(299))) == 0
    assert await desktop.socket.pending() == []
    assert await node.backend.expiry.close_overdue(left + 301, system(after(301))) == 1
    gone = await desktop.socket.expect("mobile_disconnected")
    assert (gone["force_disconnect"], gone["client_id"]) == (True, mobile.session_id)
    assert await desktop.socket.closed() == 4410
    assert await node.backend.expiry.close_overdue(left + 301, system(after(301))) == 0
    assert await states(site) == [("closed", "deserted")]
    assert [event["reason"] for event in await site.events("pairing.closed")] == ["deserted"]


async def test_when_both_are_gone_the_grace_counts_from_the_last(site: Site) -> None:
    desktop, mobile = await site.pair()
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    [channel] = site.node.hub.channels.values()
    channel.absent_since["mobile"] -= 200  # it left that long ago
    desktop.socket.close()
    while len(await site.events("channel.left")) < 2:
        pass  # each question gives the server time to notice
    node, left = site.node, last_left(site)
    assert await node.backend.expiry.close_overdue(left + 299, system(after(299))) == 0
    assert await node.backend.expiry.close_overdue(left + 301, system(after(301))) == 1
    assert site.node.hub.channels == {}
    assert await states(site) == [("closed", "deserted")]


async def test_a_member_that_comes_back_within_the_grace_keeps_the_channel(site: Site) -> None:
    account = await site.account()
    desktop, mobile = await site.pair(account)
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    await site.node.app.settled()  # that it has gone is noted
    await site.join(account, "mobile", mobile.channel, mobile.session_id)
    assert await site.node.backend.expiry.close_overdue(monotonic(DAY), system(after(DAY))) == 0
    assert await states(site) == [("active", None)]


async def test_a_desktop_may_wait_alone_for_as_long_as_its_code_lives(site: Site) -> None:
    account = await site.account()
    channel = f"pair-{await site.code(account, 'desktop-1')}"
    desktop = await site.join(account, "desktop", channel, "desktop-1")
    assert await site.node.backend.expiry.close_overdue(monotonic(DAY), system(after(299))) == 0
    assert await desktop.socket.pending() == []
    assert await states(site) == [("pending", None)]


# What several servers know of each other


async def test_presence_is_noted_as_active_or_waiting(site: Site) -> None:
    desktop, mobile = await site.pair()
    [row] = await rows(site)
    ids = [row["id"]]
    assert site.node.hub.connected_channels() == ids
    mobile.socket.close()
    await desktop.socket.expect("mobile_disconnected")
    await site.node.app.settled()  # that it has gone is noted
    now = after(30)
    assert await site.node.services.presence.note_all(now) == []
    assert [(row["state"], row["seen_at"]) for row in await rows(site)] == [("waiting", now)]
    [channel] = site.node.hub.channels.values()
    channel.members["mobile"] = channel.members["desktop"]
    now = after(60)
    await site.node.services.presence.note_all(now)
    del channel.members["mobile"]
    assert [(row["state"], row["seen_at"]) for row in await rows(site)] == [("active", now)]


async def test_a_pairing_that_no_server_has_seen_for_the_grace_is_closed_once(site: Site) -> None:
    await site.pair()
    [row] = await rows(site)
    node, end = site.node, row["seen_at"] + timedelta(seconds=360)
    assert await node.backend.expiry.close_deserted(system(end - timedelta(seconds=1))) == 0
    assert await node.backend.expiry.close_deserted(system(end)) == 1
    assert await node.backend.expiry.close_deserted(system(end)) == 0
    assert await states(site) == [("closed", "deserted")]
    assert [event["reason"] for event in await site.events("pairing.closed")] == ["deserted"]


async def test_a_server_does_not_close_what_another_one_holds(start_two: tuple[Site, Site]) -> None:
    one, other = start_two
    desktop, mobile = await one.pair()
    await one.node.services.presence.note_all(after(330))
    assert await other.node.backend.expiry.close_deserted(system(after(389))) == 0
    assert await other.node.backend.expiry.close_overdue(monotonic(DAY), system(after(DAY))) == 0
    assert [*await desktop.socket.pending(), *await mobile.socket.pending()] == []
    assert await states(one) == [("active", None)]


@pytest.fixture
def start_two(start_node: StartNode) -> tuple[Site, Site]:
    """Two nodes on one database."""
    return start_node(), start_node()


async def test_a_pairing_that_two_servers_end_at_once_ends_and_is_announced_once(
    start_two: tuple[Site, Site],
) -> None:
    one, other = start_two
    account = await one.account()
    for number in range(20):
        await one.code(account, f"desktop-{number}")
    for number in range(20, 30):
        code = await one.code(account, f"desktop-{number}")
        await one.redeem(account, code, f"mobile-{number}")
    ended = await asyncio.gather(
        *(site.node.backend.expiry.expire_pairings(system(after(600))) for site in (one, other, one, other))
    )
    assert sum(ended) == 30
    assert len(await one.events("pairing.code_expired")) == 20
    assert len(await one.events("pairing.closed")) == 10
    kept = [row["code_mac"] for row in await rows(one)]
    assert None not in kept
    released = await asyncio.gather(
        *(site.node.backend.expiry.release_names(after(1201)) for site in (one, other, one))
    )
    assert sum(released) == 30


async def test_live_codes_of_all_servers_are_counted(start_two: tuple[Site, Site]) -> None:
    one, other = start_two
    account = await one.account()
    for number in range(3):
        await one.code(account, f"desktop-{number}")
    await other.node.backend.code_limits.count_live()
    assert other.node.backend.code_limits.live == 3
    await other.node.backend.expiry.expire_pairings(system(after(300)))
    await one.node.backend.code_limits.count_live()
    assert one.node.backend.code_limits.live == 0


# What is forgotten


async def test_a_name_is_kept_for_ten_minutes_after_the_end(site: Site) -> None:
    await site.code(await site.account(), "desktop-1")
    node = site.node
    await node.backend.expiry.expire_pairings(system(after(300)))
    [row] = await rows(site)
    end = row["ended_at"]
    assert await node.backend.expiry.release_names(end + timedelta(seconds=599)) == 0
    assert (await rows(site))[0]["code_mac"] is not None
    assert await node.backend.expiry.release_names(end + timedelta(seconds=600)) == 1
    assert await node.backend.expiry.release_names(end + timedelta(seconds=600)) == 0
    assert (await rows(site))[0]["code_mac"] is None


async def test_the_name_of_a_live_pairing_is_never_released(site: Site) -> None:
    await site.pair()
    assert await site.node.backend.expiry.release_names(after(365 * DAY)) == 0
    assert await states(site) == [("active", None)]


async def test_pairings_are_forgotten_a_month_after_their_end(site: Site) -> None:
    await site.code(await site.account(), "desktop-1")
    node = site.node
    await node.backend.expiry.expire_pairings(system(after(300)))
    await node.backend.expiry.release_names(after(30 * DAY))
    assert len(await rows(site)) == 1
    await node.backend.expiry.release_names(after(30 * DAY + 400))
    assert await rows(site) == []


async def test_what_was_counted_is_forgotten_after_two_days_and_session_ids_after_a_year(site: Site) -> None:
    node = site.node
    await site.code(await site.account(), "desktop-1")
    async with node.database.transaction() as conn:
        await rate_limits.lock(conn, [("login_user", "alice")], utcnow())
    assert await node.backend.expiry.prune(after(2 * DAY)) == 0
    await node.backend.expiry.prune(after(2 * DAY + 3700))
    async with node.database.transaction() as conn:
        assert await rate_limits.read(conn, "login_user", "alice") is None
        owner, new = await users.bind_session(conn, "desktop-1", "mallory", "desktop", utcnow())
        assert (owner != "mallory", new) == (True, False)
    assert await node.backend.expiry.prune(after(365 * DAY + 60)) == 1
    async with node.database.transaction() as conn:
        owner, new = await users.bind_session(conn, "desktop-1", "bob", "desktop", utcnow())
    assert (owner, new) == ("bob", True)


async def test_more_than_a_batch_takes_several_runs(site: Site) -> None:
    node = site.node
    async with node.database.transaction() as conn:
        await conn.execute(
            insert(pairings),
            [
                {
                    "id": uuid4(),
                    "code_mac": node.backend.codes.macs(f"{number:06d}")[0],
                    "state": "pending",
                    "desktop_session": "desktop-1",
                    "created_at": utcnow(),
                    "expires_at": after(300),
                }
                for number in range(1201)
            ],
        )
    assert [await node.backend.expiry.expire_pairings(system(after(300))) for _ in range(3)] == [1000, 201, 0]
    assert [await node.backend.expiry.release_names(after(900)) for _ in range(3)] == [1000, 201, 0]
