"""Devices that come back: who is known, which seat is one's own, and who is noted as present."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import LIVE_STATES, channel_settings, pairings, users
from pairing_server.store import membership as store
from pairing_server.store import pairings as all_pairings
from pairing_server.store import users as all_users
from pairing_server.store.membership import NOTED, Entered, Known, Present, Rejoin
from pairing_server.store.pairings import Seat
from tests.store.rows import (
    CODES,
    DESKTOP,
    ENDED_STATES,
    MOBILE,
    NODE,
    NOW,
    caller_of,
    fetch_on,
    row_in,
    seconds,
)

MACS = CODES.macs("000001")


async def known(conn: AsyncConnection, seat: Seat, role: str, account: UUID | None = None) -> Known:
    """The device of the seat, its session id bound just now."""
    assert seat.user is not None
    await all_users.bind_session(conn, seat.session_id, seat.user, role, NOW)
    return Known(caller_of(account), seat.user, seat.session_id)


async def enter(
    conn: AsyncConnection, device: Known, role: str, macs: list[bytes] = MACS, **places: Any
) -> Entered | None:
    places = {"met": None, "live": None, "node": NODE, **places}
    return await store.enter(fetch_on(conn), Rejoin(device, role, macs, **places), NOW)


async def account(conn: AsyncConnection, *, disabled: bool) -> UUID:
    made = all_users.User(uuid4(), f"user-{disabled}", "user", NOW, None)
    assert await all_users.add(conn, made, "none")
    if disabled:
        await conn.execute(update(users).where(users.c.id == made.id).values(disabled_at=NOW))
    return made.id


async def test_a_device_is_known_by_a_session_id_of_its_own_noted_a_short_while_ago(
    conn: AsyncConnection,
) -> None:
    fetch = fetch_on(conn)
    device = await known(conn, DESKTOP, "desktop")
    assert await store.is_known(fetch, device, NOW)
    assert await store.is_known(fetch, device, NOW + NOTED - seconds(1))
    assert not await store.is_known(fetch, device, NOW + NOTED)
    assert not await store.is_known(fetch, Known(None, "bob", DESKTOP.session_id), NOW)
    assert not await store.is_known(fetch, Known(None, "alice", "desktop-2"), NOW)


@pytest.mark.parametrize("disabled", [False, True])
async def test_a_device_of_a_disabled_account_is_neither_known_nor_let_in(
    conn: AsyncConnection, disabled: bool
) -> None:
    user = await account(conn, disabled=disabled)
    seat = Seat("desktop-1", str(user))
    device = await known(conn, seat, "desktop", user)
    await row_in(conn, "redeemed", desktop=seat)
    assert await store.is_known(fetch_on(conn), device, NOW) is not disabled
    assert (await enter(conn, device, "desktop") is None) is disabled


async def test_a_device_of_an_account_that_is_gone_is_not_known(conn: AsyncConnection) -> None:
    device = await known(conn, DESKTOP, "desktop", uuid4())
    assert not await store.is_known(fetch_on(conn), device, NOW)


@pytest.mark.parametrize("role", ["desktop", "mobile"])
async def test_a_device_comes_back_to_its_seat_in_a_pairing_that_lives(
    conn: AsyncConnection, role: str
) -> None:
    device = await known(conn, DESKTOP if role == "desktop" else MOBILE, role)
    for state in (*LIVE_STATES, *ENDED_STATES):
        async with conn.begin_nested() as trial:
            pairing_id = await row_in(conn, state)
            may = state in ("redeemed", "active", "waiting") or (state, role) == ("pending", "desktop")
            found = await enter(conn, device, role)
            assert (found is not None) == may, state
            if found is not None:
                assert (found.pairing.id, found.pairing.state) == (pairing_id, state)
                assert found.pairing == await all_pairings.by_code(conn, MACS)
            await trial.rollback()


async def test_a_code_that_has_expired_lets_its_desktop_in_no_more(conn: AsyncConnection) -> None:
    device = await known(conn, DESKTOP, "desktop")
    await row_in(conn, "pending")
    late = NOW + seconds(300)
    assert (
        await store.enter(
            fetch_on(conn), Rejoin(device, "desktop", MACS, met=None, live=None, node=NODE), late
        )
        is None
    )


async def test_a_seat_admits_only_its_own_device(conn: AsyncConnection) -> None:
    await row_in(conn, "active")
    for seat, role in (
        (Seat("desktop-2", "alice"), "desktop"),
        (Seat("desktop-3", "bob"), "desktop"),
        (MOBILE, "desktop"),
        (DESKTOP, "mobile"),
    ):
        assert await enter(conn, await known(conn, seat, role), role) is None
    own = await known(conn, DESKTOP, "desktop")
    assert await enter(conn, Known(None, "bob", DESKTOP.session_id), "desktop") is None
    assert await enter(conn, own, "desktop", CODES.macs("000002")) is None
    assert await enter(conn, own, "desktop") is not None


async def test_a_guests_seat_is_claimed_elsewhere(conn: AsyncConnection) -> None:
    await row_in(conn, "pending", desktop=Seat("desktop-1", None))
    assert await enter(conn, await known(conn, DESKTOP, "desktop"), "desktop") is None


async def test_a_device_that_comes_back_to_a_present_one_makes_the_pairing_active(
    conn: AsyncConnection,
) -> None:
    pairing_id = await row_in(conn, "redeemed")
    device = await known(conn, MOBILE, "mobile")
    alone = await enter(conn, device, "mobile", met=uuid4())
    assert alone is not None
    assert (alone.pairing.state, alone.pairing.activated_at) == ("redeemed", None)
    met = await enter(conn, device, "mobile", met=pairing_id)
    assert met is not None
    assert (met.pairing.state, met.pairing.activated_at) == ("active", NOW)
    later = NOW + seconds(60)
    again = await store.enter(
        fetch_on(conn), Rejoin(device, "mobile", MACS, met=pairing_id, live=None, node=NODE), later
    )
    assert again is not None
    assert (again.pairing.activated_at, again.pairing.seen_at) == (NOW, later)


async def waits_for_the_disk(conn: AsyncConnection) -> bool:
    """Whether the transaction's commit will."""
    return (await conn.execute(text("SHOW synchronous_commit"))).scalar_one() == "on"


