"""Pairings at rest: transitions that check the state they leave, and who finds what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.tables import LIVE_STATES, pairings
from pairing_server.store import expiry, membership
from pairing_server.store import pairings as store
from pairing_server.store.membership import Present
from pairing_server.store.pairings import Entering, Seat
from tests.store.rows import (
    CODES,
    DESKTOP,
    ENDED_STATES,
    MOBILE,
    NODE,
    NOW,
    ask,
    draw,
    fetch_on,
    redeem,
    row_in,
    seconds,
    type_in,
)

MACS = CODES.macs("000001")
LATE = NOW + seconds(1000)
Act = Callable[[AsyncConnection, UUID], Awaitable[Any]]


def joining(role: str, seat: Seat, *, both: bool) -> Act:
    return lambda conn, id_: store.enter(conn, Entering(id_, role, seat, both_present=both, node=NODE), NOW)


def noting(present: Present) -> Act:
    async def note(conn: AsyncConnection, id_: UUID) -> None:
        await membership.set_present(fetch_on(conn), NODE, {id_: present}, NOW)

    return note


async def _asked_anew(conn: AsyncConnection, _: UUID) -> list[UUID]:
    return (await ask(conn, [draw("000002")]))[1].superseded


async def _redeemed_anew(conn: AsyncConnection, _: UUID) -> list[UUID]:
    _, made = await ask(conn, [draw("000002")])
    return made.superseded + (await type_in(conn, "000002")).superseded


# What is done: from which states it leads where; from every other it does nothing.
TRANSITIONS: dict[str, tuple[Act, dict[str, str]]] = {
    "redeem": (
        lambda conn, _: redeem(conn, "000001", Seat("mobile-2", "alice")),
        {"pending": "redeemed"},
    ),
    "redeem again": (
        lambda conn, _: redeem(conn, "000001"),
        {"pending": "redeemed", "redeemed": "redeemed", "active": "active", "waiting": "waiting"},
    ),
    "desktop joins": (
        joining("desktop", DESKTOP, both=False),
        {"pending": "pending", "redeemed": "redeemed", "active": "active", "waiting": "waiting"},
    ),
    "mobile joins": (
        joining("mobile", MOBILE, both=False),
        {"redeemed": "redeemed", "active": "active", "waiting": "waiting"},
    ),
    "mobile joins as the second": (
        joining("mobile", MOBILE, both=True),
        {"redeemed": "active", "active": "active", "waiting": "active"},
    ),
    "a stranger joins": (joining("mobile", Seat("mobile-2", "alice"), both=True), {}),
    "another user joins": (joining("desktop", Seat("desktop-1", "bob"), both=True), {}),
    "both noted present": (
        noting(Present(desktop=True, mobile=True)),
        {"pending": "pending", "redeemed": "active", "active": "active", "waiting": "active"},
    ),
    "one noted present": (
        noting(Present(desktop=True, mobile=False)),
        {"pending": "pending", "redeemed": "redeemed", "active": "waiting", "waiting": "waiting"},
    ),
    "end": (
        lambda conn, id_: store.end(conn, id_, "unpaired", LATE),
        dict.fromkeys(LIVE_STATES, "closed"),
    ),
    "end one's own": (
        lambda conn, id_: store.end_own(conn, id_, "alice", LATE),
        dict.fromkeys(LIVE_STATES, "closed"),
    ),
    "end another's": (lambda conn, id_: store.end_own(conn, id_, "bob", LATE), {}),
    "ask for a new code": (_asked_anew, {"pending": "superseded"}),
    "redeem the new code": (
        _redeemed_anew,
        {"pending": "superseded", "redeemed": "superseded", "active": "superseded", "waiting": "superseded"},
    ),
    "expire": (lambda conn, _: expiry.expire_pending(conn, LATE), {"pending": "expired"}),
    "nobody met": (lambda conn, _: expiry.close_never_active(conn, NOW, LATE), {"redeemed": "closed"}),
    "nobody seen": (
        lambda conn, _: expiry.close_deserted(conn, NODE, NOW, LATE),
        {"active": "closed", "waiting": "closed"},
    ),
}


@pytest.mark.parametrize("name", TRANSITIONS)
async def test_a_transition_leaves_only_the_states_it_may(conn: AsyncConnection, name: str) -> None:
    act, leads = TRANSITIONS[name]
    for state in (*LIVE_STATES, *ENDED_STATES):
        async with conn.begin_nested() as trial:
            pairing_id = await row_in(conn, state)
            row = select(pairings).where(pairings.c.id == pairing_id)
            before = (await conn.execute(row)).one()._asdict()
            done = await act(conn, pairing_id)
            after = (await conn.execute(row)).one()._asdict()
            await trial.rollback()
        if state not in leads:
            assert after == before, state
            assert not done, state
            continue
        assert after["state"] == leads[state], state
        assert (after["ended_at"] is not None) == (leads[state] in ENDED_STATES)
        assert (after["end_reason"] is None) == (after["ended_at"] is None)
        assert after["code_mac"] == before["code_mac"], "the name is kept for a while"


async def test_the_first_time_both_are_present_is_kept(conn: AsyncConnection) -> None:
    pairing_id = await row_in(conn, "redeemed")
    first = await store.enter(conn, Entering(pairing_id, "mobile", MOBILE, both_present=True, node=NODE), NOW)
    again = await store.enter(
        conn, Entering(pairing_id, "mobile", MOBILE, both_present=True, node=NODE), LATE
    )
    both = Present(desktop=True, mobile=True)
    await membership.set_present(fetch_on(conn), NODE, {pairing_id: both}, LATE)
    last = await store.by_code(conn, MACS)
    assert first is not None
    assert again is not None
    assert last is not None
    assert first.activated_at == again.activated_at == last.activated_at == NOW


async def test_joining_claims_a_guests_seat_for_good(conn: AsyncConnection) -> None:
    pairing_id = await row_in(conn, "redeemed", desktop=Seat("desktop-1", None))
    claimed = await store.enter(
        conn, Entering(pairing_id, "desktop", DESKTOP, both_present=False, node=NODE), NOW
    )
    assert claimed is not None
    assert claimed.desktop == DESKTOP
    bob = Seat("desktop-1", "bob")
    assert (
        await store.enter(conn, Entering(pairing_id, "desktop", bob, both_present=False, node=NODE), NOW)
        is None
    )


@pytest.mark.parametrize(("age", "joins"), [(299, True), (300, False)])
async def test_a_desktop_joins_its_waiting_channel_until_the_code_expires(
    conn: AsyncConnection, age: float, joins: bool
) -> None:
    pairing_id = await row_in(conn, "pending")
    now = NOW + seconds(age)
    entered = await store.enter(
        conn, Entering(pairing_id, "desktop", DESKTOP, both_present=False, node=NODE), now
    )
    assert (entered is not None) == joins


# Questions


async def test_a_users_live_pairings_are_found_on_either_side_newest_first(conn: AsyncConnection) -> None:
    first = await row_in(conn, "pending", "000001", DESKTOP)
    second = await row_in(conn, "active", "000002", Seat("desktop-b", "bob"))
    await row_in(conn, "closed", "000003", DESKTOP)
    later = update(pairings).where(pairings.c.id == second).values(created_at=LATE)
    await conn.execute(later)
    assert [found.id for found in await store.live_of(conn, "alice")] == [second, first]
    assert [found.id for found in await store.live_of(conn, "bob")] == [second]
    assert [found.id for found in await store.live_of(conn, "alice", limit=1)] == [second]


async def test_pairings_that_ended_long_ago_are_forgotten(conn: AsyncConnection) -> None:
    await row_in(conn, "closed", "000001")
    await row_in(conn, "active", "000002")
    assert await expiry.prune(conn, NOW - seconds(1)) == 0
    assert await expiry.prune(conn, NOW) == 1
    assert await expiry.count_live(conn) == 1
    assert await store.by_code(conn, CODES.macs("000001")) is None
