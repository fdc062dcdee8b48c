"""The audit log at rest: added to and read, never changed, and one with the acts it tells of."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from pairing_server.audit.store import search
from pairing_server.audit.store.filters import Filter
from pairing_server.clock import utcnow
from pairing_server.errors import Unavailable
from pairing_server.request_context import RequestContext, system
from pairing_server.store import audit_events, users
from pairing_server.store.audit_events import Event
from tests.audit.logs import Switchable, audit_log
from tests.conftest import execute
from tests.devices import Site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADMIN = RequestContext(utcnow(), kind="admin")


def event(
    name: str = "auth.login",
    outcome: str = "success",
    *,
    actor: str | None = None,
    address: str | None = None,
    pairing: UUID | None = None,
    **attrs: object,
) -> Event:
    caller = RequestContext(utcnow(), subject=actor, address=address, kind="user")
    return audit_log().event(name, outcome, caller.at(NOW), pairing_id=pairing, **attrs)


async def found(conn: AsyncConnection, which: Filter | None = None, limit: int = 100) -> list[str]:
    """Whose events match, newest first."""
    return [
        str(row.event.actor_subject) for row in (await search.page(conn, which or Filter(), limit)).events
    ]


@pytest.mark.parametrize(
    "act",
    [
        "UPDATE audit_events SET outcome = 'success'",
        "UPDATE audit_events SET recorded_at = now() WHERE actor_subject = 'mallory'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
    ],
)
async def test_recorded_events_cannot_be_changed(conn: AsyncConnection, act: str) -> None:
    await audit_events.add(conn, [event("auth.login", "failure", actor="mallory")])
    with pytest.raises(DBAPIError, match=r"append-only: \w+ of \w+ refused"):
        async with conn.begin_nested():
            await conn.execute(text(act))
    [row] = (await search.page(conn, Filter(), 10)).events
    assert (row.event.actor_subject, row.event.outcome) == ("mallory", "failure")


async def test_an_event_comes_back_as_it_was_recorded(conn: AsyncConnection) -> None:
    full = Event(
        event_id=uuid4(),
        event="ws.connected",
        severity=6,
        outcome="success",
        occurred_at=NOW,
        node="node-1",
        app_version="1.2.3",
        actor_kind="device",
        reason="because",
        actor_subject="alice",
        auth_method="password",
        address="2001:db8::7",
        request_id=uuid4(),
        connection_id=uuid4(),
        pairing_id=uuid4(),
        count=3,
        attrs={"text": "é\"'\\", "number": 1, "nothing": None, "yes": True},
    )
    await audit_events.add(conn, [full])
    [row] = (await search.page(conn, Filter(), 10)).events
    assert row.event == full


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "good"},
        {"severity": 8},
        {"actor_kind": "robot"},
        {"attrs": {str(n): "x" * 200 for n in range(30)}},
    ],
)
async def test_an_event_outside_its_bounds_is_refused(
    conn: AsyncConnection, wrong: dict[str, object]
) -> None:
    with pytest.raises(DBAPIError, match="violates check constraint"):
        await audit_events.add(conn, [replace(event(), **wrong)])  # type: ignore[arg-type]


async def test_events_are_listed_newest_first_page_after_page(conn: AsyncConnection) -> None:
    await audit_events.add(conn, [event(actor=f"{number}") for number in range(10)])
    await audit_events.add(conn, [event(actor="10")])
    seen: list[str] = []
    place = None
    for _ in range(4):
        page = (await search.page(conn, Filter(), 3, place)).events
        seen += [str(row.event.actor_subject) for row in page]
        place = page[-1].place
    assert seen == [f"{number}" for number in range(10, -1, -1)]
    assert (await search.page(conn, Filter(), 3, place)).events == []


async def test_events_recorded_between_two_pages_shift_no_rows(conn: AsyncConnection) -> None:
    await audit_events.add(conn, [event(actor=f"{number}") for number in range(4)])
    first = (await search.page(conn, Filter(), 2)).events
    await audit_events.add(conn, [event(actor="late")])
    place = first[-1].place
    assert [row.event.actor_subject for row in (await search.page(conn, Filter(), 2, place)).events] == [
        "1",
        "0",
    ]


async def test_each_filter_selects_what_matches(conn: AsyncConnection) -> None:
    pairing = uuid4()
    await audit_events.add(conn, [event("auth.login", "failure", actor="a")])
    await audit_events.add(conn, [event("pairing.redeem", actor="b", pairing=pairing)])
    await audit_events.add(conn, [event("auth.login", actor="c", pairing=uuid4())])
    rows = {
        row.event.actor_subject: row.recorded_at for row in (await search.page(conn, Filter(), 10)).events
    }
    assert await found(conn, Filter(event="auth.login")) == ["c", "a"]
    assert await found(conn, Filter(actor="b")) == ["b"]
    assert await found(conn, Filter(pairing=pairing)) == ["b"]
    assert await found(conn, Filter(outcome="failure")) == ["a"]
    assert await found(conn, Filter(since=rows["b"])) == ["c", "b"]
    assert await found(conn, Filter(until=rows["b"])) == ["a"]
    assert await found(conn, Filter(event="auth.login", outcome="success", since=rows["a"])) == ["c"]
    assert await found(conn, Filter(event="auth.login", actor="b")) == []


async def test_the_address_filter_takes_addresses_and_networks(conn: AsyncConnection) -> None:
    for address in ("10.1.2.3", "10.1.9.9", "10.2.0.1", "2001:db8::1", "2001:db8:1::1", None):
        await audit_events.add(conn, [event(actor=address, address=address)])

    async def within(network: str) -> list[str]:
        return await found(conn, Filter(address=ip_network(network)))

    assert await within("10.1.2.3") == ["10.1.2.3"]
    assert await within("10.1.0.0/16") == ["10.1.9.9", "10.1.2.3"]
    assert await within("0.0.0.0/0") == ["10.2.0.1", "10.1.9.9", "10.1.2.3"]
    assert await within("2001:db8::/48") == ["2001:db8::1"]
    assert await within("::/0") == ["2001:db8:1::1", "2001:db8::1"]
    assert await within("192.0.2.0/24") == []


# One with the act


async def test_an_act_that_fails_leaves_no_event(site: Site) -> None:
    node = site.node
    with pytest.raises(Unavailable):
        async with node.database.transaction() as conn:
            await node.audit.record(conn, event("account.created", actor="nobody"))
            raise Unavailable()
    assert await site.events("account.created") == []
    made = await site.node.services.accounts.add_user(
        ADMIN.at(NOW), "alice", "a long enough password", "user"
    )
    with pytest.raises(Exception, match="taken"):
        await site.node.services.accounts.add_user(ADMIN.at(NOW), "ALICE", "a long enough password", "user")
    assert [event["target"] for event in await site.events("account.created")] == [made.subject]


async def test_an_act_whose_event_cannot_be_recorded_does_not_happen(site: Site, database_url: str) -> None:
    node = site.node
    account = await site.account()
    caller = RequestContext(utcnow(), subject=account.subject, address_key="192.0.2.1", kind="user")
    code = await site.node.services.pairings.create_code(caller.at(NOW), "desktop-1")
    await asyncio.to_thread(execute, database_url, "ALTER TABLE audit_events RENAME TO gone")
    with pytest.raises(asyncpg.UndefinedTableError):
        await site.node.services.pairings.redeem_code(caller.at(NOW), code.code, "mobile-1")
    with pytest.raises(asyncpg.UndefinedTableError):
        await site.node.services.pairings.create_code(caller.at(NOW), "desktop-2")
    with pytest.raises(DBAPIError):
        await site.node.services.accounts.add_user(ADMIN.at(NOW), "bob", "a long enough password", "user")
    with pytest.raises(DBAPIError):
        await site.node.services.pairings.unpair(caller.at(NOW), code.pairing_id)
    await asyncio.to_thread(execute, database_url, "ALTER TABLE gone RENAME TO audit_events")
    [pairing] = await site.node.services.pairings.list_own(caller)
    assert (pairing.id, pairing.state) == (code.pairing_id, "pending")
    async with node.database.transaction() as conn:
        assert await users.by_name(conn, "bob") is None
    # Nothing of it was half done: now all of it works.
    assert (
        await site.node.services.pairings.redeem_code(caller.at(NOW), code.code, "mobile-1")
    ).pairing_id == code.pairing_id


# The queue


async def test_concurrent_flushes_write_queued_events_once_and_in_order(site: Site) -> None:
    node = site.node
    for number in range(1200):
        node.audit.enqueue(event("msg.invalid", actor=f"{number % 200}", rule=number))
    await asyncio.gather(*(node.audit.flush(system(NOW)) for _ in range(4)))
    async with node.database.transaction() as conn:
        rows = (await search.page(conn, Filter(event="msg.invalid"), 5000)).events
    assert [row.event.attrs["rule"] for row in reversed(rows)] == list(range(1200))


async def test_queued_events_wait_while_the_database_is_away(site: Site, database_url: str) -> None:
    database = Switchable(site.node.database)
    log = audit_log(database)
    log.enqueue(event("msg.invalid", rule=1))
    database.away = True
    with pytest.raises(Unavailable):
        await log.flush(system(NOW))
    database.away = False
    await log.flush(system(NOW))
    await database.close()
    assert [event["rule"] for event in await site.events("msg.invalid")] == [1]


async def test_a_full_queue_loses_the_newest_and_says_how_many(site: Site) -> None:
    log = audit_log(site.node.database, 3)
    for number in range(5):
        log.enqueue(event("msg.invalid", rule=number))
    await log.flush(system(NOW + timedelta(seconds=1)))
    await log.flush(system(NOW + timedelta(seconds=2)))
    assert [event["rule"] for event in await site.events("msg.invalid")] == [0, 1, 2]
    assert [event["lost"] for event in await site.events("audit.gap")] == [2]


async def test_an_event_that_the_database_refuses_does_not_block_others(site: Site) -> None:
    node = site.node
    for number in range(3):
        node.audit.enqueue(event("msg.invalid", rule=number))
        node.audit.enqueue(replace(event("ws.rejected"), outcome="good"))
    assert [event["rule"] for event in await site.events("msg.invalid")] == [0, 1, 2]
    assert await site.events("ws.rejected") == []


async def test_a_flood_from_one_source_is_ten_rows_and_a_count(site: Site) -> None:
    node = site.node
    for number in range(250):
        node.audit.enqueue(event("msg.invalid", actor="mallory", rule=number))
    node.audit.enqueue(event("msg.invalid", actor="alice"))
    await node.audit.flush(system(NOW + timedelta(minutes=1)))
    async with node.database.transaction() as conn:
        rows = (await search.page(conn, Filter(event="msg.invalid", actor="mallory"), 100)).events
        assert await found(conn, Filter(event="msg.invalid", actor="alice")) == ["alice"]
    assert [row.event.count for row in rows] == [240, *[1] * 10]


async def test_client_text_is_one_short_line_in_the_log(site: Site) -> None:
    node = site.node
    nasty = "a\r\nb\x1b[31m\u202ec\u0000" + "x" * 500
    node.audit.enqueue(event("ws.connected", origin=nasty))
    [recorded] = await site.events("ws.connected")
    assert recorded["origin"] == ("ab[31mc" + "x" * 500)[:200]