@pytest.mark.parametrize(("before", "waits"), [("redeemed", True), ("active", False), ("waiting", False)])
async def test_only_that_both_have_met_waits_for_the_disk(
    conn: AsyncConnection, before: str, waits: bool
) -> None:
    await conn.execute(text("SET LOCAL synchronous_commit = on"))
    device = await known(conn, DESKTOP, "desktop")
    pairing_id = await row_in(conn, before)
    if not waits:
        await conn.execute(update(pairings).values(activated_at=NOW - seconds(60)))
    for act in (
        lambda: enter(conn, device, "desktop", met=pairing_id),
        lambda: store.set_present(fetch_on(conn), NODE, {pairing_id: Present(True, True)}, NOW),
    ):
        async with conn.begin_nested() as trial:
            assert await waits_for_the_disk(conn)
            await act()
            assert await waits_for_the_disk(conn) == waits
            await trial.rollback()
    async with conn.begin_nested():
        await enter(conn, device, "desktop")
        assert not await waits_for_the_disk(conn), "it is only seen"


async def test_the_name_is_kept_under_the_current_key_once_its_device_is_back(conn: AsyncConnection) -> None:
    pairing_id = await row_in(conn, "active")
    device = await known(conn, DESKTOP, "desktop")
    assert await enter(conn, device, "desktop", [b"newer", *MACS]) is not None
    kept = select(pairings.c.code_mac).where(pairings.c.id == pairing_id)
    assert (await conn.execute(kept)).scalar_one() == b"newer"


async def test_the_settings_come_along_unless_the_channel_has_them(conn: AsyncConnection) -> None:
    pairing_id = await row_in(conn, "active")
    device = await known(conn, DESKTOP, "desktop")
    without = await enter(conn, device, "desktop")
    assert without is not None
    assert without.kept is None
    row = {"pairing_id": pairing_id, "epoch": "e", "rev": 7, "document": b"{}"}
    await conn.execute(insert(channel_settings).values(row))
    for live, kept in ((None, (7, b"{}")), (uuid4(), (7, b"{}")), (pairing_id, None)):
        found = await enter(conn, device, "desktop", live=live)
        assert found is not None
        assert found.kept == kept


async def test_presence_of_many_is_noted_at_once(conn: AsyncConnection) -> None:
    met = await row_in(conn, "waiting", "000001", Seat("desktop-1", "alice"))
    left = await row_in(conn, "active", "000002", Seat("desktop-2", "alice"))
    ended = await row_in(conn, "closed", "000003", Seat("desktop-3", "alice"))
    later = NOW + timedelta(seconds=5)
    unknown, both = uuid4(), Present(True, True)
    given = {met: both, left: Present(True, False), ended: both, unknown: both}
    strays = await store.set_present(fetch_on(conn), NODE, given, later)
    assert set(strays) == {ended, unknown}
    rows = await conn.execute(select(pairings.c.id, pairings.c.state, pairings.c.seen_at))
    assert {row[0]: tuple(row[1:]) for row in rows} == {
        met: ("active", later),
        left: ("waiting", later),
        ended: ("closed", NOW),
    }
