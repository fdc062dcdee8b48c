"""Pairings at rest: names that are unique, codes that work once, and transitions that check the state they leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.services.deps import Codes
from pairing_server.store import pairings as store
from pairing_server.store.database import Database
from pairing_server.store.pairings import Draw, Pairing, Seat
from pairing_server.store.tables import ENDED_STATES, LIVE_STATES, pairings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CODES = Codes([b"current key"])
DESKTOP = Seat("desktop-1", "alice")
MOBILE = Seat("mobile-1", "alice")


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def draw(code: str, codes: Codes = CODES) -> Draw:
    macs = codes.macs(code)
    return Draw(macs[0], tuple(macs))


async def make(
    conn: AsyncConnection, code: str, desktop: Seat = DESKTOP, codes: Codes = CODES
) -> UUID | None:
    """A pending pairing under that code for 300 s; None if the name is taken."""
    pairing_id = uuid4()
    mac = await store.add(conn, pairing_id, [draw(code, codes)], desktop, NOW, NOW + seconds(300))
    return None if mac is None else pairing_id


async def redeem(
    conn: AsyncConnection,
    code: str,
    mobile: Seat = MOBILE,
    now: datetime = NOW,
    codes: Codes = CODES,
    *,
    same_user: bool = True,
) -> Pairing | None:
    return await store.redeem(conn, codes.macs(code), mobile, now, same_user=same_user)


# Drawing


async def test_a_new_pairing_waits_for_its_code(conn: AsyncConnection) -> None:
    made = await make(conn, "000042")
    found = await store.by_code(conn, CODES.macs("000042"))
    assert found is not None
    assert (found.id, found.state, found.desktop, found.mobile) == (made, "pending", DESKTOP, None)
    assert (found.created_at, found.expires_at, found.live) == (NOW, NOW + seconds(300), True)


async def test_the_code_itself_is_not_in_the_database(conn: AsyncConnection) -> None:
    await make(conn, "271828")
    row = str((await conn.execute(text("SELECT pairings::text FROM pairings"))).scalar_one())
    assert "271828" not in row
    assert b"271828".hex() not in row


async def test_the_first_free_name_of_those_drawn_is_given_out(conn: AsyncConnection) -> None:
    drawn = [draw(code) for code in ("000001", "000002", "000003", "000004")]
    await make(conn, "000001")
    await make(conn, "000002")
    given = await store.add(conn, uuid4(), drawn, DESKTOP, NOW, NOW + seconds(300))
    assert given == drawn[2].mac


async def test_without_a_free_name_none_is_given_out(conn: AsyncConnection) -> None:
    assert await make(conn, "000001") is not None
    assert await make(conn, "000001", Seat("desktop-2", "bob")) is None
    assert await store.count_live(conn) == 1


async def test_of_many_that_draw_one_name_at_once_one_gets_it(database: Database) -> None:
    async def one(number: int) -> UUID | None:
        async with database.transaction() as conn:
            return await make(conn, "000001", Seat(f"desktop-{number}", "alice"))

    made = await asyncio.gather(*(one(number) for number in range(12)))
    assert sum(found is not None for found in made) == 1


@pytest.mark.parametrize("state", [*LIVE_STATES, *ENDED_STATES])
async def test_a_name_is_taken_in_every_state_until_it_is_released(conn: AsyncConnection, state: str) -> None:
    await row_in(conn, state, code="000001")
    assert await make(conn, "000001") is None
    await store.release_names(conn, NOW + seconds(1))
    assert (await make(conn, "000001") is not None) == (state in ENDED_STATES)


async def test_a_name_is_released_once_it_has_ended_long_enough_ago(conn: AsyncConnection) -> None:
    made = await make(conn, "000001")
    assert made is not None
    await store.end(conn, made, "user", NOW)
    assert await store.release_names(conn, NOW - timedelta(microseconds=1)) == 0
    assert (await store.by_code(conn, CODES.macs("000001"))) is not None
    assert await store.release_names(conn, NOW) == 1
    assert await store.release_names(conn, NOW) == 0
    assert (await store.by_code(conn, CODES.macs("000001"))) is None


async def test_a_name_given_out_under_a_previous_key_is_taken_and_its_code_still_works(
    conn: AsyncConnection,
) -> None:
    before, after = Codes([b"old key"]), Codes([b"new key", b"old key"])
    made = await make(conn, "000001", codes=before)
    assert await make(conn, "000001", codes=after) is None
    assert await make(conn, "000002", codes=after) is not None
    found = await redeem(conn, "000001", codes=after)
    assert found is not None
    assert found.id == made
    # Once the old key is gone, so are its codes.
    assert await store.by_code(conn, Codes([b"new key"]).macs("000001")) is None


def test_codes_are_six_digits_and_any_digit_stands_anywhere() -> None:
    codes = [code for code, _ in CODES.draw(5000).values()]
    assert {len(code) for code in codes} == {6}
    for place in range(6):
        assert {code[place] for code in codes} == set("0123456789")
    assert len(set(codes)) > 4900


# Redeeming


async def test_of_many_that_redeem_one_code_at_once_one_wins(database: Database) -> None:
    async with database.transaction() as conn:
        await make(conn, "000001")

    async def one(number: int) -> Pairing | None:
        async with database.transaction() as conn:
            return await redeem(conn, "000001", Seat(f"mobile-{number}", "alice"))

    won = [found for found in await asyncio.gather(*(one(number) for number in range(12))) if found]
    assert len(won) == 1
    async with database.transaction() as conn:
        stored = await store.by_code(conn, CODES.macs("000001"))
    assert stored == won[0]
    assert stored.state == "redeemed"


async def test_the_winner_who_tries_again_gets_the_same_and_nobody_else_does(conn: AsyncConnection) -> None:
    await make(conn, "000001")
    first = await redeem(conn, "000001")
    assert first is not None
    assert await redeem(conn, "000001", now=NOW + seconds(900)) == first
    assert await redeem(conn, "000001", Seat("mobile-2", "alice")) is None
    assert await redeem(conn, "000001", Seat("mobile-1", "bob"), same_user=False) is None
    await store.end(conn, first.id, "user", NOW)
    assert await redeem(conn, "000001") is None


@pytest.mark.parametrize(("age", "works"), [(299, True), (299.999999, True), (300, False), (301, False)])
async def test_a_code_works_for_less_than_its_five_minutes(
    conn: AsyncConnection, age: float, works: bool
) -> None:
    await make(conn, "000001")
    assert (await redeem(conn, "000001", now=NOW + seconds(age)) is not None) == works


@pytest.mark.parametrize(("age", "expires"), [(299, False), (299.999999, False), (300, True), (301, True)])
async def test_a_code_expires_at_the_moment_it_stops_working(
    conn: AsyncConnection, age: float, expires: bool
) -> None:
    made = await make(conn, "000001")
    expired = await store.expire_pending(conn, NOW + seconds(age))
    assert [(found.id, found.state, found.end_reason) for found in expired] == (
        [(made, "expired", "expired")] if expires else []
    )


async def test_a_code_is_bound_to_its_account_unless_the_policy_says_otherwise(conn: AsyncConnection) -> None:
    bob = Seat("mobile-b", "bob")
    await make(conn, "000001")
    assert await redeem(conn, "000001", bob) is None
    found = await redeem(conn, "000001", bob, same_user=False)
    assert found is not None
    assert found.mobile == bob


async def test_a_guests_code_admits_any_account(conn: AsyncConnection) -> None:
    await make(conn, "000001", Seat("desktop-1", None))
    found = await redeem(conn, "000001")
    assert found is not None
    assert (found.desktop.user, found.mobile) == (None, MOBILE)


# Transitions


async def row_in(conn: AsyncConnection, state: str, code: str = "000001", desktop: Seat = DESKTOP) -> UUID:
    """A pairing in that state, whatever brought it there: everything in it happened at NOW."""
    redeemed = state in ("redeemed", "active", "waiting", "closed")
    ended = state in ENDED_STATES
    pairing_id = uuid4()
    values = {
        "id": pairing_id,
        "code_mac": CODES.macs(code)[0],
        "state": state,
        "desktop_session": desktop.session_id,
        "desktop_user": desktop.user,
        "mobile_session": MOBILE.session_id if redeemed else None,
        "mobile_user": MOBILE.user if redeemed else None,
        "created_at": NOW,
        "expires_at": NOW + seconds(300),
        "redeemed_at": NOW if redeemed else None,
        "seen_at": NOW,
        "ended_at": NOW if ended else None,
        "end_reason": "user" if ended else None,
    }
    await conn.execute(insert(pairings).values(values))
    return pairing_id


MACS = CODES.macs("000001")
LATE = NOW + seconds(1000)
Act = Callable[[AsyncConnection, UUID], Awaitable[Any]]


def joining(role: str, seat: Seat, *, both: bool) -> Act:
    return lambda conn, id_: store.enter(conn, id_, role, seat, NOW, both_present=both)


NEW = Pairing(uuid4(), "redeemed", DESKTOP, MOBILE, NOW, NOW, NOW, None, None, None)

# What is done: from which states it leads where; from every other it does nothing.
TRANSITIONS: dict[str, tuple[Act, dict[str, str]]] = {
    "redeem": (
        lambda conn, _: store.redeem(conn, MACS, Seat("mobile-2", "alice"), NOW, same_user=True),
        {"pending": "redeemed"},
    ),
    "redeem again": (
        lambda conn, _: store.redeem(conn, MACS, MOBILE, NOW, same_user=True),
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
        lambda conn, id_: store.set_present(conn, [id_], "active", NOW),
        {"redeemed": "active", "active": "active", "waiting": "active"},
    ),
    "one noted present": (
        lambda conn, id_: store.set_present(conn, [id_], "waiting", NOW),
        {"active": "waiting", "waiting": "waiting"},
    ),
    "end": (
        lambda conn, id_: store.end(conn, id_, "user", LATE),
        dict.fromkeys(LIVE_STATES, "closed"),
    ),
    "end one's own": (
        lambda conn, id_: store.end_own(conn, id_, "alice", LATE),
        dict.fromkeys(LIVE_STATES, "closed"),
    ),
    "end another's": (lambda conn, id_: store.end_own(conn, id_, "bob", LATE), {}),
    "ask for a new code": (
        lambda conn, _: store.supersede_pending(conn, DESKTOP, LATE),
        {"pending": "superseded"},
    ),
    "redeem the new code": (
        lambda conn, _: store.supersede_channels(conn, NEW, LATE),
        {"redeemed": "superseded", "active": "superseded", "waiting": "superseded"},
    ),
    "expire": (lambda conn, _: store.expire_pending(conn, LATE), {"pending": "expired"}),
    "nobody met": (lambda conn, _: store.close_never_active(conn, NOW, LATE), {"redeemed": "closed"}),
    "nobody seen": (
        lambda conn, _: store.close_deserted(conn, NOW, LATE),
        {"active": "closed", "waiting": "closed"},
    ),
}


@pytest.mark.parametrize("name", TRANSITIONS)
async def test_a_transition_leaves_only_the_states_it_may(conn: AsyncConnection, name: str) -> None:
    act, leads = TRANSITIONS[name]
    row = select(pairings)
    for state in (*LIVE_STATES, *ENDED_STATES):
        async with conn.begin_nested() as trial:
            pairing_id = await row_in(conn, state)
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
    first = await store.enter(conn, pairing_id, "mobile", MOBILE, NOW, both_present=True)
    again = await store.enter(conn, pairing_id, "mobile", MOBILE, LATE, both_present=True)
    await store.set_present(conn, [pairing_id], "active", LATE)
    last = await store.by_code(conn, MACS)
    assert first is not None
    assert again is not None
    assert last is not None
    assert first.activated_at == again.activated_at == last.activated_at == NOW


async def test_joining_claims_a_guests_seat_for_good(conn: AsyncConnection) -> None:
    pairing_id = await row_in(conn, "redeemed", desktop=Seat("desktop-1", None))
    claimed = await store.enter(conn, pairing_id, "desktop", DESKTOP, NOW, both_present=False)
    assert claimed is not None
    assert claimed.desktop == DESKTOP
    bob = Seat("desktop-1", "bob")
    assert await store.enter(conn, pairing_id, "desktop", bob, NOW, both_present=False) is None


@pytest.mark.parametrize(("age", "joins"), [(299, True), (300, False)])
async def test_a_desktop_joins_its_waiting_channel_until_the_code_expires(
    conn: AsyncConnection, age: float, joins: bool
) -> None:
    pairing_id = await row_in(conn, "pending")
    now = NOW + seconds(age)
    entered = await store.enter(conn, pairing_id, "desktop", DESKTOP, now, both_present=False)
    assert (entered is not None) == joins


async def test_a_new_code_supersedes_only_that_desktops_own(conn: AsyncConnection) -> None:
    own = await row_in(conn, "pending", "000001")
    await row_in(conn, "pending", "000002", Seat("desktop-2", "alice"))
    await row_in(conn, "pending", "000003", Seat("desktop-1", "bob"))
    await row_in(conn, "pending", "000004", Seat("desktop-1", None))
    assert await store.supersede_pending(conn, DESKTOP, NOW) == [own]


async def test_the_pairing_just_redeemed_does_not_supersede_itself(conn: AsyncConnection) -> None:
    old = await row_in(conn, "active", "000001")
    await make(conn, "000002")
    new = await redeem(conn, "000002")
    assert new is not None
    assert await store.supersede_channels(conn, new, NOW) == [old]


# Questions


async def test_waiting_codes_are_counted_for_the_user_but_not_for_the_asking_desktop(
    conn: AsyncConnection,
) -> None:
    await row_in(conn, "pending", "000001", DESKTOP)
    await row_in(conn, "pending", "000002", Seat("desktop-2", "alice"))
    await row_in(conn, "pending", "000003", Seat("desktop-3", "bob"))
    for number, state in enumerate(("redeemed", "active", "closed", "superseded"), 4):
        await row_in(conn, state, f"{number:06d}", Seat(f"desktop-{number}", "alice"))
    assert await store.pending_of(conn, "alice", "desktop-1", NOW) == 1
    assert await store.pending_of(conn, "alice", "desktop-9", NOW) == 2
    assert await store.pending_of(conn, "alice", "desktop-9", NOW + seconds(300)) == 0


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
    assert await store.prune(conn, NOW - seconds(1)) == 0
    assert await store.prune(conn, NOW) == 1
    assert await store.count_live(conn) == 1
    assert await store.by_code(conn, CODES.macs("000001")) is None
