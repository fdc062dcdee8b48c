"""Making and redeeming codes: names that are unique, codes that work once, and whom they admit."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.db.database import Database
from pairing_server.db.tables import LIVE_STATES, attempts, audit_events, pairings, users
from pairing_server.services.codes import Codes
from pairing_server.store import expiry
from pairing_server.store import pairings as store
from pairing_server.store.pairings import Pairing, Seat
from tests.store.rows import (
    CODES,
    DESKTOP,
    ENDED_STATES,
    MOBILE,
    NOW,
    ask,
    draw,
    make,
    redeem,
    row_in,
    seconds,
    type_in,
)

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
    _, given = await ask(conn, drawn)
    assert given.mac == drawn[2].mac


async def test_without_a_free_name_none_is_given_out(conn: AsyncConnection) -> None:
    assert await make(conn, "000001") is not None
    assert await make(conn, "000001", Seat("desktop-2", "bob")) is None
    assert await expiry.count_live(conn) == 1


@pytest.mark.parametrize("desktop", [Seat("desktop-1", "alice"), Seat("desktop-1", None)])
async def test_a_code_whose_answer_was_lost_is_found_and_not_made_again(
    conn: AsyncConnection, desktop: Seat
) -> None:
    before = await make(conn, "000001", desktop)
    pairing_id, made = await ask(conn, [draw("000002"), draw("000003")], desktop, NOW + seconds(1), lost=True)
    assert made.refusal is None
    assert (made.owner, made.mac, made.superseded) == (desktop.user, draw("000002").mac, [before])
    rows = await conn.execute(select(pairings.c.id, pairings.c.state).order_by(pairings.c.created_at))
    assert [tuple(row) for row in rows] == [(before, "superseded"), (pairing_id, "pending")]
    told = select(audit_events.c.event).where(audit_events.c.event == "pairing.code_created")
    assert len((await conn.execute(told)).all()) == 2, "one for each code"


async def test_what_could_not_be_made_is_tried_anew_when_its_answer_was_lost(conn: AsyncConnection) -> None:
    await make(conn, "000001", Seat("desktop-2", "bob"))
    _, made = await ask(conn, [draw("000001")], lost=True)
    assert (made.mac, made.owner) == (None, "alice")


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
    await expiry.release_names(conn, NOW + seconds(1))
    assert (await make(conn, "000001") is not None) == (state in ENDED_STATES)


async def test_a_name_is_released_once_it_has_ended_long_enough_ago(conn: AsyncConnection) -> None:
    made = await make(conn, "000001")
    assert made is not None
    await store.end(conn, made, "unpaired", NOW)
    assert await expiry.release_names(conn, NOW - timedelta(microseconds=1)) == 0
    assert (await store.by_code(conn, CODES.macs("000001"))) is not None
    assert await expiry.release_names(conn, NOW) == 1
    assert await expiry.release_names(conn, NOW) == 0
    assert (await store.by_code(conn, CODES.macs("000001"))) is None


async def test_a_name_given_out_under_a_previous_key_is_taken_and_its_code_still_works(
    conn: AsyncConnection,
) -> None:
    before, after = Codes([b"old key"]), Codes([b"new key", b"old key"])
    made = await make(conn, "000001", codes=before)
    assert await make(conn, "000001", codes=after) is None
    assert await make(conn, "000002", Seat("desktop-2", "alice"), codes=after) is not None
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


async def test_only_the_winners_retry_gets_the_same_pairing(conn: AsyncConnection) -> None:
    await make(conn, "000001")
    first = await redeem(conn, "000001")
    assert first is not None
    assert await redeem(conn, "000001", now=NOW + seconds(900)) == first
    assert await redeem(conn, "000001", Seat("mobile-2", "alice")) is None
    assert await redeem(conn, "000001", Seat("mobile-1", "bob"), same_user=False) is None
    await store.end(conn, first.id, "unpaired", NOW)
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
    expired = await expiry.expire_pending(conn, NOW + seconds(age))
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


# What else the two statements decide and record


async def events(conn: AsyncConnection) -> list[str]:
    rows = await conn.execute(select(audit_events.c.event).order_by(audit_events.c.seq))
    return list(rows.scalars())


async def test_a_new_code_takes_the_place_of_that_desktops_own_and_of_no_other(conn: AsyncConnection) -> None:
    own = await row_in(conn, "pending", "000001")
    await row_in(conn, "pending", "000002", Seat("desktop-2", "alice"))
    await row_in(conn, "active", "000003", DESKTOP)
    _, made = await ask(conn, [draw("000009")])
    assert made.superseded == [own]


async def test_a_guests_new_code_leaves_an_accounts_alone(conn: AsyncConnection) -> None:
    await row_in(conn, "pending", "000001", Seat("desktop-1", "alice"))
    guests = await row_in(conn, "pending", "000002", Seat("desktop-1", None))
    _, made = await ask(conn, [draw("000009")], Seat("desktop-1", None))
    assert made.superseded == [guests]


async def test_redeeming_ends_the_channel_the_desktop_had_and_not_the_new_one(conn: AsyncConnection) -> None:
    old = await row_in(conn, "active", "000001")
    await make(conn, "000002")
    found = await type_in(conn, "000002")
    assert found.pairing is not None
    assert found.superseded == [old]
    again = await type_in(conn, "000002")
    assert again.superseded == []


async def test_a_user_with_as_many_codes_waiting_as_may_gets_no_more_but_the_same_desktop_does(
    conn: AsyncConnection,
) -> None:
    for number, state in enumerate(("pending", "pending", "redeemed", "active", "closed", "superseded"), 1):
        await row_in(conn, state, f"{number:06d}", Seat(f"desktop-{number}", "alice"))
    await row_in(conn, "pending", "000008", Seat("desktop-8", "bob"))
    _, refused = await ask(conn, [draw("000009")], Seat("desktop-9", "alice"), most_waiting=2)
    assert (refused.mac, refused.waiting) == (None, 2)
    _, made = await ask(conn, [draw("000009")], Seat("desktop-1", "alice"), most_waiting=2)
    assert (made.mac is not None, made.waiting) == (True, 1)
    later = NOW + seconds(300)
    _, made = await ask(conn, [draw("000010")], Seat("desktop-9", "alice"), later, most_waiting=2)
    assert made.waiting == 0, "what has expired waits no more"


async def test_the_code_and_what_is_recorded_of_it_come_together(conn: AsyncConnection) -> None:
    await make(conn, "000001")
    assert await events(conn) == ["session.bound", "pairing.code_created"]
    assert await redeem(conn, "000002") is None
    assert await events(conn) == ["session.bound", "pairing.code_created", "session.bound"]
    found = await redeem(conn, "000001", now=NOW + seconds(1.5))
    assert found is not None
    won = select(audit_events.c.pairing_id, audit_events.c.reason, audit_events.c.attrs).where(
        audit_events.c.event == "pairing.redeem"
    )
    assert (await conn.execute(won)).one() == (found.id, None, {"ms_since_created": 1500})
    await redeem(conn, "000001", now=NOW + seconds(2))
    assert [row.reason for row in await conn.execute(won)] == [None, "retry_same"]


async def test_another_users_session_id_makes_and_redeems_nothing(conn: AsyncConnection) -> None:
    await make(conn, "000001")
    await make(conn, "000002", Seat("desktop-b", "bob"))
    _, made = await ask(conn, [draw("000003")], Seat("desktop-1", "bob"))
    assert (made.owner, made.mac) == ("alice", None)
    found = await type_in(conn, "000002", Seat("desktop-1", "bob"))
    assert (found.owner, found.pairing) == ("alice", None)


async def test_a_disabled_account_makes_and_redeems_nothing(conn: AsyncConnection) -> None:
    account = UUID(int=7)
    values = {
        "username": "a",
        "username_key": "a",
        "password_hash": "x",
        "created_at": NOW,
        "disabled_at": NOW,
    }
    await conn.execute(users.insert().values(id=account, **values))
    seat = Seat("desktop-1", str(account))
    _, made = await ask(conn, [draw("000001")], seat, account=account)
    assert (made.refusal, made.mac) == ("disabled", None)
    await make(conn, "000002", Seat("desktop-2", str(account)))
    found = await type_in(conn, "000002", Seat("mobile-2", str(account)), account=account)
    assert (found.refusal, found.pairing) == ("disabled", None)


@pytest.mark.parametrize(
    ("mode", "own", "strangers"),
    [("binding", False, False), ("except_own", True, False), ("counted", True, True)],
)
async def test_a_limit_that_is_locked_refuses_all_codes_all_but_ones_own_or_none(
    conn: AsyncConnection, mode: str, own: bool, strangers: bool
) -> None:
    await make(conn, "000001")
    await make(conn, "000002", Seat("desktop-of-bob", "bob"))
    locked = {"kind": "redeem_user", "key": "alice", "times": [], "touched_at": NOW}
    await conn.execute(attempts.insert().values(**locked, locked_until=NOW + seconds(60)))
    limits = (("redeem_user", "alice", mode),)
    bobs = await type_in(conn, "000002", same_user=False, limits=limits)
    assert (bobs.locked_out, bobs.pairing is not None) == (mode == "binding", strangers)
    found = await type_in(conn, "000001", same_user=False, limits=limits)
    assert (found.locked_out, found.pairing is not None) == (mode == "binding", own)
    after = await type_in(conn, "000001", now=NOW + seconds(60), same_user=False, limits=limits)
    assert after.pairing is not None


async def test_redeeming_is_planned_once_for_each_connection(database: Database) -> None:
    """Planning it takes as long as doing it; nothing in the results would tell."""
    async with database.direct() as direct:
        for number in range(8):
            await make(direct.conn, f"00000{number}", Seat(f"desktop-{number}", "alice"))
            assert await redeem(direct.conn, f"00000{number}", Seat(f"mobile-{number}", "alice")) is not None
        plans = await direct.driver.fetch(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%seated AS%'"
        )
    # The question itself is among them.
    assert (8, 0) in [tuple(row) for row in plans]
